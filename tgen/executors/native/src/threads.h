// A pool of threads for parallel regions with barriers inside them. A whole step of a model is one region.
#pragma once

#include <stdint.h>

struct Pool;

Pool* pool_open(int threads);
void pool_close(Pool*);
// The number of threads in the pool. In a forked child, which has none of its parent's threads, this call starts new ones.
int pool_size(Pool*);
// The number of threads of the next region: all, or fewer if other processes want the cores.
int pool_team(Pool*);

// Calls work(argument, thread) once on every thread of the team; the caller is thread 0. Returns when all have returned.
void pool_run(Pool*, void (*work)(void*, int), void* argument);

// Waits until all threads of the region have called it.
void pool_barrier(Pool*, int thread);
