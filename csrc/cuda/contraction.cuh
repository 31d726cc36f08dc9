#pragma once
#include "block.cuh"
// Contractions of a tensor that lies in shared memory as a matrix, the modes before a split its
// rows and the others its columns, with matrices of RANK columns (factors, Khatri-Rao products and
// partial results, one index a row), zeros beyond the rank.

// Four numbers side by side: one access of 16 bytes, or two.
template <typename T>
struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) Four {
    T at[4];
};

// Modes first ... last - 1, and the product of their sizes.
struct Group {
    int first, last, size;
};

// What all threads know of a problem. In shared memory, where they may index it; in registers it
// would take those that the products need.
struct Shape {
    int order, rank;
    // Of each mode, and where its factor begins among the factors.
    int size[5], offset[5];
    // Rows and columns of the tensor as a matrix, and entries from one row to the next.
    Group side[2];
    int stride;
    // This block among those of the tensor, and its rows.
    int block, blocks, first, rows;
};

// Writes out[m, r] = sum_k x(m, k) w[k, r], where rows of x lie `across` apart, terms `along`: one
// of them is 1, and the other odd, for lanes with several rows of memory.
//
// A thread has four rows by four columns. Its rows are as far apart as they can be, so that lanes
// with neighbouring tiles read neighbouring entries of x. Where there are more threads than tiles,
// lanes share the terms of one: for each k a warp reads whole rows of w, and x side by side; sums
// are then added lane by lane, in a fixed order. A step is 16 multiply-adds to 4 loads of x and one
// wide one of w.
//
// Flops 2 rows terms RANK.
template <typename T, int RANK>
__device__ void contract(
    const T* x, int across, int along, const T* w, T* out, int rows, int terms
) {
    constexpr int TILES = RANK / 4;
    const int blocks = (rows + 3) / 4;
    int shares = 1;
    ROLLED
    while (2 * shares * TILES <= WARP && 2 * shares * TILES * blocks <= int(blockDim.x))
        shares *= 2;
    const int tile = threadIdx.x % TILES;
    const int share = threadIdx.x / TILES % shares;
    const int step = blockDim.x / (TILES * shares);
    // All lanes of a warp go round equally often, those without rows of their own with the last.
    ROLLED
    for (int first = 0; first < blocks; first += step) {
        const int own = first + threadIdx.x / (TILES * shares);
        const int block = own < blocks ? own : blocks - 1;
        const T* at[4];
        T sum[4][4] = {};
#pragma unroll
        for (int b = 0; b < 4; ++b) {
            const int m = block + b * blocks;
            at[b] = x + (m < rows ? m : rows - 1) * across;
        }
#pragma unroll 2
        for (int k = share; k < terms; k += shares) {
            const Four<T> v = *reinterpret_cast<const Four<T>*>(w + k * RANK + 4 * tile);
#pragma unroll
            for (int b = 0; b < 4; ++b) {
                const T a = at[b][k * along];
#pragma unroll
                for (int c = 0; c < 4; ++c) sum[b][c] += a * v.at[c];
            }
        }
        ROLLED
        for (int offset = TILES; offset < TILES * shares; offset *= 2) {
#pragma unroll
            for (int b = 0; b < 4; ++b)
#pragma unroll
                for (int c = 0; c < 4; ++c)
                    sum[b][c] += __shfl_xor_sync(WHOLE_WARP, sum[b][c], offset);
        }
        if (share == 0 && own < blocks) {
#pragma unroll
            for (int b = 0; b < 4; ++b) {
                const int m = block + b * blocks;
                if (m >= rows) continue;
                Four<T> v;
#pragma unroll
                for (int c = 0; c < 4; ++c) v.at[c] = sum[b][c];
                *reinterpret_cast<Four<T>*>(out + m * RANK + 4 * tile) = v;
            }
        }
    }
}

// Returns an entry of the Khatri-Rao product of modes first ... last - 1, the last index fastest.
template <typename T, int RANK>
__device__ inline T khatri_rao_at(
    const Shape& shape, const T* factors, int first, int last, int index, int r
) {
    T value = 1;
    ROLLED
    for (int n = last - 1; n > first; --n) {
        const int before = index / shape.size[n];
        value *= factors[shape.offset[n] + (index - before * shape.size[n]) * RANK + r];
        index = before;
    }
    return first < last ? value * factors[shape.offset[first] + index * RANK + r] : value;
}

// Flops (modes - 1) size RANK.
template <typename T, int RANK>
__device__ void khatri_rao(const Shape& shape, const T* factors, const Group& group, T* out) {
    FOR_EACH(e, group.size * RANK)
        out[e] =
            khatri_rao_at<T, RANK>(shape, factors, group.first, group.last, e / RANK, e % RANK);
}

// Writes the MTTKRP of a mode from p [size, RANK], the contraction with all modes outside its
// group: out[i, r] = sum p(a, i, c)[r] before(a)[r] after(c)[r].
//
// Lanes have neighbouring columns, and then rows; each row begins with another c, since those of
// one c lie a stride apart that may be a multiple of all banks.
//
// Flops 2 size RANK, and the Khatri-Rao products.
template <typename T, int RANK>
__device__ void contract_partial(
    const Shape& shape, const T* factors, const Group& group, int mode, const T* p, T* out
) {
    const int size = shape.size[mode];
    int before = 1, after = 1;
    ROLLED
    for (int n = group.first; n < mode; ++n) before *= shape.size[n];
    ROLLED
    for (int n = mode + 1; n < group.last; ++n) after *= shape.size[n];
    FOR_EACH(e, size * RANK) {
        const int i = e / RANK, r = e % RANK;
        T sum = 0;
        ROLLED
        for (int a = 0; a < before; ++a) {
            const T* row = p + (a * size + i) * after * RANK + r;
            T inner = 0;
            int c = i % after;
            ROLLED
            for (int step = 0; step < after; ++step) {
                inner += row[c * RANK]
                    * khatri_rao_at<T, RANK>(shape, factors, mode + 1, group.last, c, r);
                c = c + 1 < after ? c + 1 : 0;
            }
            sum += inner * khatri_rao_at<T, RANK>(shape, factors, group.first, mode, a, r);
        }
        out[e] = sum;
    }
}
