// The size of a packed matrix (pack.h has the layout and fills it), and the memory for large blocks.
#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "entry.h"

int64_t tgen_packed_bytes(int32_t format, int32_t rows, int32_t columns) { return ((int64_t)rows + 15) / 16 * panel_bytes(format, columns); }

uint8_t* tgen_memory_new(int64_t bytes) {
    void* memory = nullptr;
    const int64_t size = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    if (posix_memalign(&memory, (size_t)HUGE_PAGE, (size_t)size)) return nullptr;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    madvise(memory, (size_t)size, MADV_HUGEPAGE);
#endif
    return (uint8_t*)memory;
}

void tgen_memory_free(uint8_t* memory) { free(memory); }
