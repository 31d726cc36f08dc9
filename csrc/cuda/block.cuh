#pragma once
// What the threads of a block do together. Every thread of the block calls these, and gets the
// result; sums are taken in an order that depends on the number of threads alone.

constexpr unsigned WHOLE_WARP = 0xffffffffu;
constexpr int WARP = 32;

// A loop that is to stay one. The compiler makes four copies of any loop's body, and of a loop
// around it four of those; only innermost loops gain by it.
#define ROLLED _Pragma("unroll 1")

// A thread's share of n things.
#define FOR_EACH(i, n) ROLLED for (int i = threadIdx.x; i < (n); i += blockDim.x)

__device__ inline double warp_sum(double value) {
    for (int offset = WARP / 2; offset > 0; offset /= 2)
        value += __shfl_xor_sync(WHOLE_WARP, value, offset);
    return value;
}

// room: WARP numbers of shared memory, free before and after.
__device__ inline double block_sum(double value, double* room) {
    value = warp_sum(value);
    if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = value;
    __syncthreads();
    double total = 0;
    ROLLED
    for (int w = 0; w < int(blockDim.x) / WARP; ++w) total += room[w];
    // Who is ahead must not write its next part where another still reads this one.
    __syncthreads();
    return total;
}
