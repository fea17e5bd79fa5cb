/* trivial_mpi.c - the least an MPI program can do: what bench/launch starts. */
#include <mpi.h>

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    MPI_Finalize();
    return 0;
}
