#include "arena.h"

#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

struct Arena {
    uint8_t* data;
    int64_t size, used;
};

Arena* arena_open() { return (Arena*)calloc(1, sizeof(Arena)); }

void arena_close(Arena* arena) {
    if (arena) free(arena->data);
    free(arena);
}

void arena_reset(Arena* arena) { arena->used = 0; }

void* arena_take(Arena* arena, int64_t bytes) {
    int64_t at = arena->used;
    arena->used += (bytes + 63) / 64 * 64 + 64;
    return arena->used <= arena->size ? arena->data + at : nullptr;
}

bool arena_ready(const Arena* arena) { return arena->used <= arena->size; }

int arena_grow(Arena* arena) {
    const int64_t huge = 2 << 20;
    int64_t size = (arena->used + huge - 1) / huge * huge;
    void* data = nullptr;
    free(arena->data);
    arena->data = nullptr;
    arena->size = 0;
    if (posix_memalign(&data, (size_t)huge, (size_t)size)) return 1;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    madvise(data, (size_t)size, MADV_HUGEPAGE);
#endif
    arena->data = (uint8_t*)data;
    arena->size = size;
    return 0;
}
