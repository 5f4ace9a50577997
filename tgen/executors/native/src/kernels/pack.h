// Packs a matrix into panels of 16 rows with 8 or 4 bits a weight; a lane is a row.
//
// A group is 32 columns of one row with one float16 scale. A panel holds pairs of groups; a pair is 2 x 16 scales (64 bytes), then each
// group's weights. With eight bits, weight + 128 is a byte at [quartet of columns][row][4]. With four bits, a byte at [quartet][row][4]
// holds weight + 8 of that quartet in its low half, and that of the fourth quartet after it in its high half. Rows and columns beyond the
// matrix are zero.
#pragma once

#include "lanes.h"
#include "../model.h"

namespace TGEN_KERNEL {

// Scales of 4 bits are tried with these numbers of steps between 0 and the weight of a group that has the largest magnitude. That weight
// gets the negative end of the integers, which is -8 where the positive end is 7. Beyond 8 steps it is cut off, and the others are rounded
// more finely.
static const float TRIED_STEPS[] = {6.5f, 7.0f, 7.25f, 7.5f, 7.75f, 8.0f, 8.25f, 8.5f, 8.75f, 9.0f, 9.5f};

// A scale that float16 and bfloat16 both hold: it is rounded to eight bits. For weights of eight bits it is rounded upwards, so that no
// weight is cut off.
INLINE float storable_scale(float scale, bool upwards) {
    uint32_t bits;
    memcpy(&bits, &scale, 4);
    bits = (bits + (upwards ? 0xffffu : 0x7fffu + ((bits >> 16) & 1))) & 0xffff0000u;
    memcpy(&scale, &bits, 4);
    return scale > 65280.0f ? 65280.0f : scale < -65280.0f ? -65280.0f : scale;
}

// The nearest whole number from `low` to `high`, ties to even. A float of 1.5 * 2^23 has no bits for a fraction, so adding it rounds.
INLINE Floats whole(Floats a, float low, float high) {
    Floats large = all(12582912.0f);
    return sub(add(min(max(a, all(low)), all(high)), large), large);
}

INLINE Floats inverse_or_zero(Floats a) {
    Floats size = magnitude(a), none = all(0.0f);
    return where_positive(size, div(all(1.0f), where_positive(size, a, all(1.0f))), none);
}

// The scales of 16 groups of 8 bits, before they are rounded. The largest magnitude becomes 127.
INLINE Floats scales8(const Floats* columns) {
    Floats top = all(0.0f);
    for (int i = 0; i < GROUP; i++) top = max(top, magnitude(columns[i]));
    return mul(top, all(1.0f / 127.0f));
}

// The scales of 16 groups of 4 bits. In each trial, the weights x are rounded to integers q. The best scale for these is <x, q> / <q, q>,
// and its squared error is |x|^2 - <x, q>^2 / <q, q>. The trial with the least error wins.
INLINE Floats scales4(const Floats* columns) {
    Floats top = all(0.0f), bottom = all(0.0f), none = all(0.0f);
    for (int i = 0; i < GROUP; i++) {
        top = max(top, columns[i]);
        bottom = min(bottom, columns[i]);
    }
    Floats extreme = where_positive(add(top, bottom), top, bottom), best = none, most = none;
    Floats inverse = inverse_or_zero(extreme);
    for (float steps : TRIED_STEPS) {
        Floats per_step = mul(inverse, all(-steps)), xq = none, qq = none;
        for (int i = 0; i < GROUP; i++) {
            Floats q = whole(mul(columns[i], per_step), -8.0f, 7.0f);
            xq = add(xq, mul(columns[i], q));
            qq = add(qq, mul(q, q));
        }
        Floats scale = mul(xq, inverse_or_zero(qq)), gain = mul(scale, xq), better = sub(gain, most);
        best = where_positive(better, scale, best);
        most = max(most, gain);
    }
    return best;
}

INLINE float number_at(int32_t format, const uint8_t* row, int64_t at) {
    uint16_t bits;
    float value;
    if (format == FLOAT32) {
        memcpy(&value, row + 4 * at, 4);
        return value;
    }
    memcpy(&bits, row + 2 * at, 2);
    return format == FLOAT16 ? half_to_float(bits) : bf16_to_float(bits);
}

// Sixteen weights of one row as floats. It reads only the first `count`; the others are 0.
INLINE void read_numbers(int32_t format, const uint8_t* row, int64_t at, int64_t count, float* out) {
    if (count >= LANES) {
        const uint8_t* from = row + at * (format == FLOAT32 ? 4 : 2);
        store(out, format == FLOAT32 ? load((const float*)from) : format == FLOAT16 ? load_half((const uint16_t*)from) : load_bf16((const uint16_t*)from));
        return;
    }
    for (int i = 0; i < LANES; i++) out[i] = i < count ? number_at(format, row, at + i) : 0.0f;
}

template <bool FOUR_BITS>
static void pack_group(const float (*block)[GROUP], uint8_t* scale_place, uint8_t* weights) {
    Floats columns[GROUP];
    for (int i = 0; i < GROUP; i++) {
        float column[LANES];
        for (int r = 0; r < LANES; r++) column[r] = block[r][i];
        columns[i] = load(column);
    }
    float scales[LANES];
    uint16_t halves[LANES];
    store(scales, FOUR_BITS ? scales4(columns) : scales8(columns));
    for (int r = 0; r < LANES; r++) scales[r] = storable_scale(scales[r], !FOUR_BITS);
    store_half(halves, load(scales));
    memcpy(scale_place, halves, sizeof halves);
    Floats inverse = inverse_or_zero(load_half(halves));
    const float low = FOUR_BITS ? -8.0f : -127.0f, high = FOUR_BITS ? 7.0f : 127.0f;
    uint32_t q[GROUP][LANES];
    for (int i = 0; i < GROUP; i++) {
        float rounded[LANES];
        store(rounded, whole(mul(columns[i], inverse), low, high));
        for (int r = 0; r < LANES; r++) q[i][r] = (uint32_t)((int32_t)rounded[r] + (FOUR_BITS ? 8 : 128));
    }
    for (int quartet = 0; quartet < (FOUR_BITS ? 4 : 8); quartet++) {
        uint32_t words[LANES] = {};
        for (int j = 0; j < 4; j++)
            for (int r = 0; r < LANES; r++) {
                int i = quartet * 4 + j;
                words[r] |= (FOUR_BITS ? q[i][r] | q[i + 16][r] << 4 : q[i][r]) << 8 * j;
            }
        memcpy(weights + quartet * 64, words, sizeof words);
    }
}

// Packs rows first to last. `first` is a multiple of 16, and so is `last` unless it is the end of the matrix.
template <bool FOUR_BITS>
static void pack_rows(int32_t source_format, int32_t rows, int32_t columns, const uint8_t* source, uint8_t* packed, int32_t first,
                      int32_t last) {
    const int64_t each = group_bytes(FOUR_BITS ? INT4 : INT8), pair = 64 + 2 * each, groups = ((int64_t)columns + 63) / 64 * 2;
    const int64_t row_bytes = (int64_t)columns * (source_format == FLOAT32 ? 4 : 2);
    for (int64_t row = first; row < last; row += LANES) {
        uint8_t* panel = packed + row / LANES * panel_bytes(FOUR_BITS ? INT4 : INT8, columns);
        for (int64_t g = 0; g < groups; g++) {
            float block[LANES][GROUP] = {};
            for (int r = 0; r < LANES && row + r < rows; r++)
                for (int64_t half = 0; half < GROUP; half += LANES)
                    read_numbers(source_format, source + (row + r) * row_bytes, g * GROUP + half, columns - g * GROUP - half, block[r] + half);
            uint8_t* to = panel + g / 2 * pair;
            pack_group<FOUR_BITS>(block, to + g % 2 * 32, to + 64 + g % 2 * each);
        }
    }
}

void pack_matrix(int32_t format, int32_t source_format, int32_t rows, int32_t columns, const uint8_t* source, uint8_t* packed, int32_t first,
                 int32_t last) {
    (format == INT4 ? pack_rows<true> : pack_rows<false>)(source_format, rows, columns, source, packed, first, last);
}

}  // namespace TGEN_KERNEL
