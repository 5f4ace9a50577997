// Memory for large blocks.
#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "entry.h"

uint8_t* tgen_memory_new(int64_t bytes) {
    void* memory = nullptr;
    const int64_t size = whole_pages(bytes);
    if (posix_memalign(&memory, (size_t)HUGE_PAGE, (size_t)size)) return nullptr;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    madvise(memory, (size_t)size, MADV_HUGEPAGE);
#endif
    return (uint8_t*)memory;
}

void tgen_memory_free(uint8_t* memory) { free(memory); }
