// cp_als_small as a function of the host: a launch, and the kernel's own arguments.
#include "cuda_on_host.h"
#include "kernel.cu"

extern "C" const char* launch(
    int clusters, int cluster, int count, int bytes, int backwards, const REAL* x, REAL* factors, double* errors,
    int* sweeps, int* status, double* ridges, double* watched, int order, int i0, int i1, int i2,
    int i3, int i4, int rank, int split, int blocks, unsigned free, int n_iter_max, double tol, double jitter,
    double floor, double below, double least, double l2
) {
    return host::launch(clusters, cluster, count, bytes, backwards, [&]() {
        cp_als_small(
            x, factors, errors, sweeps, status, ridges, watched, order, i0, i1, i2, i3, i4, rank,
            split, blocks, free, n_iter_max, tol, jitter, floor, below, least, l2
        );
    });
}

// Bytes of shared memory that a problem takes, as the kernel itself counts them.
extern "C" int bytes_taken(int order, const int* size, int rank, int split, int blocks) {
    Shape shape = {};
    shape.order = order;
    shape.rank = rank;
    shape.blocks = blocks;
    shape.side[0].size = shape.side[1].size = 1;
    for (int n = 0; n < order; ++n) {
        shape.size[n] = size[n];
        shape.side[n >= split].size *= size[n];
    }
    shape.stride = shape.side[1].size | 1;
    return parts_of(shape, WIDTH, sizeof(REAL)).end;
}
