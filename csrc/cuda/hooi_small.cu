// Higher-order orthogonal iteration of many small tensors, each by one thread block from its first
// sweep to its last: the tensor, its factors and all else lie in shared memory.
//
// A sweep updates the modes that shrink, the first first: the tensor is projected on the factors of
// all others; the leading eigenvectors of the Gram matrix of what is left are the new factor. What
// the tensor leaves on the factor of the last mode, which changes last, serves the updates of all
// others, so that a sweep projects the tensor itself twice, whatever its order. Rotations start
// from the eigenvectors of the sweep before: two to five sweeps of them, where a start from nothing
// takes 7 to 10. The updates are exact, those of tensorfast.hooi as good as. What is fixed when the
// kernel is compiled is the type alone.
//
// A sweep, of a tensor of S entries, takes
//   4 S r flops for its two projections, of r columns filled up to fours, 2 S r^2 / n and less for
//   each that follows, N (N - 1) / 2 or so,
// and of each mode of size n, in double precision,
//   K (n + 4) for the Gram matrix of what is left, K entries,
//   2 n^3 for the start of the rotations, and 6 n^3 a sweep of them;
// bytes: the tensor once, factors twice, and once a sweep those and the core, which are written as
// they are found. Shared memory: the tensor, what one, two and three projections leave of it,
// factors, and of 8 bytes n (n + 1) for each mode and once more for the longest, n + 32, and n of 4.
//
// The error comes from the norms of tensor and core in double precision, and from the residual
// where these have lost their digits; every sum is taken in a fixed order, so results repeat to the
// bit. n + 3 barriers a sweep of the rotations (n + 4 where n is odd), six a mode and one a
// projection besides, two at the end of a sweep.
#include "box.cuh"
#include "gram.cuh"
#include "stopping.cuh"
#include "ttm.cuh"
#include "warm.cuh"

// Where the parts of shared memory begin, in bytes, after room for sums over the block. The host
// knows the sum, too (tensorfast.cuda.tucker_plan).
struct Parts {
    int matrix, length, place, vectors[5], factor[5], x, left[3], end;
};

// The place, of three, of what so many projections leave: the first for itself, as it serves
// several updates, then two in turn.
__device__ inline int place_of(int projections) {
    return projections < 2 ? 0 : 1 + projections % 2;
}

__device__ inline int last_mode(const Shape& shape) {
    int last = 0;
    ROLLED
    for (int p = 0; p < shape.count; ++p) last = shape.mode[p] > last ? shape.mode[p] : last;
    return last;
}

// parts: in shared memory, where it may be indexed. One thread does this.
__device__ inline void lay_out(const Shape& shape, int item, Parts& in) {
    int longest = 0, at = WARP * int(sizeof(double));
    ROLLED
    for (int p = 0; p < shape.count; ++p) {
        const int n = shape.mode[p], size = shape.size[n];
        longest = size > longest ? size : longest;
        in.vectors[n] = at;
        at += size * (size | 1) * int(sizeof(double));
    }
    in.matrix = at;
    in.length = in.matrix + longest * (longest | 1) * int(sizeof(double));
    in.place = in.length + longest * int(sizeof(double));
    at = aligned(in.place + longest * int(sizeof(int)));
    ROLLED
    for (int p = 0; p < shape.count; ++p) {
        const int n = shape.mode[p];
        in.factor[n] = at;
        at += shape.size[n] * width_of(shape, n) * item;
    }
    in.x = at;
    in.left[0] = in.left[1] = in.left[2] = 0;
    const int held = last_mode(shape);
    // What is left before each update, and after the last.
    ROLLED
    for (int q = 0; q < shape.count; ++q) {
        const int mode = shape.mode[q];
        int depth = 0;
        unsigned done = 0;
        ROLLED
        for (int p = -1; p <= shape.count; ++p) {
            const int n = p < 0 ? held : p < shape.count ? shape.mode[p] : mode;
            const bool now = p < shape.count ? n != mode : mode == held;
            if (!now || done >> n & 1) continue;
            done |= 1u << n;
            int& most = in.left[place_of(++depth)];
            const int entries = stored(shape, done);
            most = entries > most ? entries : most;
        }
    }
    at = aligned(in.x + stored(shape, 0) * item);
    ROLLED
    for (int k = 0; k < 3; ++k) {
        const int entries = in.left[k];
        in.left[k] = at;
        at = aligned(at + entries * item);
    }
    in.end = at;
}

// What a tensor leaves on the factors of some modes: where it lies, and a bit for each of them.
struct Left {
    int at, projections;
    unsigned done;
};

template <typename T>
__device__ Left projected(const Shape& shape, const Parts& in, const Left& from, int mode) {
    const Left to = {
        in.left[place_of(from.projections + 1)], from.projections + 1, from.done | 1u << mode
    };
    project<T>(shape, from.done, mode, part<T>(from.at), part<T>(in.factor[mode]), part<T>(to.at));
    __syncthreads();
    return to;
}

// Returns sum (x - model)^2, in double precision where less is too coarse. The core is lost; in
// memory others find it after the barriers of a sum.
template <typename T>
__device__ double squared_residual(
    const Shape& shape, const Parts& in, Left left, int held, const T* x, const T* factors,
    const T* core, double fine
) {
    double* room = part<double>(0);
    // The way back of what the last update came from: its own mode, then the others.
    int mode = held;
    ROLLED
    for (int p = shape.count - 1; left.projections > 1; --p) {
        const int to = in.left[place_of(left.projections - 1)];
        expand<T>(
            shape, left.done, mode, part<T>(left.at), factors + shape.offset[mode], part<T>(to)
        );
        left = {to, left.projections - 1, left.done & ~(1u << mode)};
        __syncthreads();
        if (shape.mode[p] == held) --p;
        mode = shape.mode[p];
    }
    const double squared = block_sum(
        squared_distance<T>(shape, mode, x, part<T>(left.at), factors + shape.offset[mode]), room
    );
    if (sizeof(T) == sizeof(double) || !(squared < fine)) return squared;
    return block_sum(squared_distance_in_double<T>(shape, x, factors, core), room);
}

// Returns whether all is finite.
template <typename T>
__device__ bool update(
    const Shape& shape, const Parts& in, const Left& left, int mode, T* factors
) {
    const int n = shape.size[mode], stride = n | 1;
    const int rank = shape.rank[mode], width = width_of(shape, mode);
    double *matrix = part<double>(in.matrix), *vectors = part<double>(in.vectors[mode]);
    double* length = part<double>(in.length);
    T* factor = part<T>(in.factor[mode]);
    gram<T>(shape, left.done, mode, part<T>(left.at), matrix, stride);
    __syncthreads();
    const double largest = warmed(matrix, vectors, n, stride);
    if (!is_finite(largest)) return false;
    orthogonalize(vectors, n, stride, part<double>(0));
    leading<T>(
        vectors, n, stride, largest, rank, width, length, part<int>(in.place), factor,
        part<double>(0)
    );
    __syncthreads();
    FOR_EACH(e, n * n) {
        const int v = e / n, k = e - v * n;
        vectors[v * stride + k] /= length[v];
    }
    FOR_EACH(e, n * rank) factors[shape.offset[mode] + e] = factor[e / rank * width + e % rank];
    return true;
}

template <typename T>
__device__ void iterate(
    const T* x, T* factors, T* core, double* errors, int* sweeps, int* status, const Shape& shape,
    const Parts& in, int n_iter_max, double tol, double jitter, double floor, double below
) {
    double* room = part<double>(0);
    double squared_norm = bring<T>(shape, x, part<T>(in.x));
    ROLLED
    for (int p = 0; p < shape.count; ++p) {
        const int mode = shape.mode[p], n = shape.size[mode], stride = n | 1;
        const int rank = shape.rank[mode], width = width_of(shape, mode);
        T* factor = part<T>(in.factor[mode]);
        double* vectors = part<double>(in.vectors[mode]);
        FOR_EACH(e, n * width) {
            const int i = e / width, r = e - i * width;
            factor[e] = r < rank ? factors[shape.offset[mode] + i * rank + r] : T(0);
        }
        FOR_EACH(e, n * stride) vectors[e] = e / stride == e % stride;
    }
    squared_norm = block_sum(squared_norm, room);

    const double scale = squared_norm > 0 ? squared_norm : 1;
    const double fine = 1e4 * floor * floor * squared_norm;
    const int held = last_mode(shape);
    StoppingRule rule = {tol, jitter, floor, true};
    Status ended = is_finite(squared_norm) ? RUNNING : NOT_FINITE;
    int sweep = 0;
    ROLLED
    while (ended == RUNNING) {
        ++sweep;
        bool sound = true;
        Left all = {in.x, 0, 0}, left = all;
        if (shape.count > 1) all = projected<T>(shape, in, all, held);
        ROLLED
        for (int mode = 0; mode <= held && sound; ++mode) {
            left = all;
            if (mode == held) left = {in.x, 0, 0};
            bool free = false;
            ROLLED
            for (int p = 0; p < shape.count; ++p) free |= shape.mode[p] == mode;
            if (!free) continue;
            ROLLED
            for (int p = 0; p < shape.count; ++p) {
                const int n = shape.mode[p];
                if (n != mode && !(left.done >> n & 1)) left = projected<T>(shape, in, left, n);
            }
            sound = update<T>(shape, in, left, mode, factors);
        }
        if (!sound) {
            ended = NOT_FINITE;
            break;
        }
        left = projected<T>(shape, in, left, held);
        double inner = 0;
        FOR_EACH(e, stored(shape, left.done)) {
            const double value = double(part<T>(left.at)[e]);
            inner += value * value;
        }
        take_out<T>(shape, left.done, part<T>(left.at), core);
        inner = block_sum(inner, room);
        const double squared = (squared_norm - inner) / scale;
        const bool lost = squared < below * below;
        double error = sqrt(squared);
        const bool asked = !lost && rule.asks(sweep, error);
        if (lost || asked)
            error = sqrt(
                squared_residual<T>(shape, in, left, held, x, factors, core, fine) / scale
            );
        ended = rule.status(sweep, error, lost || asked, asked);
        if (ended == RUNNING && sweep == n_iter_max) ended = MAX_ITER;
        if (threadIdx.x == 0) errors[sweep - 1] = error;
    }
    if (threadIdx.x == 0) {
        *sweeps = sweep;
        *status = ended;
    }
}

// x [B, I_0, ...]; factors [B, sum I_n R_n], those of a tensor one after the other: orthonormal
// starts, and then the results; core [B, R_0, ...]; errors [B, n_iter_max], of the sweeps that ran;
// sweeps, status (of Status) [B]. modes, count: one mode at least, those that shrink, which are
// projected in this order, four bits each, the first lowest; the factors of the others are the
// identity.
extern "C" __global__ void __launch_bounds__(512, 1) hooi_small(
    const REAL* x, REAL* factors, REAL* core, double* errors, int* sweeps, int* status, int order,
    int i0, int i1, int i2, int i3, int i4, int r0, int r1, int r2, int r3, int r4, unsigned modes,
    int count, int n_iter_max, double tol, double jitter, double floor, double below
) {
    __shared__ Shape shape;
    __shared__ Parts parts;
    if (threadIdx.x == 0) {
        const int size[5] = {i0, i1, i2, i3, i4}, rank[5] = {r0, r1, r2, r3, r4};
        describe(shape, order, size, rank, modes, count);
        lay_out(shape, sizeof(REAL), parts);
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
    iterate<REAL>(
        x + tensor * entries, factors + tensor * of_factors, core + tensor * kept,
        errors + tensor * n_iter_max, sweeps + tensor, status + tensor, shape, parts, n_iter_max,
        tol, jitter, floor, below
    );
}
