#pragma once
#include "block.cuh"
// A tensor of up to five modes in shared memory, some of them projected already: in C order, but
// that rows, along the last mode, lie an odd number of entries apart, for lanes with several rows
// to read different banks. What lies between is zero, so that loops over the modes after another
// need not know of it.

#ifndef ON_HOST
extern __shared__ __align__(16) unsigned char shared_memory[];
#endif

// What lies so many bytes from its beginning.
template <typename T>
__device__ inline T* part(int at) {
    return reinterpret_cast<T*>(shared_memory + at);
}

// Where four numbers side by side may be read at once.
__device__ inline int aligned(int bytes) { return (bytes + 15) / 16 * 16; }

// What all threads know of a problem. In shared memory, where they may index it.
struct Shape {
    int order;
    // Of each mode: entries before and after it is projected, where its factor begins among those
    // that come out, and whether it is projected at all.
    int size[5], rank[5], offset[5];
    // The modes that are projected, in the order of the kernel, and how many.
    int mode[5], count;
};

// How a mode lies: entry (a, i, c), the modes before it and after it each as one, is at
// a apart + i after + c.
struct View {
    int before, size, after, apart;
};

__device__ inline int size_of(const Shape& shape, unsigned done, int mode) {
    return done >> mode & 1 ? shape.rank[mode] : shape.size[mode];
}

// Entries from one row to the next; done: a bit for each mode that is projected.
__device__ inline int row_of(const Shape& shape, unsigned done) {
    return size_of(shape, done, shape.order - 1) | 1;
}

__device__ inline View view_of(const Shape& shape, unsigned done, int mode) {
    const int last = shape.order - 1;
    View view = {1, size_of(shape, done, mode), 1, row_of(shape, done)};
    ROLLED
    for (int n = 0; n < mode; ++n) view.before *= size_of(shape, done, n);
    if (mode == last) return view;
    view.after = view.apart;
    ROLLED
    for (int n = mode + 1; n < last; ++n) view.after *= size_of(shape, done, n);
    view.apart = view.size * view.after;
    return view;
}

// Entries of a tensor as it lies.
__device__ inline int stored(const Shape& shape, unsigned done) {
    int entries = row_of(shape, done);
    ROLLED
    for (int n = 0; n < shape.order - 1; ++n) entries *= size_of(shape, done, n);
    return entries;
}

// Entries from one row of a factor to the next: four side by side are read at once.
__device__ inline int width_of(const Shape& shape, int mode) {
    return (shape.rank[mode] + 3) / 4 * 4;
}

// modes, count: those that are projected, four bits each, the first lowest. One thread does this.
__device__ inline void describe(
    Shape& shape, int order, const int* size, const int* rank, unsigned modes, int count
) {
    shape.order = order;
    shape.count = count;
    int offset = 0;
#pragma unroll
    for (int n = 0; n < 5; ++n) {
        shape.size[n] = size[n];
        shape.rank[n] = rank[n];
        shape.offset[n] = offset;
        shape.mode[n] = modes >> 4 * n & 15;
        offset += size[n] * rank[n];
    }
}

// Brings in a tensor, zeros between its rows; returns a thread's part of its squared norm.
template <typename T>
__device__ double bring(const Shape& shape, const T* x, T* out) {
    const int row = row_of(shape, 0), length = shape.size[shape.order - 1];
    double squared = 0;
    FOR_EACH(e, stored(shape, 0)) {
        const int at = e / row, rest = e - at * row;
        const T value = rest < length ? x[at * length + rest] : T(0);
        out[e] = value;
        squared += double(value) * double(value);
    }
    return squared;
}

// Writes out the core.
template <typename T>
__device__ void take_out(const Shape& shape, unsigned done, const T* core, T* out) {
    const int row = row_of(shape, done), length = size_of(shape, done, shape.order - 1);
    FOR_EACH(e, stored(shape, done) / row * length)
        out[e] = core[e / length * row + e % length];
}
