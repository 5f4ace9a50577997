// A waiting thread spins for some 50 microseconds, because the next step usually comes sooner, and then sleeps, so that it takes no time
// from another process.
#include "threads.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__linux__)
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "model.h"

static const int SPINS = 2000;

static inline void pause_briefly() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

// A number that threads wait on. It has a cache line of its own.
struct alignas(64) Epoch {
    uint32_t value;  // wraps around
    int32_t sleepers;
};

struct Pool {
    int threads;
    pid_t owner;  // the process that has the threads
    Epoch work_epoch;  // counts regions
    alignas(64) int32_t arrived;
    Epoch barrier_epoch;  // counts barriers
    void (*work)(void*, int);
    void* argument;
    int stopping;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t handles[MAX_THREADS];
    struct Start {
        Pool* pool;
        int number;
    } starts[MAX_THREADS];
};

static void sleep_while(Pool* pool, Epoch* epoch, uint32_t old) {
    __atomic_fetch_add(&epoch->sleepers, 1, __ATOMIC_SEQ_CST);
#if defined(__linux__)
    (void)pool;
    while (__atomic_load_n(&epoch->value, __ATOMIC_SEQ_CST) == old)
        syscall(SYS_futex, &epoch->value, FUTEX_WAIT_PRIVATE, old, nullptr, nullptr, 0);
#else
    pthread_mutex_lock(&pool->lock);
    while (__atomic_load_n(&epoch->value, __ATOMIC_SEQ_CST) == old) pthread_cond_wait(&pool->changed, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
#endif
    __atomic_fetch_sub(&epoch->sleepers, 1, __ATOMIC_SEQ_CST);
}

static void wait_for_change(Pool* pool, Epoch* epoch, uint32_t old) {
    for (int spin = 0; spin < SPINS; spin++) {
        if (__atomic_load_n(&epoch->value, __ATOMIC_ACQUIRE) != old) return;
        pause_briefly();
    }
    sleep_while(pool, epoch, old);
}

static void advance(Pool* pool, Epoch* epoch) {
    __atomic_fetch_add(&epoch->value, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&epoch->sleepers, __ATOMIC_SEQ_CST) == 0) return;
#if defined(__linux__)
    (void)pool;
    syscall(SYS_futex, &epoch->value, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
#else
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
#endif
}

void pool_barrier(Pool* pool, int) {
    if (pool->threads == 1) return;
    uint32_t epoch = __atomic_load_n(&pool->barrier_epoch.value, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&pool->arrived, 1, __ATOMIC_ACQ_REL) == pool->threads) {
        __atomic_store_n(&pool->arrived, 0, __ATOMIC_RELAXED);
        advance(pool, &pool->barrier_epoch);
    } else {
        wait_for_change(pool, &pool->barrier_epoch, epoch);
    }
}

static void* worker(void* start) {
    Pool* pool = ((Pool::Start*)start)->pool;
    int number = ((Pool::Start*)start)->number;
    uint32_t epoch = 0;
    for (;;) {
        wait_for_change(pool, &pool->work_epoch, epoch);
        epoch++;
        if (__atomic_load_n(&pool->stopping, __ATOMIC_ACQUIRE)) return nullptr;
        pool->work(pool->argument, number);
        pool_barrier(pool, number);
    }
}

// Up to `threads` threads; fewer still work.
static void start_threads(Pool* pool, int threads) {
    pool->owner = getpid();
    pool->work_epoch = pool->barrier_epoch = {};
    pool->arrived = 0;
    pthread_mutex_init(&pool->lock, nullptr);
    pthread_cond_init(&pool->changed, nullptr);
    pool->threads = 1;
    for (int number = 1; number < threads && number < MAX_THREADS; number++) {
        pool->starts[number] = {pool, number};
        if (pthread_create(&pool->handles[number], nullptr, worker, &pool->starts[number])) break;
        pool->threads = number + 1;
    }
}

Pool* pool_open(int threads) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, sizeof(Pool))) return nullptr;
    Pool* pool = (Pool*)memory;
    memset((void*)pool, 0, sizeof *pool);
    start_threads(pool, threads);
    return pool;
}

void pool_close(Pool* pool) {
    if (!pool) return;
    if (pool->owner == getpid()) {  // else its threads are another process's
        __atomic_store_n(&pool->stopping, 1, __ATOMIC_RELEASE);
        advance(pool, &pool->work_epoch);
        for (int number = 1; number < pool->threads; number++) pthread_join(pool->handles[number], nullptr);
        pthread_mutex_destroy(&pool->lock);
        pthread_cond_destroy(&pool->changed);
    }
    free(pool);
}

int pool_size(Pool* pool) {
    if (pool->threads > 1 && pool->owner != getpid()) start_threads(pool, pool->threads);
    return pool->threads;
}

void pool_run(Pool* pool, void (*work)(void*, int), void* argument) {
    pool->work = work;
    pool->argument = argument;
    if (pool->threads > 1) advance(pool, &pool->work_epoch);
    work(argument, 0);
    pool_barrier(pool, 0);
}
