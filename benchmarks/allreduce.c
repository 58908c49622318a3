/* What MPI itself gives: MPI_Allreduce of fp32 gradients in place, in chunks of several sizes.
 *
 *     allreduce BYTES REPEATS CHUNK_BYTES…
 *
 * Rank 0 prints a line a chunk size: the size (bytes), then the time of each repeat (s) on the
 * slowest rank, then how many elements were wrong over all ranks. The sizes take turns, repeat by
 * repeat. benchmarks/allreduce.py compiles and runs it.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static double reduce_in_chunks(float *values, size_t count, size_t chunk)
{
    MPI_Barrier(MPI_COMM_WORLD);
    double start = MPI_Wtime();
    for (size_t first = 0; first < count; first += chunk) {
        size_t here = count - first < chunk ? count - first : chunk;
        MPI_Allreduce(MPI_IN_PLACE, values + first, (int)here, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    }
    double mine = MPI_Wtime() - start, slowest;
    MPI_Allreduce(&mine, &slowest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    return slowest;
}

/* Whole numbers that fp32 sums exactly; as many as there are ranks, their sum is known. */
static void fill(float *values, size_t count, int rank)
{
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(i % 251 + (size_t)rank);
}

static long count_wrong(const float *values, size_t count, int size)
{
    long wrong = 0;
    for (size_t i = 0; i < count; i++)
        wrong += values[i] != (float)(i % 251 * (size_t)size + (size_t)(size * (size - 1) / 2));
    return wrong;
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    int rank, size, kinds = argc - 3;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (kinds < 1) {
        fprintf(stderr, "usage: allreduce BYTES REPEATS CHUNK_BYTES...\n");
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    size_t count = strtoull(argv[1], NULL, 10) / sizeof(float);
    int repeats = atoi(argv[2]);
    float *values = malloc(count * sizeof(float));
    double *times = calloc((size_t)kinds * (size_t)repeats, sizeof(double));
    long *wrong = calloc((size_t)kinds, sizeof(long));
    if (!values || !times || !wrong)
        MPI_Abort(MPI_COMM_WORLD, 1);
    for (int repeat = -1; repeat < repeats; repeat++) /* the first one warms up */
        for (int kind = 0; kind < kinds; kind++) {
            fill(values, count, rank);
            double time = reduce_in_chunks(values, count,
                                           strtoull(argv[3 + kind], NULL, 10) / sizeof(float));
            if (repeat >= 0)
                times[kind * repeats + repeat] = time;
            wrong[kind] += count_wrong(values, count, size);
        }
    MPI_Allreduce(MPI_IN_PLACE, wrong, kinds, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
    for (int kind = 0; rank == 0 && kind < kinds; kind++) {
        printf("%s", argv[3 + kind]);
        for (int repeat = 0; repeat < repeats; repeat++)
            printf(" %.9f", times[kind * repeats + repeat]);
        printf(" %ld\n", wrong[kind]);
    }
    MPI_Finalize();
    return 0;
}
