// sthosvd_small as a function of the host: a launch, and the kernel's own arguments.
#include "cuda_on_host.h"
#include "kernel.cu"

extern "C" const char* launch(
    int clusters, int cluster, int count, int bytes, int backwards, const REAL* x, REAL* factors, REAL* core,
    double* errors, int* unresolved, int* status, int order, int i0, int i1, int i2, int i3, int i4,
    int r0, int r1, int r2, int r3, int r4, unsigned modes, int truncated, double floor,
    double below
) {
    return host::launch(clusters, cluster, count, bytes, backwards, [&]() {
        sthosvd_small(
            x, factors, core, errors, unresolved, status, order, i0, i1, i2, i3, i4, r0, r1, r2, r3,
            r4, modes, truncated, floor, below
        );
    });
}

// Bytes of shared memory that a problem takes, as the kernel itself counts them.
extern "C" int bytes_taken(
    int order, const int* size, const int* rank, unsigned modes, int count
) {
    Shape shape = {};
    describe(shape, order, size, rank, modes, count);
    return parts_of(shape, sizeof(REAL)).end;
}
