// A waiting thread spins for some 50 microseconds, because the next step usually comes sooner. Then it sleeps, so that it takes no time
// from other processes. team.h chooses the number of threads of a region.
#include "threads.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "model.h"
#include "team.h"

static const int SPINS = 2000;

static inline void pause_briefly() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

// A number on whose change threads wait. It has its own cache line.
struct alignas(64) Epoch {
    uint32_t value;  // wraps around
    int32_t sleepers;
};

struct Pool {
    int threads;
    Team team;    // the threads of the current region: from thread 0, the caller, to thread team.size - 1
    pid_t owner;  // the process to which the threads belong
    Epoch work_epoch[MAX_THREADS];  // counts the regions in which each thread took part
    alignas(64) int32_t arrived;
    Epoch barrier_epoch;  // counts barriers
    void (*work)(void*, int);
    void* argument;
    int core;      // the core on which the caller runs
    pid_t caller;  // the caller's thread
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

static int64_t nanoseconds(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * (int64_t)1000000000 + time.tv_nsec;
}

static int64_t now() { return nanoseconds(CLOCK_MONOTONIC); }

// How often this thread waited for a page from the disk; 0 if the system does not say.
static int64_t disk_reads() {
#if defined(__linux__)
    struct rusage used;
    if (getrusage(RUSAGE_THREAD, &used) == 0) return used.ru_majflt;
#endif
    return 0;
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
    const int team = pool->team.size;  // read before this thread arrives, because the caller may change it as soon as all have arrived
    if (team == 1) return;
    uint32_t epoch = __atomic_load_n(&pool->barrier_epoch.value, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&pool->arrived, 1, __ATOMIC_ACQ_REL) == team) {
        __atomic_store_n(&pool->arrived, 0, __ATOMIC_RELAXED);
        advance(pool, &pool->barrier_epoch);
    } else if (!changes_soon(&pool->barrier_epoch, epoch)) {
        sleep_while(pool, &pool->barrier_epoch, epoch);
    }
}

// Keeps this thread off the caller's core; `core` is the one that it keeps off already. If all cores are busy, the system may put both
// threads on one core, even if the programs on the others have a low priority. It leaves them there for long, since each of them sleeps
// half the time.
static void keep_off(Pool* pool, int* core) {
#if defined(__linux__)
    if (pool->core == *core) return;
    *core = pool->core;
    cpu_set_t cores;
    if (sched_getaffinity(pool->caller, sizeof cores, &cores) || *core < 0 || *core >= CPU_SETSIZE) return;
    CPU_CLR(*core, &cores);
    sched_setaffinity(0, sizeof cores, &cores);  // the system refuses an empty set
#endif
}

static void* worker(void* start) {
    Pool* pool = ((Pool::Start*)start)->pool;
    int number = ((Pool::Start*)start)->number, core = -1;
    uint32_t epoch = 0;
    for (;;) {
        if (!changes_soon(&pool->work_epoch[number], epoch)) sleep_while(pool, &pool->work_epoch[number], epoch);
        epoch++;
        if (__atomic_load_n(&pool->stopping, __ATOMIC_ACQUIRE)) return nullptr;
        keep_off(pool, &core);
        pool->work(pool->argument, number);
        pool_barrier(pool, number);
    }
}

// Starts up to `threads` threads. If the system gives fewer, the pool works with these.
static void start_threads(Pool* pool, int threads) {
    pool->owner = getpid();
    memset(pool->work_epoch, 0, sizeof pool->work_epoch);
    pool->barrier_epoch = {};
    pool->arrived = 0;
    pthread_mutex_init(&pool->lock, nullptr);
    pthread_cond_init(&pool->changed, nullptr);
    pool->threads = 1;
    for (int number = 1; number < threads && number < MAX_THREADS; number++) {
        pool->starts[number] = {pool, number};
        if (pthread_create(&pool->handles[number], nullptr, worker, &pool->starts[number])) break;
        pool->threads = number + 1;
    }
    team_start(&pool->team, pool->threads);
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
    if (pool->owner == getpid()) {  // a forked child has none of the threads
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
    pool_size(pool);  // starts the threads in a forked child
    return team_next(&pool->team, now());
}

void pool_run(Pool* pool, void (*work)(void*, int), void* argument) {
    const bool judged = pool->team.size > 1;
    int64_t begin = 0, ran = 0, reads = 0;
    if (judged) {
        begin = now();
        ran = nanoseconds(CLOCK_THREAD_CPUTIME_ID);
        reads = disk_reads();
    }
    pool->work = work;
    pool->argument = argument;
#if defined(__linux__)
    pool->core = sched_getcpu();
    pool->caller = (pid_t)syscall(SYS_gettid);
#endif
    for (int number = 1; number < pool->team.size; number++) advance(pool, &pool->work_epoch[number]);
    work(argument, 0);
    pool_barrier(pool, 0);
    if (!judged || disk_reads() != reads) return;  // a wait for a disk does not mean that other processes want the cores
    int64_t end = now();
    team_judge(&pool->team, end, end - begin, nanoseconds(CLOCK_THREAD_CPUTIME_ID) - ran);
}
