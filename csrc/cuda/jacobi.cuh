#pragma once
#include "block.cuh"
// Eigenvectors of a small positive semidefinite matrix, by Jacobi's method from one side, as
// kernels/jacobi.py has it: the columns of W = (G / g + I) V, g the largest entry of G, are made
// orthogonal by rotations of two of them; when all are, they are the eigenvectors times 1 + the
// eigenvalues over g. V is never formed. With the identity no column is shorter than 1: one whose
// eigenvalue is zero, or rounding, is as good as the others.
//
// The longer of two columns gets the lower index. A sweep, each column with each other once, is
// the last if 2 n times the largest cosine it found times the largest tangent it rotated by is
// below sqrt(n) u, u = 2^-53: what later rotations put back of a pair is no more. So eigenvectors
// are orthogonal to a small multiple of that, and eigenvalues as exact beside the largest.

// Of kernels/jacobi.py: 18 sweeps at most were seen, 7 to 10 of most matrices.
constexpr int MOST_SWEEPS = 40;

__device__ inline double block_max(double value, double* room) {
    for (int offset = WARP / 2; offset > 0; offset /= 2)
        value = fmax(value, __shfl_xor_sync(WHOLE_WARP, value, offset));
    if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = value;
    __syncthreads();
    double largest = 0;
    ROLLED
    for (int w = 0; w < int(blockDim.x) / WARP; ++w) largest = fmax(largest, room[w]);
    // Who is ahead must not write its next part where another still reads this one.
    __syncthreads();
    return largest;
}

// Rotates columns x and y, of which a lane has every so many entries; returns what the sweep has to
// know of it: the squared cosine, and the tangent, 0 where they were orthogonal.
struct Turn {
    double cosine, tangent;
};

__device__ inline Turn rotate(double* x, double* y, int n, int lane, int lanes, double least) {
    double xx = 0, yy = 0, xy = 0;
#pragma unroll 2
    for (int k = lane; k < n; k += lanes) {
        xx += x[k] * x[k];
        yy += y[k] * y[k];
        xy += x[k] * y[k];
    }
    ROLLED
    for (int offset = 1; offset < lanes; offset *= 2) {
        xx += __shfl_xor_sync(WHOLE_WARP, xx, offset);
        yy += __shfl_xor_sync(WHOLE_WARP, yy, offset);
        xy += __shfl_xor_sync(WHOLE_WARP, xy, offset);
    }
    const double lengths = xx * yy, difference = xx - yy;
    if (!(xy * xy > least * lengths)) return {0, 0};
    const double root = rsqrt(difference * difference + 4 * xy * xy);
    // Of the angle, at most 45 degrees, that keeps the longer one where it is.
    const double half = 0.5 + 0.5 * fabs(difference) * root, secant = rsqrt(half);
    double c = half * secant, s = xy * root * secant;
    const double tangent = s * secant;
    if (difference < 0) {
        const double swapped = c;
        c = s;
        s = swapped;
    }
#pragma unroll 2
    for (int k = lane; k < n; k += lanes) {
        const double u = x[k], v = y[k];
        x[k] = c * u + s * v;
        y[k] = c * v - s * u;
    }
    return {xy * xy / lengths, fabs(tangent)};
}

__device__ inline bool is_finite(double value) { return value - value == 0; }

// Returns the largest entry of a matrix G: 0 of zeros, and no number where G has such.
__device__ inline double largest_of(const double* g, int n, int stride) {
    double largest = 0, trace = 0;
    ROLLED
    for (int k = 0; k < n; ++k) {
        largest = fmax(largest, g[k * stride + k]);
        trace += g[k * stride + k];
    }
    return is_finite(trace) ? largest : trace;
}

// Makes the columns of w, stride apart, orthogonal: of W = (G / g + I) V for any rotation V they
// are then the eigenvectors times 1 + their eigenvalues over g.
//
// In a step the n / 2 pairs are rotated at once, each by so many lanes that these have four entries
// or more: at n = 16 all by one warp. One barrier a step, n - 1 steps (n if that is odd) and four
// barriers a sweep. Flops 6 n^3 a sweep.
__device__ inline void orthogonalize(double* w, int n, int stride, double* room) {
    constexpr double ROUNDING = 1.0 / (1ull << 53);
    const double least = n * ROUNDING * ROUNDING;
    const int pairs = (n + 1) / 2, last = 2 * pairs - 1;
    int lanes = 1;
    ROLLED
    while (lanes < WARP && 8 * lanes <= n && 2 * lanes * pairs <= int(blockDim.x)) lanes *= 2;
    const int lane = threadIdx.x % lanes, groups = blockDim.x / lanes;
    ROLLED
    for (int sweep = 0; sweep < MOST_SWEEPS; ++sweep) {
        double cosine = 0, tangent = 0;
        // The last stays where it is while the others go round: i + j is the step, modulo their
        // number, as twice the turn is.
        int turn = 0;
        ROLLED
        for (int step = 0; step < last; ++step) {
            ROLLED
            for (int first = 0; first < pairs; first += groups) {
                // A warp without a pair has nothing to wait for.
                if (first + int(threadIdx.x / WARP) * (WARP / lanes) >= pairs) continue;
                const int pair = first + threadIdx.x / lanes;
                int i = turn + pair, j = pair ? turn - pair : last;
                if (i >= last) i -= last;
                if (j < 0) j += last;
                if (i > j) {
                    const int swapped = i;
                    i = j;
                    j = swapped;
                }
                // One column more, where their number is odd, is not there.
                const bool there = pair < pairs && j < n;
                double *x = w + (there ? i : 0) * stride, *y = w + (there ? j : 0) * stride;
                const Turn done = rotate(x, y, there ? n : 0, lane, lanes, least);
                cosine = fmax(cosine, done.cosine);
                tangent = fmax(tangent, done.tangent);
            }
            turn += turn + pairs < last ? pairs : pairs - last;
            // The next step has other pairs.
            __syncthreads();
        }
        cosine = block_max(cosine, room);
        tangent = block_max(tangent, room);
        if (!(4.0 * n * cosine * tangent * tangent > ROUNDING * ROUNDING)) break;
    }
}

// What is left out of the eigenvalues beyond a rank, and the last one kept over the first.
struct Spectrum {
    double discarded, kept;
};

// Writes the leading eigenvectors to the columns of factor [n, width], zeros beyond the rank, from
// what orthogonalize has left. place takes n numbers and length n. Three barriers.
template <typename T>
__device__ Spectrum leading(
    const double* w, int n, int stride, double largest, int rank, int width, double* length,
    int* place, T* factor, double* room
) {
    FOR_EACH(v, n) {
        double squared = 0;
#pragma unroll 2
        for (int k = 0; k < n; ++k) squared += w[v * stride + k] * w[v * stride + k];
        length[v] = sqrt(squared);
    }
    __syncthreads();
    double discarded = 0;
    FOR_EACH(v, n) {
        int before = 0;
        // Of equals the first comes first.
        ROLLED
        for (int u = 0; u < n; ++u)
            before += length[u] > length[v] || (length[u] == length[v] && u < v);
        place[before] = v;
        if (before >= rank) discarded += fmax(length[v] - 1, 0.0) * largest;
    }
    discarded = block_sum(discarded, room);
    FOR_EACH(e, n * width) {
        const int k = e / width, r = e - k * width;
        factor[e] = r < rank ? T(w[place[r] * stride + k] / length[place[r]]) : T(0);
    }
    const double first = length[place[0]] - 1, last = length[place[rank - 1]] - 1;
    return {discarded, first > 0 ? last / first : 1};
}
