#include "arena.h"

#include <stdlib.h>

#include "entry.h"

struct Arena {
    uint8_t* data;
    int64_t size, used;
};

Arena* arena_open() { return (Arena*)calloc(1, sizeof(Arena)); }

void arena_close(Arena* arena) {
    if (arena) tgen_memory_free(arena->data);
    free(arena);
}

void arena_reset(Arena* arena) { arena->used = 0; }

void* arena_take(Arena* arena, int64_t bytes) {
    int64_t at = arena->used;
    arena->used += (bytes + 63) / 64 * 64 + 64;
    return arena->used <= arena->size ? arena->data + at : nullptr;
}

bool arena_ready(const Arena* arena) { return arena->used <= arena->size; }

int64_t arena_bytes(const Arena* arena) { return arena_ready(arena) ? arena->size : whole_pages(arena->used); }

int arena_grow(Arena* arena) {
    const int64_t size = arena_bytes(arena);
    tgen_memory_free(arena->data);
    arena->data = tgen_memory_new(size);
    arena->size = arena->data ? size : 0;
    return !arena->data;
}
