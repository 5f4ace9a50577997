// The memory of the caches' pages.
#pragma once

#include "model.h"

// A page for sixteen positions, with one owner and all zero; null if memory ran out.
Page* page_new(Geometry*);
// Removes one owner of a page; without owners, the page is free.
void page_release(Page*);
// Copies of all that a page holds, head by head its keys and then its values: `page_bytes` bytes outside, or another page.
void page_read(const Geometry*, const Page*, uint8_t* to);
void page_write(const Geometry*, const Page*, const uint8_t* from);
void page_copy(const Geometry*, const Page*, const Page* from);

void geometry_hold(Geometry*);
