#pragma once
#include "jacobi.cuh"
// Jacobi's method from the eigenvectors of a matrix that was much the same.

// Rows of a column that a lane may have: two matrices of longer ones fit no block's shared memory.
constexpr int ROWS_OF_LANE = 4, MOST_ROWS = ROWS_OF_LANE * WARP;

// Turns V into (G / g + I) V, columns of both stride apart; returns g, the largest entry of G.
//
// A warp has a column, of up to MOST_ROWS entries, and its lanes have neighbouring rows of G, which
// is symmetric. Flops 2 n^3. One barrier.
__device__ inline double warmed(const double* g, double* vectors, int n, int stride) {
    const double largest = largest_of(g, n, stride), scale = largest > 0 ? 1 / largest : 0;
    const int lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    ROLLED
    for (int v = threadIdx.x / WARP; v < n; v += warps) {
        double* column = vectors + v * stride;
        double sum[ROWS_OF_LANE] = {};
        ROLLED
        for (int j = 0; j < n; ++j) {
            const double along = column[j];
#pragma unroll
            for (int b = 0; b < ROWS_OF_LANE; ++b) {
                const int k = lane + b * WARP;
                if (k < n) sum[b] += g[j * stride + k] * along;
            }
        }
        // All lanes have read the column.
        __syncwarp();
#pragma unroll
        for (int b = 0; b < ROWS_OF_LANE; ++b) {
            const int k = lane + b * WARP;
            if (k < n) column[k] += sum[b] * scale;
        }
    }
    __syncthreads();
    return largest;
}
