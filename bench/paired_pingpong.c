/* paired_pingpong.c - mpipingpong's measurement and the plainest MPI loop, in turn, between the same two
 * processes.
 *
 *     mpiexec -n 2 paired_pingpong BYTES ITERATIONS ROUNDS
 *
 * Two starts of one program over the loopback differ by a third here, whatever the program: each start gets
 * one of several speeds and keeps it. So both are measured over one connection, on the same processors, with
 * the same buffers, in alternating order. "Ours" is src/pingpong/bounce.c as it is in mpipingpong. "Bare" is
 * MPI_Send and MPI_Recv with one clock reading per BLOCK round trips (so that it costs less than 1 in 1000)
 * and shares no code with it. Prints a line "OURS BARE" per round: medians of half a round trip, in
 * microseconds.
 */
#include "pingpong/bounce.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void bounce(unsigned char *out, unsigned char *in, int size, int rank, int count)
{
    for (int i = 0; i < count; i++) {
        if (rank == 0) {
            MPI_Send(out, size, MPI_CHAR, 1, 0, MPI_COMM_WORLD);
            MPI_Recv(in, size, MPI_CHAR, 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        } else {
            MPI_Recv(in, size, MPI_CHAR, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            MPI_Send(out, size, MPI_CHAR, 0, 0, MPI_COMM_WORLD);
        }
    }
}

static double bare(struct bounce *b, int rank, double *times)
{
    int size = (int)b->size, iterations = (int)b->iterations;
    int block = size > 4096 ? 1 : 20, blocks = iterations / block > 0 ? iterations / block : 1;
    bounce(b->send, b->receive, size, rank, (int)b->warmup + 1);
    for (int i = 0; i < blocks; i++) {
        double start = now_us();
        bounce(b->send, b->receive, size, rank, block);
        times[i] = (now_us() - start) / block / 2;
    }
    qsort(times, (size_t)blocks, sizeof *times, compare);
    return times[blocks / 2];
}

static double ours(struct bounce *b, int rank)
{
    struct end_result r;
    sample_clear(&b->samples);
    bounce_run(b, rank, 1 - rank, false, true, &r);
    return r.p50 / 2 / 1e3;
}

int main(int argc, char **argv)
{
    int rank;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    int size = argc > 1 ? atoi(argv[1]) : 1, iterations = argc > 2 ? atoi(argv[2]) : 10000;
    int rounds = argc > 3 ? atoi(argv[3]) : 5;
    struct bounce b;
    double *times = calloc((size_t)iterations + 1, sizeof *times);
    if (iterations < 20 || !times ||
        bounce_init(&b, (uint32_t)size, (uint32_t)iterations, (uint32_t)iterations / 20,
                    probe_clock_cost_ns()) < 0)
        MPI_Abort(MPI_COMM_WORLD, 1);
    for (int i = 0; i < rounds; i++) {
        double o = 0, p;
        if (i % 2)
            o = ours(&b, rank);
        p = bare(&b, rank, times);
        if (i % 2 == 0)
            o = ours(&b, rank);
        if (rank == 0)
            printf("%.4f %.4f\n", o, p);
    }
    bounce_release(&b);
    free(times);
    MPI_Finalize();
    return 0;
}
