/* bare_pingpong.c - the plainest MPI ping-pong, against which mpipingpong is measured.
 *
 *     mpiexec -n 2 bare_pingpong BYTES ITERATIONS
 *
 * Ranks 0 and 1 send one message to and fro; nothing else is in the loop but a clock reading
 * after every BLOCK round trips (so that it costs less than 1 in 1000). Prints the median over the blocks of
 * half a round trip, in microseconds. Shares no code with mpipingpong on purpose.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static void bounce(char *out, char *in, int size, int rank, int count)
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

int main(int argc, char **argv)
{
    int rank;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    int size = argc > 1 ? atoi(argv[1]) : 1, iterations = argc > 2 ? atoi(argv[2]) : 100000;
    int block = size > 4096 ? 1 : 20, blocks = iterations / block > 0 ? iterations / block : 1;
    char *out = aligned_alloc(4096, ((size_t)size / 4096 + 1) * 4096);
    char *in = aligned_alloc(4096, ((size_t)size / 4096 + 1) * 4096);
    double *times = calloc((size_t)blocks, sizeof *times);
    if (!out || !in || !times)
        MPI_Abort(MPI_COMM_WORLD, 1);
    memset(out, 1, (size_t)size);
    memset(in, 1, (size_t)size);
    bounce(out, in, size, rank, iterations / 20 + 5);
    for (int b = 0; b < blocks; b++) {
        double start = now_us();
        bounce(out, in, size, rank, block);
        times[b] = (now_us() - start) / block / 2;
    }
    qsort(times, (size_t)blocks, sizeof *times, compare);
    if (rank == 0)
        printf("%.4f\n", times[blocks / 2]);
    MPI_Finalize();
    return 0;
}
