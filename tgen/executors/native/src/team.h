// Chooses the number of threads of a parallel region when other processes may want the cores.
//
// The threads of a region wait for one another at its barriers. If one of them has to wait for a core, because another process runs there,
// all others wait with it, some milliseconds each time. So a region may take twice as long as its threads run, and fewer threads, each with
// its own core, are faster. Several copies of tgen on one machine all arrive at fewer threads in this way, share the cores, and none waits.
//
// The measure is the caller's time in regions. When the caller does not run, it waits for a core, or for a thread that waits for one. If it
// waits too much, the next regions have one thread less; after a pause, one more is tried. The pause grows while trials fail. All times
// are in ns.
#pragma once

#include <stdint.h>

static const int64_t FIRST_PAUSE = 20000000, LONGEST_PAUSE = 640000000;
static const int64_t CREDIT = 6000000;   // time without waits with which a new team starts, so that a single delay does not decide
static const int64_t MEMORY = 20000000;  // whenever so much time has passed, what came before counts half

struct Team {
    int most, size;          // the threads that exist, and those of the next region
    int64_t waited, passed;  // the time that the caller waited in the last regions of this size, and the time that they took
    int64_t pause, try_at;   // the time from a failure to the next trial of a larger team, and the time of that trial
};

static void team_resize(Team* team, int size) {
    team->size = size;
    team->waited = 0;
    team->passed = CREDIT;
}

static void team_start(Team* team, int most) {
    *team = {most, most, 0, 0, FIRST_PAUSE, 0};
    team_resize(team, most);
}

// The number of threads of a region that begins now.
static int team_next(Team* team, int64_t now) {
    if (team->size < team->most && now >= team->try_at) team_resize(team, team->size + 1);
    return team->size;
}

// Notes that a region ended now. It took `passed`, and the caller ran for `ran` of that time.
static void team_judge(Team* team, int64_t now, int64_t passed, int64_t ran) {
    if (team->size == 1) return;
    team->passed += passed;
    team->waited += passed > ran ? passed - ran : 0;
    if (team->waited > team->passed / 8 * 3) {
        team_resize(team, team->size - 1);
        team->try_at = now + team->pause;
        if (team->pause < LONGEST_PAUSE) team->pause *= 2;
        return;
    }
    if (team->size == team->most && now > team->try_at + team->pause) team->pause = FIRST_PAUSE;  // all threads have run well for a while
    while (team->passed > MEMORY) {
        team->passed /= 2;
        team->waited /= 2;
    }
}
