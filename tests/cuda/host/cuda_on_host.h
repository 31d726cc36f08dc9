// CUDA's words for a kernel that is built as host C++: the threads of a block are fibers of one
// process, which give way to each other where they wait, at barriers and shuffles, and nowhere
// else.
//
// So a run is repeatable, and tells of a barrier that not all threads reach. Blocks run one after
// the other, those of a cluster side by side. Dynamic shared memory is filled with ones (NaN) before
// each block, and guarded behind its end.
//
// To ThreadSanitizer the fibers are threads that only barriers put in an order: it reports every
// two accesses, one of them a write, with no barrier between, whichever came first. A shuffle
// orders the lanes of its warp.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <ucontext.h>

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define UNWATCHED __attribute__((no_sanitize("thread")))
#else
#define UNWATCHED
#endif

#define ON_HOST
#define __device__
#define __global__
#define __launch_bounds__(...)
#define threadIdx (host::self->thread)
#define blockIdx (host::self->block)
#define blockDim (host::threads)

// That of the block at hand.
unsigned char* shared_memory;

namespace host {

constexpr int MOST = 512, LANES = 32, GUARD = 256, CLUSTER = 16;
constexpr size_t STACK = 256 << 10;

struct Dim {
    unsigned x, y, z;
};

// A barrier is passed again and again: two marks in turn, so that who is late leaves the last one
// without a look at what the first have already done since.
struct Barrier {
    char marks[2];
};

struct Fiber {
    Dim thread, block;
    // Its block's place in the cluster.
    int place;
    ucontext_t context;
    char* stack;
    void* watched;
    Barrier* waits;
    unsigned passed_cluster, passed_block, passed_warp;
    bool ended;
    // What a lane gives to the others: two in turn, as with marks.
    double slots[2];
};

Fiber fibers[CLUSTER * MOST];
Fiber* self;
Dim threads;
unsigned char* memories[CLUSTER];
Barrier everybody, blocks[CLUSTER], warps[CLUSTER * MOST / LANES];
char begun, done;
ucontext_t scheduler;
void* watched_scheduler;
const std::function<void()>* body;

UNWATCHED inline void release([[maybe_unused]] void* mark) {
#ifdef __SANITIZE_THREAD__
    __tsan_release(mark);
#endif
}

UNWATCHED inline void acquire([[maybe_unused]] void* mark) {
#ifdef __SANITIZE_THREAD__
    __tsan_acquire(mark);
#endif
}

UNWATCHED inline void give_way(Fiber* own) {
#ifdef __SANITIZE_THREAD__
    __tsan_switch_to_fiber(watched_scheduler, __tsan_switch_to_fiber_no_sync);
#endif
    swapcontext(&own->context, &scheduler);
}

UNWATCHED inline void wait(Barrier* barrier, unsigned Fiber::* passed) {
    Fiber* own = self;
    char* mark = &barrier->marks[own->*passed % 2];
    release(mark);
    own->waits = barrier;
    give_way(own);
    ++(own->*passed);
    acquire(mark);
}

UNWATCHED inline void start() {
    Fiber* own = self;
    acquire(&begun);
    (*body)();
    release(&done);
    own->ended = true;
    give_way(own);
}

UNWATCHED inline void resume(Fiber* fiber) {
    self = fiber;
    shared_memory = memories[fiber->place];
#ifdef __SANITIZE_THREAD__
    __tsan_switch_to_fiber(fiber->watched, __tsan_switch_to_fiber_no_sync);
#endif
    swapcontext(&scheduler, &fiber->context);
}

// Lets through all who wait at a barrier if they are all whom it is for.
UNWATCHED inline void open(Barrier* barrier, int first, int last) {
    for (int t = first; t < last; ++t)
        if (fibers[t].waits != barrier) return;
    for (int t = first; t < last; ++t) fibers[t].waits = nullptr;
}

// Runs the blocks of a cluster, of `count` threads each. Returns what went wrong, null if nothing
// did.
UNWATCHED inline const char* run_cluster(unsigned first, int cluster, int count, bool backwards) {
    const int total = cluster * count;
    for (int t = 0; t < total; ++t) {
        Fiber& own = fibers[t];
        if (!own.stack) own.stack = static_cast<char*>(malloc(STACK));
        own.thread = {unsigned(t % count), 0, 0};
        own.place = t / count;
        own.block = {first + own.place, 0, 0};
        own.waits = nullptr;
        own.passed_cluster = own.passed_block = own.passed_warp = 0;
        own.ended = false;
        getcontext(&own.context);
        own.context.uc_stack.ss_sp = own.stack;
        own.context.uc_stack.ss_size = STACK;
        own.context.uc_link = nullptr;
        makecontext(&own.context, start, 0);
#ifdef __SANITIZE_THREAD__
        own.watched = __tsan_create_fiber(0);
#endif
    }
    release(&begun);
    const char* wrong = nullptr;
    int ended = 0;
    while (ended < total && !wrong) {
        bool moved = false;
        for (int n = 0; n < total; ++n) {
            Fiber& own = fibers[backwards ? total - 1 - n : n];
            if (own.ended || own.waits) continue;
            resume(&own);
            moved = true;
            ended += own.ended;
        }
        if (!moved) wrong = "a barrier that not all threads reach";
        open(&everybody, 0, total);
        for (int b = 0; b < cluster; ++b) open(&blocks[b], b * count, (b + 1) * count);
        for (int w = 0; w < total / LANES; ++w) open(&warps[w], w * LANES, (w + 1) * LANES);
    }
    acquire(&done);
#ifdef __SANITIZE_THREAD__
    for (int t = 0; t < total; ++t) __tsan_destroy_fiber(fibers[t].watched);
#endif
    return wrong;
}

// Runs a kernel on so many clusters of blocks; returns what went wrong, null if nothing did.
inline const char* launch(
    int clusters, int cluster, int count, size_t bytes, bool backwards,
    const std::function<void()>& kernel
) {
    if (count % LANES || count > MOST || cluster > CLUSTER)
        return "a number of threads that this host has no room for";
#ifdef __SANITIZE_THREAD__
    watched_scheduler = __tsan_get_current_fiber();
#endif
    body = &kernel;
    threads = {unsigned(count), 1, 1};
    const size_t whole = (bytes + GUARD + 15) / 16 * 16;
    for (int b = 0; b < cluster; ++b)
        memories[b] = static_cast<unsigned char*>(aligned_alloc(16, whole));
    const char* wrong = nullptr;
    for (int c = 0; c < clusters && !wrong; ++c) {
        for (int b = 0; b < cluster; ++b) memset(memories[b], 0xff, whole);
        wrong = run_cluster(unsigned(c * cluster), cluster, count, backwards);
        for (int n = 0; n < cluster * GUARD && !wrong; ++n)
            if (memories[n / GUARD][bytes + n % GUARD] != 0xff)
                wrong = "a write behind the end of shared memory";
    }
    for (int b = 0; b < cluster; ++b) free(memories[b]);
    return wrong;
}

inline int warp() { return int(self - fibers) / LANES; }

template <typename T>
T exchanged(T value, int from) {
    static_assert(sizeof(T) <= sizeof(double));
    const int turn = self->passed_warp % 2;
    memcpy(&self->slots[turn], &value, sizeof(T));
    wait(&warps[warp()], &Fiber::passed_warp);
    memcpy(&value, &fibers[warp() * LANES + from].slots[turn], sizeof(T));
    return value;
}

}  // namespace host

inline void __syncthreads() {
    host::wait(&host::blocks[host::self->place], &host::Fiber::passed_block);
}

inline void __syncwarp() { host::wait(&host::warps[host::warp()], &host::Fiber::passed_warp); }

inline void cluster_barrier() { host::wait(&host::everybody, &host::Fiber::passed_cluster); }

template <typename T>
const T* of_peer(const T* own, int block) {
    const auto at = reinterpret_cast<const unsigned char*>(own) - shared_memory;
    return reinterpret_cast<const T*>(host::memories[block] + at);
}

template <typename T>
T __shfl_xor_sync(unsigned, T value, int offset) {
    return host::exchanged(value, int(threadIdx.x % host::LANES) ^ offset);
}

template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
    return host::exchanged(value, lane);
}

inline int __clz(int value) { return value ? __builtin_clz(unsigned(value)) : 32; }
