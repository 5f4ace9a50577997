// The memory of the caches' pages.
#pragma once

#include "model.h"

// A page for sixteen positions, with one owner and all zero; null if memory ran out.
Page* page_new(Geometry*);
// Removes one owner of a page; without owners, the page is free.
void page_release(Page*);

void geometry_hold(Geometry*);
