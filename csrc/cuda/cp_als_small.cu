// Alternating least squares of many small tensors, each by one thread block from its first sweep to
// its last: the tensor, its factors and all else lie in shared memory, and nothing is read twice.
//
// A tensor of any order up to five is a matrix here, the modes before `split` its rows (L of them)
// and the others its columns (Q). A sweep contracts it twice, whatever its order: with the
// Khatri-Rao product of the columns' modes, whose result [L, R] serves the updates of all modes of
// the rows, and then the other way round. That is a dimension tree of two branches, and the same
// iterates as those of tensorfast.cp.als. So what is fixed when the kernel is compiled is the type
// and the width of matrices, WIDTH: 4, 8, 16 or 32. An order or a split would make 20 kernels of it
// and speed up none of the loops that take the time.
//
// A sweep, of N modes with S entries in all, takes
//   4 L Q WIDTH flops for the two contractions, 4 (L + Q) WIDTH for what is left of the MTTKRPs,
//   2 R^3 / 3 + 4 I R^2 (double precision) a mode for normal equations, solve and Gram matrix,
//   2 L Q WIDTH where the error is taken from the residual itself;
// bytes: the tensor once, factors twice. Shared memory: L (Q or Q + 1) + (S + L + Q + the longest
// mode) WIDTH numbers, and (N + 1) R^2 + 2 R + 32 WIDTH + 32 of 8 bytes.
//
// A tensor too large for that is dealt by rows to the blocks of a cluster, which hold the rest in
// common: each contracts its own rows, results are gathered or added up (two and three barriers of
// the cluster), and all that is small is done by every block. Besides the tensor's rows a block has
// what one alone has, so what fits grows by less than the number of blocks.
//
// The error comes from three scalars in double precision, and from the residual where these have
// lost their digits; every sum is taken in a fixed order, so results repeat to the bit. R + 3
// barriers a mode, two a contraction and six at the end of a sweep.
#include "block.cuh"
#include "cluster.cuh"
#include "contraction.cuh"
#include "equations.cuh"
#include "residual.cuh"
#include "stopping.cuh"

#ifndef ON_HOST
extern __shared__ __align__(16) unsigned char shared_memory[];
#endif

// Where the parts of shared memory begin, in bytes. The host knows the sum, too
// (tensorfast.cuda.cp_plan).
struct Parts {
    int grams, h, diagonal, shift, factors, partial[2], product, x, end;
};

// At the beginning: what all threads know; room for sums over the block; for rows that are solved
// for.
constexpr int KNOWN = (sizeof(Shape) + sizeof(Parts) + 15) / 16 * 16;
constexpr int SOLVING = KNOWN + WARP * int(sizeof(double));

__device__ inline Parts parts_of(const Shape& shape, int width, int item) {
    int total = 0, longest = 0;
    ROLLED
    for (int n = 0; n < shape.order; ++n) {
        total += shape.size[n];
        longest = shape.size[n] > longest ? shape.size[n] : longest;
    }
    const int n = shape.rank, square = n * n * int(sizeof(double)), row = width * item;
    Parts in;
    in.grams = SOLVING + ROWS * width * int(sizeof(double));
    in.h = in.grams + shape.order * square;
    in.diagonal = in.h + square;
    in.shift = in.diagonal + n * int(sizeof(double));
    // Every matrix begins where four numbers side by side may be read at once.
    in.factors = (in.shift + n * int(sizeof(double)) + 15) / 16 * 16;
    in.partial[0] = in.factors + total * row;
    in.partial[1] = in.partial[0] + shape.side[0].size * row;
    in.product = in.partial[1] + shape.side[1].size * row;
    in.x = in.product + longest * row;
    const int most = (shape.side[0].size + shape.blocks - 1) / shape.blocks;
    in.end = in.x + most * shape.stride * item;
    return in;
}

template <typename T>
__device__ inline T* part(int at) {
    return reinterpret_cast<T*>(shared_memory + at);
}

struct Limits {
    double tol, jitter, floor, below, least, l2;
};

// Returns sum (x - model)^2, in double precision where less is too coarse.
template <typename T, int RANK>
__device__ double squared_residual(const Shape& shape, const Parts& in, double fine) {
    const T *x = part<T>(in.x), *factors = part<T>(in.factors);
    const T* left = part<T>(in.partial[0]) + shape.first * RANK;
    ROLLED
    for (int side = 0; side < 2; ++side)
        khatri_rao<T, RANK>(shape, factors, shape.side[side], part<T>(in.partial[side]));
    __syncthreads();
    double* room = part<double>(KNOWN);
    const double own = squared_distance<T, RANK>(
        x, shape.stride, left, part<T>(in.partial[1]), shape.rows, shape.side[1].size
    );
    const double squared = cluster_sum(shape, own, room);
    if (sizeof(T) == sizeof(double) || !(squared < fine)) return squared;
    return cluster_sum(shape, squared_distance_in_double<T, RANK>(shape, x, factors), room);
}

// Updates the modes of one side that are free; returns whether all is finite. inner, of the last
// free mode, becomes a thread's part of <X, M>.
template <typename T, int RANK>
__device__ bool update_side(
    const Shape& shape, const Parts& in, int side, unsigned free, int last, double least, double l2,
    double& ridge, double& inner
) {
    const Group &own = shape.side[side], &other = shape.side[1 - side];
    const int n = shape.rank;
    T* factors = part<T>(in.factors);
    int with = in.factors + shape.offset[other.first] * int(sizeof(T));
    if (other.last - other.first > 1) {
        with = in.partial[1 - side];
        khatri_rao<T, RANK>(shape, factors, other, part<T>(with));
        __syncthreads();
    }
    T* partial = part<T>(in.partial[side]);
    // This block's rows of the result, or its terms of all of it.
    const int across = side ? 1 : shape.stride, along = side ? shape.stride : 1;
    const int first = shape.first * RANK, rows = side ? own.size : shape.rows;
    contract<T, RANK>(
        part<T>(in.x), across, along, part<T>(with) + (side ? first : 0),
        partial + (side ? 0 : first), rows, side ? shape.rows : other.size
    );
    if (side) sum_over_cluster(shape, partial, own.size * RANK);
    else gather(shape, partial, own.size, RANK);
    ROLLED
    for (int m = own.first; m < own.last; ++m) {
        if (!(free >> m & 1)) continue;
        T* factor = factors + shape.offset[m];
        const int size = shape.size[m];
        int product = in.partial[side];
        if (own.last - own.first > 1) {
            product = in.product;
            contract_partial<T, RANK>(shape, factors, own, m, partial, part<T>(product));
        }
        double *grams = part<double>(in.grams), *h = part<double>(in.h);
        double *diagonal = part<double>(in.diagonal), *shift = part<double>(in.shift);
        const State state =
            factored(grams, shape.order, m, l2, least, n, h, diagonal, shift, ridge);
        if (state == LOST) return false;
        solve<T, RANK>(h, shift, part<T>(product), factor, part<double>(SOLVING), size, n);
        gram_of<T, RANK>(factor, grams + m * n * n, size, n);
        if (m == last)
            FOR_EACH(e, size * RANK) inner += double(part<T>(product)[e]) * double(factor[e]);
    }
    return true;
}

template <typename T, int RANK>
__device__ void fit(
    const T* x, T* given, double* errors, int* sweeps, int* status, double* ridges,
    double* watched, const Shape& shape, const Parts& in, unsigned free, int n_iter_max,
    const Limits& limits
) {
    const int order = shape.order, n = shape.rank, columns = shape.side[1].size;
    const int rows_of_factors = shape.offset[order - 1] / RANK + shape.size[order - 1];
    T* factors = part<T>(in.factors);
    double *room = part<double>(KNOWN), *grams = part<double>(in.grams);

    double squared_norm = 0;
    FOR_EACH(e, shape.rows * columns) {
        const T value = x[shape.first * columns + e];
        part<T>(in.x)[e / columns * shape.stride + e % columns] = value;
        squared_norm += double(value) * double(value);
    }
    FOR_EACH(e, rows_of_factors * RANK) {
        const int r = e % RANK;
        factors[e] = r < n ? given[e / RANK * n + r] : T(0);
    }
    squared_norm = cluster_sum(shape, squared_norm, room);
    ROLLED
    for (int m = 0; m < order; ++m)
        gram_of<T, RANK>(factors + shape.offset[m], grams + m * n * n, shape.size[m], n);

    const double scale = squared_norm > 0 ? squared_norm : 1;
    const double fine = 1e4 * limits.floor * limits.floor * squared_norm;
    int last = order - 1;
    ROLLED
    while (!(free >> last & 1)) --last;
    StoppingRule rule = {limits.tol, limits.jitter, limits.floor, limits.l2 == 0};
    Status ended = RUNNING;
    double ridge = 0;
    int sweep = 0;
    ROLLED
    while (ended == RUNNING) {
        ++sweep;
        double inner = 0;
        bool sound = true;
        ROLLED
        for (int side = 0; side < 2 && sound; ++side) {
            const unsigned modes = (1u << shape.side[side].last) - (1u << shape.side[side].first);
            if (free & modes)
                sound = update_side<T, RANK>(
                    shape, in, side, free, last, limits.least, limits.l2, ridge, inner
                );
        }
        if (!sound) {
            ended = NOT_FINITE;
            break;
        }
        double model = 0, trace = 0;
        FOR_EACH(e, n * n) {
            const double value = hadamard(grams, order, n, -1, e);
            model += value;
            if (e % (n + 1) == 0) trace += value;
            // Of sweeps 16, 32, 64, ... the last three.
            if (watched && !shape.block && sweep >= 16 && !(sweep & (sweep - 1)))
                watched[(31 - __clz(sweep)) % 3 * n * n + e] = value;
        }
        inner = block_sum(inner, room);
        model = block_sum(model, room);
        trace = block_sum(trace, room);
        const double squared = (squared_norm - 2 * inner + model) / scale;
        const double cancelling = trace > scale ? trace / scale : 1;
        const bool lost = squared < cancelling * limits.below * limits.below;
        double error = sqrt(squared);
        const bool asked = !lost && rule.asks(sweep, error);
        if (lost || asked) error = sqrt(squared_residual<T, RANK>(shape, in, fine) / scale);
        ended = rule.status(sweep, error, lost || asked, asked);
        if (ended == RUNNING && sweep == n_iter_max) ended = MAX_ITER;
        if (threadIdx.x == 0 && !shape.block) errors[sweep - 1] = error;
    }

    if (shape.block > 0) return;
    FOR_EACH(e, rows_of_factors * n) given[e] = factors[e / n * RANK + e % n];
    if (watched) FOR_EACH(e, n * n) watched[3 * n * n + e] = hadamard(grams, order, n, -1, e);
    if (threadIdx.x == 0) {
        *sweeps = sweep;
        *status = ended;
        *ridges = ridge;
    }
}

// x [B, I_0, ...]; factors [B, sum I_n, rank], of all modes below each other: the starts, and then
// the results; errors [B, n_iter_max], of the sweeps that ran; sweeps, status (of Status), ridges
// [B]; watched [B, 4, rank, rank] or null: inner products of the components after the last three of
// sweeps 16, 32, 64, ..., that of sweep 2^k in place k % 3, and at the end. blocks: of a tensor, a
// cluster. free: a bit a mode.
//
// The least number of blocks, 1, is there for the compiler, which else spills to have several.
extern "C" __global__ void __launch_bounds__(512, 1) cp_als_small(
    const REAL* x, REAL* factors, double* errors, int* sweeps, int* status, double* ridges,
    double* watched, int order, int i0, int i1, int i2, int i3, int i4, int rank, int split,
    int blocks, unsigned free, int n_iter_max, double tol, double jitter, double floor, double below,
    double least, double l2
) {
    Shape& shape = *part<Shape>(0);
    Parts& parts = *part<Parts>(sizeof(Shape));
    const long long tensor = blockIdx.x / blocks;
    if (threadIdx.x == 0) {
        const int size[5] = {i0, i1, i2, i3, i4};
        shape.order = order;
        shape.rank = rank;
        shape.side[0] = {0, split, 1};
        shape.side[1] = {split, order, 1};
        int offset = 0;
#pragma unroll
        for (int n = 0; n < 5; ++n) {
            shape.size[n] = size[n];
            shape.offset[n] = offset;
            offset += size[n] * WIDTH;
            if (n < order) shape.side[n >= split].size *= size[n];
        }
        // Odd, so that rows begin in different banks.
        shape.stride = shape.side[1].size | 1;
        shape.block = blockIdx.x % blocks;
        shape.blocks = blocks;
        shape.first = first_of(shape.side[0].size, shape.block, blocks);
        shape.rows = first_of(shape.side[0].size, shape.block + 1, blocks) - shape.first;
        parts = parts_of(shape, WIDTH, sizeof(REAL));
    }
    __syncthreads();
    const long long entries = (long long)shape.side[0].size * shape.side[1].size;
    const int total = shape.offset[order - 1] / WIDTH + shape.size[order - 1];
    fit<REAL, WIDTH>(
        x + tensor * entries, factors + tensor * total * rank, errors + tensor * n_iter_max,
        sweeps + tensor, status + tensor, ridges + tensor,
        watched ? watched + tensor * 4 * rank * rank : nullptr, shape, parts, free, n_iter_max,
        {tol, jitter, floor, below, least, l2}
    );
}
