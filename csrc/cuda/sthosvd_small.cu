// Sequentially truncated higher-order SVDs of many small tensors, each by one thread block: the
// tensor, what is left of it, Gram matrices and eigenvectors lie in shared memory, and the tensor
// is read once.
//
// Of each mode that is to shrink, in a given order: the Gram matrix of what is left, in double
// precision; its eigenvectors, by Jacobi rotations; the leading ones, rounded to the tensor's type,
// are the factor; what is left is projected on it, from one of two places to the other. A mode at
// full rank gets the identity, and costs nothing. What is fixed when the kernel is compiled is the
// type alone.
//
// A mode of size n and rank r, with S entries left, takes
//   S (n + 4) flops in double precision for the Gram matrix, of which half the entries are made,
//   6 n^3 a sweep of the rotations, also these: 7 to 10 sweeps of most matrices,
//   2 S r for the projection (r filled up to fours), in the tensor's type;
// bytes: the tensor, its factors and core once. Shared memory: the tensor and what the first
// projection leaves of it, a factor, and of 8 bytes n (n + 2) + 32, and n of 4, of the longest mode.
//
// The error is the sum of the eigenvalues that were left out, over the squared norm, and that of
// the residual where it has lost its digits; every sum is taken in a fixed order, so results repeat
// to the bit. n + 3 barriers a sweep of the rotations (n + 4 where n is odd), eight a mode
// besides.
//
// Singular values are roots of eigenvalues of Gram matrices: in float64 those below 1e-6 of the
// largest have lost digits, and `unresolved` has a bit for each mode that keeps such a one.
#include "box.cuh"
#include "gram.cuh"
#include "jacobi.cuh"
#include "stopping.cuh"
#include "ttm.cuh"

// Where the parts of shared memory begin, in bytes, after room for sums over the block. The host
// knows the sum, too (tensorfast.cuda.tucker_plan).
struct Parts {
    int matrix, length, place, factor, tensor[2], end;
};

__device__ inline Parts parts_of(const Shape& shape, int item) {
    int longest = 0, factor = 0, first = 0;
    ROLLED
    for (int p = 0; p < shape.count; ++p) {
        const int n = shape.mode[p], entries = shape.size[n] * width_of(shape, n);
        longest = shape.size[n] > longest ? shape.size[n] : longest;
        factor = entries > factor ? entries : factor;
        if (p == 0) first = stored(shape, 1u << n);
    }
    Parts in;
    in.matrix = WARP * int(sizeof(double));
    in.length = in.matrix + longest * (longest | 1) * int(sizeof(double));
    in.place = in.length + longest * int(sizeof(double));
    in.factor = aligned(in.place + longest * int(sizeof(int)));
    in.tensor[0] = in.factor + factor * item;
    in.tensor[1] = aligned(in.tensor[0] + stored(shape, 0) * item);
    in.end = in.tensor[1] + first * item;
    return in;
}

// Turns G into G / g + I; returns g, its largest entry. Two barriers.
__device__ inline double shifted(double* g, int n, int stride) {
    const double largest = largest_of(g, n, stride), scale = largest > 0 ? 1 / largest : 0;
    // All have to see the diagonal as it was.
    __syncthreads();
    FOR_EACH(e, n * n) {
        const int v = e / n, k = e - v * n;
        g[v * stride + k] = g[v * stride + k] * scale + (v == k);
    }
    __syncthreads();
    return largest;
}

// Returns sum (x - model)^2, in double precision where less is too coarse. The core is in place
// count % 2, and is lost; in memory others find it after the barriers of a sum.
template <typename T>
__device__ double squared_residual(
    const Shape& shape, const Parts& in, const T* x, const T* factors, const T* core, double fine
) {
    double* room = part<double>(0);
    unsigned done = 0;
    ROLLED
    for (int p = 0; p < shape.count; ++p) done |= 1u << shape.mode[p];
    ROLLED
    for (int p = shape.count - 1; p > 0; --p) {
        const int mode = shape.mode[p];
        expand<T>(
            shape, done, mode, part<T>(in.tensor[(p + 1) % 2]), factors + shape.offset[mode],
            part<T>(in.tensor[p % 2])
        );
        done &= ~(1u << mode);
        __syncthreads();
    }
    const int mode = shape.mode[0];
    const double squared = block_sum(
        squared_distance<T>(
            shape, mode, x, part<T>(in.tensor[1]), factors + shape.offset[mode]
        ),
        room
    );
    if (sizeof(T) == sizeof(double) || !(squared < fine)) return squared;
    return block_sum(squared_distance_in_double<T>(shape, x, factors, core), room);
}

template <typename T>
__device__ void truncate(
    const T* x, T* factors, T* core, double* error, int* unresolved, int* status,
    const Shape& shape, const Parts& in, double floor, double below
) {
    double *room = part<double>(0), *matrix = part<double>(in.matrix);
    const double squared_norm = block_sum(bring<T>(shape, x, part<T>(in.tensor[0])), room);
    if (!is_finite(squared_norm)) {
        if (threadIdx.x == 0) *status = NOT_FINITE;
        return;
    }
    const double scale = squared_norm > 0 ? squared_norm : 1;
    double discarded = 0;
    unsigned done = 0, coarse = 0;
    ROLLED
    for (int p = 0; p < shape.count; ++p) {
        const int mode = shape.mode[p], n = shape.size[mode], stride = n | 1;
        const int rank = shape.rank[mode], width = width_of(shape, mode);
        const T* left = part<T>(in.tensor[p % 2]);
        gram<T>(shape, done, mode, left, matrix, stride);
        __syncthreads();
        const double largest = shifted(matrix, n, stride);
        if (!is_finite(largest)) {
            if (threadIdx.x == 0) *status = NOT_FINITE;
            return;
        }
        orthogonalize(matrix, n, stride, room);
        T* factor = part<T>(in.factor);
        const Spectrum found = leading<T>(
            matrix, n, stride, largest, rank, width, part<double>(in.length), part<int>(in.place),
            factor, room
        );
        discarded += found.discarded;
        coarse |= unsigned(sizeof(T) == sizeof(double) && found.kept < 1e-12) << mode;
        __syncthreads();
        FOR_EACH(e, n * rank)
            factors[shape.offset[mode] + e] = factor[e / rank * width + e % rank];
        project<T>(shape, done, mode, left, factor, part<T>(in.tensor[(p + 1) % 2]));
        done |= 1u << mode;
        __syncthreads();
    }
    ROLLED
    for (int n = 0; n < shape.order; ++n)
        if (!(done >> n & 1))
            FOR_EACH(e, shape.size[n] * shape.size[n])
                factors[shape.offset[n] + e] = e % (shape.size[n] + 1) == 0;
    take_out<T>(shape, done, part<T>(in.tensor[shape.count % 2]), core);
    double squared = discarded / scale;
    if (shape.count && squared < below * below) {
        const double fine = 1e4 * floor * floor * squared_norm;
        squared = squared_residual<T>(shape, in, x, factors, core, fine) / scale;
    }
    if (threadIdx.x == 0) {
        *error = sqrt(squared);
        *unresolved = int(coarse);
        *status = CONVERGED;
    }
}

// x [B, I_0, ...]; factors [B, sum I_n R_n], those of a tensor one after the other; core [B, R_0,
// ...]; errors, unresolved, status (of Status) [B]. modes, count: those that shrink, in order, four
// bits each, the first lowest. What is not finite leaves its factors, core and error as they are.
extern "C" __global__ void __launch_bounds__(512, 1) sthosvd_small(
    const REAL* x, REAL* factors, REAL* core, double* errors, int* unresolved, int* status,
    int order, int i0, int i1, int i2, int i3, int i4, int r0, int r1, int r2, int r3, int r4,
    unsigned modes, int count, double floor, double below
) {
    __shared__ Shape shape;
    __shared__ Parts parts;
    if (threadIdx.x == 0) {
        const int size[5] = {i0, i1, i2, i3, i4}, rank[5] = {r0, r1, r2, r3, r4};
        describe(shape, order, size, rank, modes, count);
        parts = parts_of(shape, sizeof(REAL));
    }
    __syncthreads();
    const long long tensor = blockIdx.x;
    const int last = order - 1;
    const int of_factors = shape.offset[last] + shape.size[last] * shape.rank[last];
    long long entries = 1, kept = 1;
    ROLLED
    for (int n = 0; n < order; ++n) {
        entries *= shape.size[n];
        kept *= shape.rank[n];
    }
    truncate<REAL>(
        x + tensor * entries, factors + tensor * of_factors, core + tensor * kept, errors + tensor,
        unresolved + tensor, status + tensor, shape, parts, floor, below
    );
}
