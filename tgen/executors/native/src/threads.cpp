// A waiting thread spins for some 50 microseconds, because the next step usually comes sooner, and then sleeps, so that it takes no time
// from another process.
//
// Where another process wants the same cores, a thread that was woken, or that used up its slice of time, waits some milliseconds for a core
// while the others wait for it at a barrier. Regions of which the caller slept more than half the time had too many threads, so the next
// ones have one less, and after a pause one more is tried. The pause grows while trials fail.
#include "threads.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
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
static const int64_t FIRST_PAUSE = 20000000, LONGEST_PAUSE = 640000000;  // ns
static const int64_t EVIDENCE = 5000000;  // ns without sleep that a new team is credited with, so that a single delay does not count
static const int MEMORY = 16;             // regions

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
    int team;  // the threads of the current region: thread 0, the caller, up to thread team - 1
    pid_t owner;  // the process that has the threads
    Epoch work_epoch[MAX_THREADS];  // counts the regions of each thread
    int64_t slept, passed;   // ns that the caller slept in the last regions of this team, and that passed
    int64_t pause, try_at;   // ns from a failure to the next trial of a larger team, and when that is
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

static bool changes_soon(Epoch* epoch, uint32_t old) {
    for (int spin = 0; spin < SPINS; spin++) {
        if (__atomic_load_n(&epoch->value, __ATOMIC_ACQUIRE) != old) return true;
        pause_briefly();
    }
    return false;
}

static int64_t now() {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * (int64_t)1000000000 + time.tv_nsec;
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

void pool_barrier(Pool* pool, int thread) {
    if (pool->team == 1) return;
    uint32_t epoch = __atomic_load_n(&pool->barrier_epoch.value, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&pool->arrived, 1, __ATOMIC_ACQ_REL) == pool->team) {
        __atomic_store_n(&pool->arrived, 0, __ATOMIC_RELAXED);
        advance(pool, &pool->barrier_epoch);
    } else if (!changes_soon(&pool->barrier_epoch, epoch)) {
        int64_t begin = thread == 0 ? now() : 0;
        sleep_while(pool, &pool->barrier_epoch, epoch);
        if (thread == 0) pool->slept += now() - begin;
    }
}

static void* worker(void* start) {
    Pool* pool = ((Pool::Start*)start)->pool;
    int number = ((Pool::Start*)start)->number;
    uint32_t epoch = 0;
    for (;;) {
        if (!changes_soon(&pool->work_epoch[number], epoch)) sleep_while(pool, &pool->work_epoch[number], epoch);
        epoch++;
        if (__atomic_load_n(&pool->stopping, __ATOMIC_ACQUIRE)) return nullptr;
        pool->work(pool->argument, number);
        pool_barrier(pool, number);
    }
}

static void set_team(Pool* pool, int team) {
    pool->team = team;
    pool->slept = 0;
    pool->passed = EVIDENCE;
}

// Up to `threads` threads; fewer still work.
static void start_threads(Pool* pool, int threads) {
    pool->owner = getpid();
    memset(pool->work_epoch, 0, sizeof pool->work_epoch);
    pool->barrier_epoch = {};
    pool->arrived = 0;
    pool->pause = FIRST_PAUSE;
    pthread_mutex_init(&pool->lock, nullptr);
    pthread_cond_init(&pool->changed, nullptr);
    pool->threads = 1;
    for (int number = 1; number < threads && number < MAX_THREADS; number++) {
        pool->starts[number] = {pool, number};
        if (pthread_create(&pool->handles[number], nullptr, worker, &pool->starts[number])) break;
        pool->threads = number + 1;
    }
    set_team(pool, pool->threads);
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
        for (int number = 1; number < pool->threads; number++) advance(pool, &pool->work_epoch[number]);
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

int pool_team(Pool* pool) {
    if (pool_size(pool) > pool->team && now() >= pool->try_at) set_team(pool, pool->team + 1);
    return pool->team;
}

// What the team's last region, which began at `begin`, says about its size.
static void judge_team(Pool* pool, int64_t begin) {
    int64_t end = now();
    pool->passed += end - begin;
    if (pool->slept > pool->passed / 2) {
        set_team(pool, pool->team - 1);
        pool->try_at = end + pool->pause;
        if (pool->pause < LONGEST_PAUSE) pool->pause *= 2;
    } else if (pool->team == pool->threads && end > pool->try_at + pool->pause) {
        pool->pause = FIRST_PAUSE;  // it has gone well for a while
    }
    pool->slept -= pool->slept / MEMORY;
    pool->passed -= pool->passed / MEMORY;
}

void pool_run(Pool* pool, void (*work)(void*, int), void* argument) {
    pool->work = work;
    pool->argument = argument;
    int64_t begin = pool->team > 1 ? now() : 0;
    for (int number = 1; number < pool->team; number++) advance(pool, &pool->work_epoch[number]);
    work(argument, 0);
    pool_barrier(pool, 0);
    if (pool->team > 1) judge_team(pool, begin);
}
