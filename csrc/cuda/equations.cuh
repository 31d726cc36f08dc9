#pragma once
#include "block.cuh"
// The normal equations of a mode: Gram matrices, their factor with the ridge that it takes, and the
// solution. All in double precision, n x n matrices row by row, n <= 32.

// How a factorisation ended: every pivot clear of rounding; one that is not; one that is no number.
enum State { SOUND, ROUNDING, LOST };

__device__ inline bool is_finite(double value) { return value - value == 0; }

// gram = A^T A. Flops 2 rows n^2. Entries go to threads as everywhere in this file: up to the next
// barrier a thread may read those that it would write.
template <typename T, int RANK>
__device__ void gram_of(const T* factor, double* gram, int rows, int n) {
    FOR_EACH(e, n * n) {
        const int a = e / n, b = e % n;
        double sum = 0;
#pragma unroll 2
        for (int i = 0; i < rows; ++i)
            sum += double(factor[i * RANK + a]) * double(factor[i * RANK + b]);
        gram[e] = sum;
    }
}

// Returns entry e of the Hadamard product of all Gram matrices but one (none: -1).
__device__ inline double hadamard(const double* grams, int order, int n, int but, int e) {
    double value = 1;
    ROLLED
    for (int m = 0; m < order; ++m)
        if (m != but) value *= grams[m * n * n + e];
    return value;
}

// Turns h, symmetric, into L D L^T = h: D on the diagonal, L^-1 below it (its diagonal is 1).
//
// Rows below a pivot are dealt to warps, a lane has a column; the column of the pivot takes its
// place in L^-1 as it is eliminated. A pivot has to be above least times its original.
//
// Flops 2 n^3 / 3; n barriers.
__device__ inline State eliminate(
    double* h, const double* diagonal, const double* shift, int n, double least
) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    ROLLED
    for (int k = 0; k < n; ++k) {
        const double pivot = h[k * n + k];
        if (!(pivot > 0 && pivot > least * (diagonal[k] + shift[k])))
            return is_finite(pivot) ? ROUNDING : LOST;
        const double above = lane < n ? h[k * n + lane] : 0;
        ROLLED
        for (int i = k + 1 + warp; i < n; i += warps) {
            double own = lane < n ? h[i * n + lane] : 0;
            const double share = __shfl_sync(WHOLE_WARP, own, k) / pivot;
            own = lane == k ? -share : own - share * above;
            if (lane < n) h[i * n + lane] = own;
        }
        __syncthreads();
    }
    return SOUND;
}

// Leaves in h the factor of the Hadamard product of all Gram matrices but one, plus l2 on the
// diagonal, plus the smallest ridge (of 2 least, ten times that, ...) that makes every pivot sound:
// relative to the diagonal, with the mean for a column that has vanished. shift is what the ridge
// adds, and ridge is raised to it.
__device__ inline State factored(
    const double* grams, int order, int but, double l2, double least, int n,
    double* h, double* diagonal, double* shift, double& ridge
) {
    double here = 0;
    ROLLED
    while (true) {
        FOR_EACH(e, n * n) {
            const int a = e / n, b = e % n;
            double value = hadamard(grams, order, n, but, e);
            if (a == b) {
                value += l2;
                diagonal[a] = value;
                double weight = 0;
                if (here > 0) {
                    double mean = 0;
                    ROLLED
                    for (int k = 0; k < n; ++k)
                        mean += hadamard(grams, order, n, but, k * n + k) + l2;
                    mean /= n;
                    weight = here * (value > 0 ? value : mean > 0 ? mean : 1);
                }
                shift[a] = weight;
                value += weight;
            }
            h[e] = value;
        }
        __syncthreads();
        const State state = eliminate(h, diagonal, shift, n, least);
        if (state != ROUNDING) return state;
        here = here > 0 ? 10 * here : 2 * least;
        if (!is_finite(here)) return LOST;
        ridge = here > ridge ? here : ridge;
        // Some may still look at a pivot that others would overwrite.
        __syncthreads();
    }
}

// A = (M + A shift) (L^-T D^-1 L^-1), by two products: that with L^-T is then as exact as a solve.
//
// room takes ROWS rows of RANK numbers. Flops 2 rows n^2.
constexpr int ROWS = 32;

template <typename T, int RANK>
__device__ void solve(
    const double* h, const double* shift, const T* product, T* factor, double* room, int rows, int n
) {
    ROLLED
    for (int first = 0; first < rows; first += ROWS) {
        const int count = rows - first < ROWS ? rows - first : ROWS;
        FOR_EACH(e, count * RANK) {
            const int k = e % RANK, row = first * RANK + e - k;
            if (k >= n) continue;
            // Where nothing is added, what the factor was does not matter: it may be no number.
            const auto right = [&](int j) {
                const double pull = shift[j] > 0 ? shift[j] * double(factor[row + j]) : 0;
                return double(product[row + j]) + pull;
            };
            double sum = right(k);
#pragma unroll 2
            for (int j = 0; j < k; ++j) sum += right(j) * h[k * n + j];
            room[e] = sum / h[k * n + k];
        }
        __syncthreads();
        FOR_EACH(e, count * RANK) {
            const int r = e % RANK;
            if (r >= n) continue;
            double sum = room[e];
#pragma unroll 2
            for (int k = r + 1; k < n; ++k) sum += room[e - r + k] * h[k * n + r];
            factor[first * RANK + e] = T(sum);
        }
        __syncthreads();
    }
}
