// Pages of the cache lie in slabs of some megabytes, which are in huge memory pages. Attention jumps from page to page, and with small
// memory pages the processor would have to look up an address at each jump. That took a quarter of the time of a step after 4,000
// positions.
#include "pages.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "entry.h"

constexpr int64_t SLAB_BYTES = 4 * HUGE_PAGE;
constexpr int64_t MOST_PAGES = 64;  // pages of a slab, because `taken` has one bit for each

struct Slab {
    Slab* next;
    Geometry* geometry;
    uint8_t* memory;
    uint64_t taken;  // bit i: page i has owners
    Page page[MOST_PAGES];
};

// The slabs that have at least one page in use. The lock guards them, because any thread may free a row.
struct Slabs {
    pthread_mutex_t lock;
    Slab* first;
};

static int64_t pages_of_slab(const Geometry* geometry) {
    int64_t pages = SLAB_BYTES / geometry->page_bytes;
    return pages < 1 ? 1 : pages > MOST_PAGES ? MOST_PAGES : pages;
}

static uint64_t all_taken(const Geometry* geometry) { return ~0ull >> (64 - pages_of_slab(geometry)); }

static Slab* slab_new(Geometry* geometry) {
    Slab* slab = (Slab*)malloc(sizeof(Slab));
    uint8_t* memory = tgen_memory_new(pages_of_slab(geometry) * geometry->page_bytes);
    if (!slab || !memory) {
        free(slab);
        tgen_memory_free(memory);
        return nullptr;
    }
    slab->geometry = geometry;
    slab->memory = memory;
    slab->taken = 0;
    slab->next = geometry->slabs->first;
    geometry->slabs->first = slab;
    return slab;
}

Page* page_new(Geometry* geometry) {
    pthread_mutex_lock(&geometry->slabs->lock);
    Slab* slab = geometry->slabs->first;
    while (slab && slab->taken == all_taken(geometry)) slab = slab->next;
    if (!slab) slab = slab_new(geometry);
    Page* page = nullptr;
    if (slab) {
        int64_t number = __builtin_ctzll(~slab->taken);
        slab->taken |= 1ull << number;
        page = &slab->page[number];
        *page = {1, slab->memory + number * geometry->page_bytes, slab};
    }
    pthread_mutex_unlock(&geometry->slabs->lock);
    // Attention reads whole pages and gives positions beyond a row's end a weight of 0, so the numbers there must be finite.
    if (page) memset(page->data, 0, (size_t)geometry->page_bytes);
    return page;
}

void page_release(Page* page) {
    if (__atomic_sub_fetch(&page->owners, 1, __ATOMIC_ACQ_REL)) return;
    Slab* slab = page->slab;
    Slabs* slabs = slab->geometry->slabs;
    pthread_mutex_lock(&slabs->lock);
    slab->taken &= ~(1ull << (page - slab->page));
    if (!slab->taken) {
        Slab** link = &slabs->first;
        while (*link != slab) link = &(*link)->next;
        *link = slab->next;
        tgen_memory_free(slab->memory);
        free(slab);
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
        offset += kv_heads[i] * head_bytes(format, head_dims[i]);
    }
    pthread_mutex_init(&slabs->lock, nullptr);
    slabs->first = nullptr;
    *geometry = {1, format, layers, offset ? offset : 64, layer, slabs};
    return geometry;
}

void geometry_hold(Geometry* geometry) { __atomic_add_fetch(&geometry->owners, 1, __ATOMIC_RELAXED); }

void tgen_geometry_free(Geometry* geometry) {
    if (!geometry || __atomic_sub_fetch(&geometry->owners, 1, __ATOMIC_ACQ_REL)) return;
    pthread_mutex_destroy(&geometry->slabs->lock);
    free(geometry->slabs);
    free(geometry->layer);
    free(geometry);
}

int64_t tgen_page_bytes(const Geometry* geometry) { return geometry->page_bytes; }
