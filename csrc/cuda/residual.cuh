#pragma once
#include "contraction.cuh"
// The distance of a tensor in shared memory to a model.

// Returns a thread's part of sum (x[l, q] - sum_r left[l, r] right[q, r])^2, the model in T.
//
// A thread has four rows by four columns, as far apart as they can be. Lanes have neighbouring
// columns and begin with different r, as rows of right may be all banks apart.
//
// Flops 2 rows columns RANK.
template <typename T, int RANK>
__device__ double squared_distance(
    const T* x, int stride, const T* left, const T* right, int rows, int columns
) {
    constexpr int TILES = RANK / 4;
    const int tall = (rows + 3) / 4, wide = (columns + 3) / 4;
    double total = 0;
    FOR_EACH(e, tall * wide) {
        const int l = e / wide, q = e % wide;
        T sum[4][4] = {};
        ROLLED
        for (int step = 0; step < TILES; ++step) {
            const int r = (step + q) % TILES * 4;
            Four<T> v[4];
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                const int column = q + c * wide < columns ? q + c * wide : columns - 1;
                v[c] = *reinterpret_cast<const Four<T>*>(right + column * RANK + r);
            }
#pragma unroll
            for (int b = 0; b < 4; ++b) {
                const int row = l + b * tall < rows ? l + b * tall : rows - 1;
                const Four<T> u = *reinterpret_cast<const Four<T>*>(left + row * RANK + r);
#pragma unroll
                for (int c = 0; c < 4; ++c)
#pragma unroll
                    for (int k = 0; k < 4; ++k) sum[b][c] += u.at[k] * v[c].at[k];
            }
        }
#pragma unroll
        for (int b = 0; b < 4; ++b)
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                const int row = l + b * tall, column = q + c * wide;
                if (row >= rows || column >= columns) continue;
                const double gap = double(x[row * stride + column] - sum[b][c]);
                total += gap * gap;
            }
    }
    return total;
}

// The same, all of it in double precision, from the factors themselves: for a model so near to the
// data that its rounding would show. Seldom needed, and so with no care for speed.
template <typename T, int RANK>
__device__ double squared_distance_in_double(const Shape& shape, const T* x, const T* factors) {
    const int columns = shape.side[1].size;
    double total = 0;
    FOR_EACH(e, shape.rows * columns) {
        const int row = e / columns, column = e % columns;
        double model = 0;
        ROLLED
        for (int r = 0; r < shape.rank; ++r) {
            double value = 1;
            ROLLED
            for (int n = shape.order - 1, index = shape.first * columns + e; n >= 0; --n) {
                value *= double(factors[shape.offset[n] + index % shape.size[n] * RANK + r]);
                index /= shape.size[n];
            }
            model += value;
        }
        const double gap = double(x[row * shape.stride + column]) - model;
        total += gap * gap;
    }
    return total;
}
