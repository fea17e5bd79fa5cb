/* allreduce.c - the MPI program of the tests: unmodified MPI, whatever library it is compiled with.
 *
 *   allreduce            every rank prints "rank R of N sum S"
 *   allreduce abort R    rank R calls MPI_Abort with code 7
 *   allreduce early R    rank R leaves before MPI_Finalize
 *   allreduce code R C   rank R returns C after MPI_Finalize
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int rank, size, one = 1, sum = 0;
    const char *what = argc > 2 ? argv[1] : "";
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    int chosen = argc > 2 && atoi(argv[2]) == rank;
    if (chosen && !strcmp(what, "abort"))
        MPI_Abort(MPI_COMM_WORLD, 7);
    if (chosen && !strcmp(what, "early"))
        _exit(0);
    MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf("rank %d of %d sum %d\n", rank, size, sum);
    fflush(stdout);
    MPI_Finalize();
    return chosen && argc > 3 ? atoi(argv[3]) : 0;
}
