// One block of memory from which a run takes its buffers. It grows to what the largest run needed and stays.
#pragma once

#include <stdint.h>

struct Arena;

Arena* arena_open();
void arena_close(Arena*);
void arena_reset(Arena*);
// The next `bytes`, at a multiple of 64. Past the end it returns a null pointer and goes on counting.
void* arena_take(Arena*, int64_t bytes);
// Whether everything that was taken since the reset fitted.
bool arena_ready(const Arena*);
// Make room for what was asked for. Returns 1 if the system has no memory.
int arena_grow(Arena*);
