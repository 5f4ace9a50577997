// Rows and their pages. A copy of a row shares its pages, so beams and common prefixes take no further memory until they differ.
#include <stdlib.h>
#include <string.h>

#include "entry.h"
#include "pages.h"

Row* tgen_row_new(Geometry* geometry, Row* source) {
    Row* row = (Row*)calloc(1, sizeof(Row));
    if (!row) return nullptr;
    row->geometry = geometry;
    geometry_hold(geometry);
    row->owners = 1;
    row->source = source;
    if (source) __atomic_add_fetch(&source->owners, 1, __ATOMIC_RELAXED);
    return row;
}

void tgen_row_free(Row* row) {
    if (!row || __atomic_sub_fetch(&row->owners, 1, __ATOMIC_ACQ_REL)) return;
    for (int32_t i = 0; i < row->pages; i++) page_release(row->page[i]);
    tgen_row_free(row->source);
    tgen_geometry_free(row->geometry);
    free(row->page);
    free(row->spot);
    free(row);
}

static void put_page(Row* row, int32_t number, Page* page) {
    row->page[number] = page;
    row->spot[number] = spot_of(page);
}

static int32_t pages_for(int32_t positions) { return (int32_t)((positions + LANES - 1) / LANES); }

// Makes room for `pages` pointers to pages. Returns 1 if memory runs out.
static int make_room(Row* row, int32_t pages) {
    if (pages <= row->capacity) return 0;
    int32_t capacity = pages + pages / 4 + 4;
    Page** larger = (Page**)realloc(row->page, sizeof(Page*) * (size_t)capacity);
    if (!larger) return 1;
    row->page = larger;
    Spot* more = (Spot*)realloc(row->spot, sizeof(Spot) * (size_t)capacity);
    if (!more) return 1;
    row->spot = more;
    row->capacity = capacity;
    return 0;
}

Row* tgen_row_copy(const Row* row) {
    Row* copy = tgen_row_new(row->geometry, row->source);
    // Pages beyond the row's end, which a run that failed may have left, are not shared: both rows would write to them.
    int32_t pages = pages_for(row->length);
    if (!copy || make_room(copy, pages)) {
        tgen_row_free(copy);
        return nullptr;
    }
    for (int32_t i = 0; i < pages; i++) {
        __atomic_add_fetch(&row->page[i]->owners, 1, __ATOMIC_RELAXED);
        put_page(copy, i, row->page[i]);
    }
    copy->pages = pages;
    copy->length = row->length;
    return copy;
}

void tgen_row_truncate(Row* row, int32_t length) {
    if (length < 0) length = 0;
    if (length < row->length) row->length = length;
    while (row->pages > pages_for(row->length)) page_release(row->page[--row->pages]);
}

int32_t tgen_row_length(const Row* row) { return row->length; }

void tgen_row_grow(Row* row, int32_t count) { row->length += count; }

void tgen_row_read_page(const Row* row, int32_t number, uint8_t* to) { page_read(row->geometry, row->page[number], to); }

void tgen_row_write_page(Row* row, int32_t number, const uint8_t* from) { page_write(row->geometry, row->page[number], from); }

// Makes sure that the row has pages for `count` more positions. If another row shares the page of the first of them, this row gets a copy
// of that page, because the positions will be written. Returns 1 if memory runs out.
int tgen_row_reserve(Row* row, int32_t count) {
    if (count > INT32_MAX - LANES - row->length) return 1;
    int32_t pages = pages_for(row->length + count);
    if (make_room(row, pages)) return 1;
    int32_t last = row->length / LANES;
    if (last < row->pages && __atomic_load_n(&row->page[last]->owners, __ATOMIC_ACQUIRE) > 1) {
        Page* own = page_new(row->geometry);
        if (!own) return 1;
        page_copy(row->geometry, own, row->page[last]);
        page_release(row->page[last]);
        put_page(row, last, own);
    }
    while (row->pages < pages) {
        Page* page = page_new(row->geometry);
        if (!page) return 1;
        put_page(row, row->pages++, page);
    }
    return 0;
}
