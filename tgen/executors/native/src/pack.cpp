// Packs a matrix into panels of 16 rows with 8 or 4 bits a weight, and finds the memory for it.
//
// A group is 32 columns of one row with one float16 scale. A panel holds pairs of groups; a pair is 2 x 16 scales (64 bytes), then each
// group's weights. Eight bits: weight + 128 at [quartet of columns][row][4]. Four bits: weight + 8; a byte at [quartet][row][4] holds a
// weight of that quartet low and of the fourth quartet after it high. Rows and columns beyond the matrix are zero.
#include <math.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#define TGEN_PLAIN 1
#define TGEN_KERNEL packing
#include "entry.h"
#include "lanes.h"

using namespace packing;

int64_t tgen_packed_bytes(int32_t format, int32_t rows, int32_t columns) { return ((int64_t)rows + 15) / 16 * panel_bytes(format, columns); }

static float read_number(int32_t format, const uint8_t* data, int64_t at) {
    uint16_t bits;
    float value;
    if (format == FLOAT32) {
        memcpy(&value, data + 4 * at, 4);
        return value;
    }
    memcpy(&bits, data + 2 * at, 2);
    return format == FLOAT16 ? half_to_float(bits) : bf16_to_float(bits);
}

// The sum of squared errors of a group under a scale, and its rounded weights.
static float rounded(const float* group, float scale, int low, int high, int* out) {
    float error = 0, inverse = scale != 0 ? 1.0f / scale : 0.0f;  // a scale of four bits may be negative
    for (int i = 0; i < GROUP; i++) {
        int q = (int)rintf(group[i] * inverse);
        q = q < low ? low : q > high ? high : q;
        out[i] = q;
        float away = group[i] - scale * (float)q;
        error += away * away;
    }
    return error;
}

// The float16 scale of a group: of its largest magnitude at 8 bits; at 4 bits the one of 33 scales with the least error, of either sign,
// because -8 reaches one step further than 7.
static uint16_t best_scale(const float* group, int32_t format, int* out) {
    float top = 0, extreme = 0;
    for (int i = 0; i < GROUP; i++)
        if (fabsf(group[i]) > top) top = fabsf(group[i]), extreme = group[i];
    if (format == INT8) {
        uint16_t bits = float_to_half(top / 127.0f);
        rounded(group, half_to_float(bits), -127, 127, out);
        return bits;
    }
    uint16_t best = 0;
    float least = INFINITY;
    int candidate[GROUP];
    memset(out, 0, sizeof candidate);
    for (int step = 0; step <= 32 && top > 0; step++) {
        uint16_t bits = float_to_half(-extreme / (6.0f + 0.1f * (float)step));
        float error = rounded(group, half_to_float(bits), -8, 7, candidate);
        if (error < least) {
            least = error;
            best = bits;
            memcpy(out, candidate, sizeof candidate);
        }
    }
    return best;
}

void tgen_pack(int32_t format, int32_t source_format, int32_t rows, int32_t columns, const uint8_t* source, uint8_t* packed, int32_t first,
               int32_t last) {
    const int64_t panel = panel_bytes(format, columns), each = group_bytes(format), pair = 64 + 2 * each;
    int64_t groups = ((int64_t)columns + 63) / 64 * 2;
    for (int32_t row = first; row < (last + 15) / 16 * 16; row++) {
        for (int64_t g = 0; g < groups; g++) {
            float group[GROUP] = {};
            int weights[GROUP] = {};
            for (int i = 0; i < GROUP; i++)
                if (row < rows && g * GROUP + i < columns) group[i] = read_number(source_format, source, (int64_t)row * columns + g * GROUP + i);
            uint16_t scale = best_scale(group, format, weights);
            uint8_t* to = packed + row / 16 * panel + g / 2 * pair;
            memcpy(to + g % 2 * 32 + row % 16 * 2, &scale, 2);
            to += 64 + g % 2 * each + row % 16 * 4;
            for (int i = 0; i < GROUP; i++) {
                int quartet = i / 4;
                if (format == INT8) {
                    to[quartet * 64 + i % 4] = (uint8_t)(weights[i] + 128);
                } else {
                    uint8_t* byte = to + quartet % 4 * 64 + i % 4;
                    *byte = quartet < 4 ? (uint8_t)(weights[i] + 8) : (uint8_t)(*byte | (weights[i] + 8) << 4);
                }
            }
        }
    }
}

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
