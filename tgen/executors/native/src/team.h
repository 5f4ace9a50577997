// How many threads a region takes, where other processes may want the cores.
//
// The threads of a region wait for one another at its barriers. Where one of them has to wait for a core, because another process runs there,
// the others wait for it, some milliseconds each time; and two threads that share a core do each other's waiting. So a region may take twice
// as long as its threads run. Fewer threads, each with a core of its own, are faster then; and of several copies of tgen each comes to that
// end, so that they share the cores and none waits.
//
// What tells is the caller's time in regions: what of it the caller did not run, it waited for a core, or for a thread that did. After too much
// of that the next regions have one thread less, and after a pause one more is tried. The pause grows while trials fail. All times are in ns.
#pragma once

#include <stdint.h>

static const int64_t FIRST_PAUSE = 20000000, LONGEST_PAUSE = 640000000;
static const int64_t CREDIT = 6000000;   // without a wait, which a new team is credited with, so that a single delay does not count
static const int64_t MEMORY = 20000000;  // what lies further back counts half

struct Team {
    int most, size;          // threads that there are, and that the next region has
    int64_t waited, passed;  // what the caller waited in the last regions of this size, and what passed
    int64_t pause, try_at;   // from a failure to the next trial of a larger team, and when that is
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

// The size of a region that begins now.
static int team_next(Team* team, int64_t now) {
    if (team->size < team->most && now >= team->try_at) team_resize(team, team->size + 1);
    return team->size;
}

// A region of the team ended now; `passed` is how long it took, and the caller ran for `ran` of that.
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
    if (team->size == team->most && now > team->try_at + team->pause) team->pause = FIRST_PAUSE;  // it has gone well for a while
    while (team->passed > MEMORY) {
        team->passed /= 2;
        team->waited /= 2;
    }
}
