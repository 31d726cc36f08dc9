#pragma once
#include "box.cuh"
// The Gram matrix of an unfolding, in double precision.

// Writes g[i, j] = sum over a, c of x(a, i, c) x(a, j, c), rows of g stride apart.
//
// A thread has four rows by four of one half of the matrix, as far apart as they can be, for so
// many terms that lanes share those of a tile: they read side by side, and sums are added lane by
// lane, in a fixed order. A step is 16 multiply-adds to 8 loads (and conversions, in float32).
//
// Flops size (size + 4) terms, terms = before after. No barrier.
template <typename T>
__device__ void gram(
    const Shape& shape, unsigned done, int mode, const T* x, double* g, int stride
) {
    const View view = view_of(shape, done, mode);
    const int blocks = (view.size + 3) / 4, tiles = blocks * (blocks + 1) / 2;
    int shares = 1;
    ROLLED
    while (2 * shares <= WARP && 2 * shares * tiles <= int(blockDim.x)) shares *= 2;
    const int share = threadIdx.x % shares, step = blockDim.x / shares;
    // From a lane's term to its next.
    const int ahead = shares / view.after, beside = shares - ahead * view.after;
    // All lanes of a warp go round equally often, those without a tile of their own with the last.
    ROLLED
    for (int first = 0; first < tiles; first += step) {
        const int own = first + threadIdx.x / shares;
        int i = 0, j = own < tiles ? own : tiles - 1;
        ROLLED
        while (j >= blocks - i) j -= blocks - i++;
        j += i;
        int left[4], right[4];
        double sum[4][4] = {};
#pragma unroll
        for (int b = 0; b < 4; ++b) {
            const int row = i + b * blocks, column = j + b * blocks;
            left[b] = (row < view.size ? row : view.size - 1) * view.after;
            right[b] = (column < view.size ? column : view.size - 1) * view.after;
        }
        int a = share / view.after, c = share - a * view.after;
        ROLLED
        while (a < view.before) {
            const T* at = x + a * view.apart + c;
            double v[4];
#pragma unroll
            for (int b = 0; b < 4; ++b) v[b] = double(at[right[b]]);
#pragma unroll
            for (int b = 0; b < 4; ++b) {
                const double u = double(at[left[b]]);
#pragma unroll
                for (int d = 0; d < 4; ++d) sum[b][d] += u * v[d];
            }
            a += ahead;
            c += beside;
            if (c >= view.after) {
                c -= view.after;
                ++a;
            }
        }
        ROLLED
        for (int offset = 1; offset < shares; offset *= 2) {
#pragma unroll
            for (int b = 0; b < 4; ++b)
#pragma unroll
                for (int d = 0; d < 4; ++d)
                    sum[b][d] += __shfl_xor_sync(WHOLE_WARP, sum[b][d], offset);
        }
        if (share || own >= tiles) continue;
#pragma unroll
        for (int b = 0; b < 4; ++b)
#pragma unroll
            for (int d = 0; d < 4; ++d) {
                const int row = i + b * blocks, column = j + d * blocks;
                if (row >= view.size || column >= view.size) continue;
                g[row * stride + column] = sum[b][d];
                g[column * stride + row] = sum[b][d];
            }
    }
}
