#pragma once
#include "contraction.cuh"
// What the blocks of a cluster do together for one tensor: each has some of its rows in shared
// memory, and the same of everything else. Compiled with CLUSTERED 0 a block is alone, has all rows
// and pays for none of this; 1 takes compute capability 9.0.
//
// Every thread of every block calls these. What one block has made and another reads lies between
// barriers of the cluster, which are barriers of each block, too. Sums are taken in the order of
// the blocks, so all blocks have the same bits, and decide alike.

#if CLUSTERED && !defined(ON_HOST)
__device__ inline void cluster_barrier() {
    asm volatile("barrier.cluster.arrive;\nbarrier.cluster.wait;" ::: "memory");
}

// Returns where another block of the cluster has what this one has at `own`.
template <typename T>
__device__ inline const T* of_peer(const T* own, int block) {
    const T* there;
    asm volatile("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(own), "r"(block));
    return there;
}
#elif !defined(ON_HOST)
__device__ inline void cluster_barrier() { __syncthreads(); }

template <typename T>
__device__ inline const T* of_peer(const T* own, int) { return own; }
#endif

// The first of n things that are a block's, dealt out evenly; and whose one of them is.
__device__ inline int first_of(int n, int block, int blocks) {
    return int((long long)n * block / blocks);
}

__device__ inline int owner_of(int n, int index, int blocks) {
    return int(((long long)(index + 1) * blocks - 1) / n);
}

// Brings n entries together of which each block has made its own, of `each` neighbours as one.
template <typename T>
__device__ void gather(const Shape& shape, T* entries, int n, int each) {
    cluster_barrier();
    if (!CLUSTERED) return;
    FOR_EACH(e, n * each) {
        const int from = owner_of(n, e / each, shape.blocks);
        if (from != shape.block) entries[e] = *of_peer(entries + e, from);
    }
    cluster_barrier();
}

// Adds up n entries over all blocks, for all blocks.
template <typename T>
__device__ void sum_over_cluster(const Shape& shape, T* entries, int n) {
    cluster_barrier();
    if (!CLUSTERED) return;
    const int first = first_of(n, shape.block, shape.blocks);
    FOR_EACH(e, first_of(n, shape.block + 1, shape.blocks) - first) {
        T sum = 0;
        ROLLED
        for (int b = 0; b < shape.blocks; ++b) sum += *of_peer(entries + first + e, b);
        // Of these entries nobody else reads any but this block.
        entries[first + e] = sum;
    }
    gather(shape, entries, n, 1);
}

// block_sum, over all blocks.
__device__ inline double cluster_sum(const Shape& shape, double value, double* room) {
    const double own = block_sum(value, room);
    if (!CLUSTERED) return own;
    if (threadIdx.x == 0) room[0] = own;
    cluster_barrier();
    double total = 0;
    ROLLED
    for (int b = 0; b < shape.blocks; ++b) total += *of_peer(room, b);
    cluster_barrier();
    return total;
}
