// Pages lie in slabs of some megabytes at huge memory pages. Within a slab, a head's keys of all pages stand side by side, and so do its
// values: a processor reads such runs nearly twice as fast as it jumps from page to page, because it fetches ahead by itself.
#include "pages.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "entry.h"

constexpr int64_t SLAB_BYTES = 4 * HUGE_PAGE;
constexpr int64_t MOST_PAGES = 64;  // pages of a slab, because `taken` has one bit for each
// Slabs of so many bytes stay when their pages are free, for the next rows. To take fresh memory for a prompt can last as long as a tenth of
// the run that reads it, and nothing can interrupt that.
constexpr int64_t SPARE_BYTES = 8 * SLAB_BYTES;

struct Slab {
    Slab* next;
    Geometry* geometry;
    uint8_t* memory;
    uint64_t taken;  // bit i: page i has owners
    Page page[MOST_PAGES];
};

// All slabs. The lock guards them, because any thread may free a row.
struct Slabs {
    pthread_mutex_t lock;
    Slab* first;
    int64_t spare;  // how many slabs have no page in use
};

static uint64_t all_taken(const Geometry* geometry) { return ~0ull >> (64 - geometry->slab_pages); }

static void slab_free(Slab* slab) {
    tgen_memory_free(slab->memory);
    free(slab);
}

static Slab* slab_new(Geometry* geometry) {
    Slab* slab = (Slab*)malloc(sizeof(Slab));
    uint8_t* memory = tgen_memory_new(geometry->slab_pages * geometry->page_bytes);
    if (!slab || !memory) {
        free(slab);
        tgen_memory_free(memory);
        return nullptr;
    }
    slab->geometry = geometry;
    slab->memory = memory;
    slab->taken = 0;
    geometry->slabs->spare++;
    slab->next = geometry->slabs->first;
    geometry->slabs->first = slab;
    return slab;
}

// The parts of a page: where their runs start in a slab, their bytes, and those of the parts before them.
template <class Work>
static void each_part(const Geometry* geometry, Work work) {
    for (int32_t i = 0; i < geometry->layers; i++)
        for (int32_t kv_head = 0; kv_head < geometry->layer[i].kv_heads; kv_head++) {
            const Head head = head_of(geometry, i, kv_head);
            const int64_t before = geometry->layer[i].offset + kv_head * (head.key_bytes + head.value_bytes);
            work(head.keys_at, head.key_bytes, before);
            work(head.values_at, head.value_bytes, before + head.key_bytes);
        }
}

void page_read(const Geometry* geometry, const Page* page, uint8_t* to) {
    each_part(geometry, [=](int64_t run, int64_t bytes, int64_t before) { memcpy(to + before, part_of(spot_of(page), run, bytes), (size_t)bytes); });
}

void page_write(const Geometry* geometry, const Page* page, const uint8_t* from) {
    each_part(geometry, [=](int64_t run, int64_t bytes, int64_t before) { memcpy(part_of(spot_of(page), run, bytes), from + before, (size_t)bytes); });
}

void page_copy(const Geometry* geometry, const Page* page, const Page* from) {
    each_part(geometry, [=](int64_t run, int64_t bytes, int64_t) { memcpy(part_of(spot_of(page), run, bytes), part_of(spot_of(from), run, bytes), (size_t)bytes); });
}

Page* page_new(Geometry* geometry) {
    pthread_mutex_lock(&geometry->slabs->lock);
    Slab* slab = geometry->slabs->first;
    while (slab && slab->taken == all_taken(geometry)) slab = slab->next;
    if (!slab) slab = slab_new(geometry);
    Page* page = nullptr;
    if (slab) {
        if (!slab->taken) geometry->slabs->spare--;
        int32_t number = __builtin_ctzll(~slab->taken);
        slab->taken |= 1ull << number;
        page = &slab->page[number];
        *page = {1, number, slab, slab->memory};
    }
    pthread_mutex_unlock(&geometry->slabs->lock);
    // Attention reads whole pages and gives the positions beyond a row's end no weight; what stands there must be finite.
    if (page) each_part(geometry, [=](int64_t run, int64_t bytes, int64_t) { memset(part_of(spot_of(page), run, bytes), 0, (size_t)bytes); });
    return page;
}

void page_release(Page* page) {
    if (__atomic_sub_fetch(&page->owners, 1, __ATOMIC_ACQ_REL)) return;
    Slab* slab = page->slab;
    Slabs* slabs = slab->geometry->slabs;
    pthread_mutex_lock(&slabs->lock);
    slab->taken &= ~(1ull << (page - slab->page));
    const int64_t most = SPARE_BYTES / (slab->geometry->slab_pages * slab->geometry->page_bytes);
    if (!slab->taken && ++slabs->spare > (most > 1 ? most : 1)) {
        Slab** link = &slabs->first;
        while (*link != slab) link = &(*link)->next;
        *link = slab->next;
        slabs->spare--;
        slab_free(slab);
    }
    pthread_mutex_unlock(&slabs->lock);
}

Geometry* tgen_geometry_new(int32_t format, int32_t layers, const int32_t* kv_heads, const int32_t* head_dims) {
    Geometry* geometry = (Geometry*)malloc(sizeof(Geometry));
    CacheLayer* layer = (CacheLayer*)malloc(sizeof(CacheLayer) * (size_t)(layers ? layers : 1));
    Slabs* slabs = (Slabs*)malloc(sizeof(Slabs));
    if (!geometry || !layer || !slabs) {
        free(geometry);
        free(layer);
        free(slabs);
        return nullptr;
    }
    int64_t offset = 0;
    for (int32_t i = 0; i < layers; i++) {
        layer[i] = {kv_heads[i], head_dims[i], offset};
        offset += kv_heads[i] * (key_bytes(format, head_dims[i]) + value_bytes(format, head_dims[i]));
    }
    if (!offset) offset = 64;
    const int64_t pages = SLAB_BYTES / offset;
    pthread_mutex_init(&slabs->lock, nullptr);
    slabs->first = nullptr;
    slabs->spare = 0;
    // Small chunks are shared evenly among threads; llama.cpp's order of sums is kept in large ones.
    const int64_t chunk = format >= HALVES ? CHUNK : CHUNK / 2;
    *geometry = {1, format, layers, offset, pages < 1 ? 1 : pages > MOST_PAGES ? MOST_PAGES : pages, chunk, layer, slabs};
    return geometry;
}

void geometry_hold(Geometry* geometry) { __atomic_add_fetch(&geometry->owners, 1, __ATOMIC_RELAXED); }

void tgen_geometry_free(Geometry* geometry) {
    if (!geometry || __atomic_sub_fetch(&geometry->owners, 1, __ATOMIC_ACQ_REL)) return;
    while (Slab* slab = geometry->slabs->first) {  // no row is left that has a page
        geometry->slabs->first = slab->next;
        slab_free(slab);
    }
    pthread_mutex_destroy(&geometry->slabs->lock);
    free(geometry->slabs);
    free(geometry->layer);
    free(geometry);
}

int64_t tgen_page_bytes(const Geometry* geometry) { return geometry->page_bytes; }

int64_t tgen_cache_bytes(const Geometry* geometry, int64_t pages) {
    int64_t count = 0;
    pthread_mutex_lock(&geometry->slabs->lock);
    for (const Slab* slab = geometry->slabs->first; slab; slab = slab->next, count++)
        pages -= geometry->slab_pages - __builtin_popcountll(slab->taken);
    pthread_mutex_unlock(&geometry->slabs->lock);
    if (pages > 0) count += (pages + geometry->slab_pages - 1) / geometry->slab_pages;
    return count * whole_pages(geometry->slab_pages * geometry->page_bytes);
}
