// Threads that stay: one parallel region for a whole step, and a barrier inside it.
#pragma once

#include <stdint.h>

struct Pool;

Pool* pool_open(int threads);
void pool_close(Pool*);
// How many threads a region has. A forked child has none of its parent's threads; this call starts them anew in it.
int pool_size(Pool*);
// How many of them the next region has: all, or fewer where other processes want the cores.
int pool_team(Pool*);

// Calls work(argument, thread) once on every thread of the team; the caller is thread 0. Returns when all have returned.
void pool_run(Pool*, void (*work)(void*, int), void* argument);

// Waits until all threads of the region have come here.
void pool_barrier(Pool*, int thread);
