// One block of memory from which a run takes its buffers. It grows to the size that the largest run needs, and is kept between runs.
#pragma once

#include <stdint.h>

struct Arena;

Arena* arena_open();
void arena_close(Arena*);
void arena_reset(Arena*);
// Takes the next `bytes`, at a multiple of 64. Past the end it returns a null pointer, but counts on, so that arena_grow knows the need.
void* arena_take(Arena*, int64_t bytes);
// Whether everything that was taken since the reset fitted into the block.
bool arena_ready(const Arena*);
// The bytes of the block once it has room for that.
int64_t arena_bytes(const Arena*);
// Makes room for everything that was asked for since the reset; a new reset must follow. Returns 1 if the system has no memory.
int arena_grow(Arena*);
