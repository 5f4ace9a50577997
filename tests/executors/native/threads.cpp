// Drives the threads of the native library: what test_threads.py asks for, and prints what it saw.
//
//     team MOST [PASSED RAN PAUSE]...  the size of a team before the first region and after each one, whose caller ran RAN of PASSED
//                                      microseconds; PAUSE more pass before the next one
//     crowd [disk]                     two threads on one core, until the team is one or 300 regions are over: the team; "disk" has each
//                                      region wait for a disk as the system tells it
//     apart                            two threads on several cores: whether the second one kept off the caller's in its regions
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "threads.h"
#include "team.h"

static Pool* pool;
static bool reads_disk;
static long reads;

// In place of the system's function.
extern "C" int getrusage(__rusage_who_t who, struct rusage* used) noexcept {
    int failed = (int)syscall(SYS_getrusage, who, used);
    if (reads_disk) used->ru_majflt = reads++;
    return failed;
}

static int team(int count, char** numbers) {
    Team one;
    int64_t now = 0;
    team_start(&one, atoi(numbers[0]));
    printf("%d", team_next(&one, now));
    for (int i = 1; i + 2 < count; i += 3) {
        int64_t passed = atoll(numbers[i]) * 1000;
        now += passed;
        team_judge(&one, now, passed, atoll(numbers[i + 1]) * 1000);
        now += atoll(numbers[i + 2]) * 1000;
        printf(" %d", team_next(&one, now));
    }
    puts("");
    return 0;
}

static void busy(void*, int thread) {
    for (int part = 0; part < 10; part++) {
        for (volatile int i = 0; i < 100000; i = i + 1) {}
        pool_barrier(pool, thread);
    }
}

static int crowd() {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    if (sched_setaffinity(0, sizeof one, &one)) return 2;
    pool = pool_open(2);
    int size = 2;
    for (int region = 0; region < 300 && size == 2; region++) {
        pool_run(pool, busy, nullptr);
        size = pool_team(pool);
    }
    pool_close(pool);
    printf("%d\n", size);
    return 0;
}

static cpu_set_t allowed;

static void look(void*, int thread) {
    if (thread == 1) sched_getaffinity(0, sizeof allowed, &allowed);
}

static int apart() {
    pool = pool_open(2);
    int seen = 0, kept_off = 0;
    for (int region = 0; region < 200000 && seen < 20; region++) {  // on a busy machine few have two threads
        int before = sched_getcpu();
        int size = pool_team(pool);
        pool_run(pool, look, nullptr);
        if (size < 2 || sched_getcpu() != before) continue;
        seen++;
        kept_off += !CPU_ISSET(before, &allowed);
    }
    pool_close(pool);
    printf("%d of %d\n", kept_off, seen);
    return 0;
}

int main(int count, char** words) {
    if (count > 2 && !strcmp(words[1], "team")) return team(count - 2, words + 2);
    reads_disk = count > 2 && !strcmp(words[2], "disk");
    return !strcmp(words[1], "crowd") ? crowd() : apart();
}
