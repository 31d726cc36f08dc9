#pragma once
#include "box.cuh"
// Products of a tensor in shared memory with a factor along one mode, and the distance of a tensor
// to a model.

// Four numbers side by side: one access of 16 bytes, or two.
template <typename T>
struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) Quad {
    T at[4];
};

// Writes y(a, r, c) = sum_i x(a, i, c) U[i, r], rows of U filled up with zeros to fours.
//
// A thread has four places (a, c) by four columns of U. Its places are as far apart as they can be,
// so that lanes with neighbouring tiles read neighbouring entries of x. A step is 16 multiply-adds
// to 4 loads of x and one wide one of U.
//
// Flops 2 size before after width. No barrier.
template <typename T>
__device__ void project(
    const Shape& shape, unsigned done, int mode, const T* x, const T* factor, T* y
) {
    const View in = view_of(shape, done, mode), out = view_of(shape, done | 1u << mode, mode);
    const int width = width_of(shape, mode), tiles = width / 4, places = in.before * in.after;
    const int blocks = (places + 3) / 4;
    FOR_EACH(e, tiles * blocks) {
        const int tile = e / blocks, block = e - tile * blocks;
        const T* at[4];
        T sum[4][4] = {};
#pragma unroll
        for (int b = 0; b < 4; ++b) {
            const int place = block + b * blocks < places ? block + b * blocks : places - 1;
            const int a = place / in.after;
            at[b] = x + a * in.apart + place - a * in.after;
        }
        const T* row = factor + 4 * tile;
#pragma unroll 2
        for (int i = 0; i < in.size; ++i) {
            const Quad<T> v = *reinterpret_cast<const Quad<T>*>(row + i * width);
#pragma unroll
            for (int b = 0; b < 4; ++b) {
                const T u = at[b][i * in.after];
#pragma unroll
                for (int d = 0; d < 4; ++d) sum[b][d] += u * v.at[d];
            }
        }
#pragma unroll
        for (int b = 0; b < 4; ++b) {
            const int place = block + b * blocks;
            if (place >= places) continue;
            const int a = place / in.after;
            T* to = y + a * out.apart + place - a * in.after + 4 * tile * out.after;
#pragma unroll
            for (int d = 0; d < 4; ++d)
                if (4 * tile + d < out.size) to[d * out.after] = sum[b][d];
        }
    }
    if (mode == shape.order - 1 && out.apart > out.size)
        FOR_EACH(a, out.before) y[a * out.apart + out.size] = 0;
}

// Returns sum_r x(a, r, c) U[i, r], from and times all of them.
template <typename T>
__device__ inline T expanded_at(
    const View& in, const T* x, const T* factor, int a, int i, int c
) {
    const T *from = x + a * in.apart + c, *row = factor + i * in.size;
    T sum = 0;
#pragma unroll 2
    for (int r = 0; r < in.size; ++r) sum += from[r * in.after] * row[r];
    return sum;
}

// Writes y(a, i, c) = sum_r x(a, r, c) U[i, r], of a factor as it comes out, in memory. done: of x.
// Seldom needed, as all that follows, and so with little care for speed.
template <typename T>
__device__ void expand(
    const Shape& shape, unsigned done, int mode, const T* x, const T* factor, T* y
) {
    const View in = view_of(shape, done, mode), out = view_of(shape, done & ~(1u << mode), mode);
    FOR_EACH(e, out.before * out.apart) {
        const int a = e / out.apart, rest = e - a * out.apart;
        const int i = rest / out.after, c = rest - i * out.after;
        y[e] = i < out.size ? expanded_at(in, x, factor, a, i, c) : T(0);
    }
}

// Returns a thread's part of sum (x - model)^2, x in memory, of a model that is to be expanded by
// one more mode.
template <typename T>
__device__ double squared_distance(
    const Shape& shape, int mode, const T* x, const T* model, const T* factor
) {
    const View in = view_of(shape, 1u << mode, mode), out = view_of(shape, 0, mode);
    const int row = row_of(shape, 0), length = shape.size[shape.order - 1];
    double total = 0;
    FOR_EACH(e, stored(shape, 0) / row * length) {
        const int lies = e / length * row + e % length;
        const int a = lies / out.apart, rest = lies - a * out.apart;
        const int i = rest / out.after, c = rest - i * out.after;
        const double gap = double(x[e] - expanded_at(in, model, factor, a, i, c));
        total += gap * gap;
    }
    return total;
}

// The same, all of it in double precision, from core and factors themselves, as they come out: for
// a model so near to the data that its rounding would show.
//
// Flops about 2 entries, times those of the core.
template <typename T>
__device__ double squared_distance_in_double(
    const Shape& shape, const T* x, const T* factors, const T* core
) {
    const int last = shape.order - 1, length = shape.size[last], kept = shape.rank[last];
    int entries = 1, rows = 1;
    ROLLED
    for (int n = 0; n < last; ++n) {
        entries *= shape.size[n];
        rows *= shape.rank[n];
    }
    double total = 0;
    FOR_EACH(e, entries * length) {
        const T* own = factors + shape.offset[last] + e % length * kept;
        double model = 0;
        ROLLED
        for (int g = 0; g < rows; ++g) {
            double value = 0;
#pragma unroll 2
            for (int r = 0; r < kept; ++r) value += double(core[g * kept + r]) * double(own[r]);
            ROLLED
            for (int n = last - 1, index = e / length, column = g; n >= 0; --n) {
                const int rank = shape.rank[n], i = index % shape.size[n];
                value *= double(factors[shape.offset[n] + i * rank + column % rank]);
                index /= shape.size[n];
                column /= rank;
            }
            model += value;
        }
        const double gap = double(x[e]) - model;
        total += gap * gap;
    }
    return total;
}
