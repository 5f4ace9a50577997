// Products of the matrices of GGUF files whose blocks have minima or nested scales, and of Q8_0, with vectors that are rounded as llama.cpp
// rounds them. So both programs compute the same sums, except for the order of additions of floats where this file does not keep it.
//
// A panel of 16 rows consists of blocks of 64 or 256 columns, whose sizes `Blocks` and `head_of_block` give. A block of 64 columns begins
// with 2 x 16 scales and 2 x 16 minima in float16. A block of 256 columns begins with 16 factors of scales and 16 factors of minima in
// float16, followed by bytes that they multiply: 16 scales for each 16 or 32 columns, and then 16 minima for each. Then come the integers.
// For each 32 columns, a byte at [quartet][row][4] holds a column of the first 16 in its low half and the one 16 columns later in its high
// half. Further bits follow at [half of 16 columns][row][4], two for each of 4 quartets. Integers of eight bits have the layout of INT8's.
#pragma once

#include "../inputs.h"

namespace TGEN_KERNEL {

#if TGEN_AVX512
constexpr int TILE_OF_BLOCKS = 4;
#elif TGEN_PLAIN
constexpr int TILE_OF_BLOCKS = 1;
#else
constexpr int TILE_OF_BLOCKS = 2;
#endif

// Adds the products of 32 columns: those of the first 16 to `first`, the others to `second`. Both may be the same accumulator.
template <int FORMAT, int N>
INLINE void add_products(const uint8_t* low, const uint8_t* high, const int8_t* const* bytes, Ints* first, Ints* second) {
    constexpr Blocks blocks = blocks_of(FORMAT);
    if (blocks.low == 8) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            Quartets w = weights8(low + i * 64);
            for (int n = 0; n < N; n++) first[n] = dot8(first[n], w, ((const int32_t*)bytes[n])[i]);
        }
        return;
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        Quartets a, b;
        weights4(low + i * 64, &a, &b);
        if (blocks.high) {
            a = with_high(a, high, i);
            b = with_high(b, high + 64, i);
        }
        for (int n = 0; n < N; n++) {
            first[n] = dot4(first[n], a, ((const int32_t*)bytes[n])[i]);
            second[n] = dot4(second[n], b, ((const int32_t*)bytes[n])[i + 4]);
        }
    }
}

// The sum of eight partial sums, in the order in which llama.cpp adds the eight lanes of a register.
INLINE Floats sum_of_lanes(const Floats* lane) {
    return add(add(add(lane[0], lane[4]), add(lane[2], lane[6])), add(add(lane[1], lane[5]), add(lane[3], lane[7])));
}

// Panels with the layout of INT8, for N tokens. Each row has eight partial sums, one for each of the eight quartets of a group of columns.
template <int N>
static void lane_tile(const uint8_t* panel, int64_t columns, const Input& x, int64_t token, float* out, int64_t stride) {
    constexpr int64_t BYTES = LANES * GROUP;
    Floats lane[N][8];
    for (int n = 0; n < N; n++)
        for (int i = 0; i < 8; i++) lane[n][i] = all(0.0f);
    for (int64_t g = 0; g < padded(columns) / GROUP; g++) {
        const uint8_t *pair = panel + g / 2 * (64 + 2 * BYTES), *weights = pair + 64 + g % 2 * BYTES;
        if (N == 1)
            for (int64_t line = 0; line < BYTES; line += 64) __builtin_prefetch(weights + 2048 + line, 0, 2);
        const Floats scale = load_half((const uint16_t*)(pair + g % 2 * 32));
        Floats scales[N];
        for (int n = 0; n < N; n++) scales[n] = mul(scale, all(x.half_scale[(token + n) * (x.stride / GROUP) + g]));
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            Quartets w = weights8(weights + i * 64);
            for (int n = 0; n < N; n++) {
                const int64_t at = (token + n) * (x.stride / 4) + g * 8 + i;
                lane[n][i] = fma(to_floats(dot8(start8(x.quartet[at]), w, ((const int32_t*)x.int8)[at])), scales[n], lane[n][i]);
            }
        }
    }
    for (int n = 0; n < N; n++) store(out + n * stride, sum_of_lanes(lane[n]));
}

// Blocks of 64 columns, for N tokens.
template <int FORMAT, int N>
static void minima_tile(const uint8_t* panel, int64_t columns, const Input& x, int64_t token, float* out, int64_t stride) {
    constexpr int64_t LOW = LANES * GROUP / 2, HIGH = LANES * GROUP * blocks_of(FORMAT).high / 8;
    const int64_t group_stride = x.stride / GROUP;
    Floats total[N];
    for (int n = 0; n < N; n++) total[n] = all(0.0f);
    for (int64_t g = 0; g < padded(columns) / GROUP; g++) {
        const uint8_t *block = panel + g / 2 * bytes_of_block(FORMAT), *low = block + 128 + g % 2 * LOW, *high = block + 128 + 2 * LOW + g % 2 * HIGH;
        const int8_t* bytes[N];
        Ints acc[N];
        for (int n = 0; n < N; n++) {
            bytes[n] = x.int8 + (token + n) * x.stride + g * GROUP;
            acc[n] = integers(0);
        }
        add_products<FORMAT, N>(low, high, bytes, acc, acc);
        Floats scale = load_half((const uint16_t*)(block + g % 2 * 32)), least = load_half((const uint16_t*)(block + 64 + g % 2 * 32));
        for (int n = 0; n < N; n++) {
            int64_t at = (token + n) * group_stride + g;
            total[n] = fma(to_floats(acc[n]), mul(scale, all(x.half_scale[at])), total[n]);
            total[n] = fma(least, all(x.half_sum[at]), total[n]);
        }
    }
    for (int n = 0; n < N; n++) store(out + n * stride, total[n]);
}

// Blocks of 256 columns, for N tokens.
template <int FORMAT, int N>
static void super_tile(const uint8_t* panel, int64_t columns, const Input& x, int64_t token, float* out, int64_t stride) {
    constexpr Blocks blocks = blocks_of(FORMAT);
    constexpr int64_t LOW = LANES * GROUP * blocks.low / 8, HIGH = LANES * GROUP * blocks.high / 8, PARTS = SUPER / blocks.width;
    constexpr bool HALVED = blocks.width == 16;
    const int64_t supers = columns / SUPER, super_stride = supers_of(x.stride);
    Floats total[N], least_total[N];
    for (int n = 0; n < N; n++) total[n] = least_total[n] = all(0.0f);
    for (int64_t s = 0; s < supers; s++, panel += bytes_of_block(FORMAT)) {
        const int8_t *scales = (const int8_t*)panel + 64, *minima = scales + PARTS * LANES;
        const uint8_t *low = panel + head_of_block(FORMAT), *high = low + SUPER / GROUP * LOW;
        Floats scaled[N], lowered[N];
        for (int n = 0; n < N; n++) scaled[n] = lowered[n] = all(0.0f);
        for (int64_t g = 0; g < SUPER / GROUP; g++) {
            if (N == 1)
                for (int64_t line = 0; line < LOW; line += 64) __builtin_prefetch(low + g * LOW + 2048 + line, 0, 2);
            const int8_t* bytes[N];
            const int32_t* sums[N];
            Ints first[N], second[N];
            for (int n = 0; n < N; n++) {
                const int64_t at = (token + n) * super_stride + s;
                bytes[n] = x.super_int8 + at * SUPER + g * GROUP;
                sums[n] = x.super_sum + at * (SUPER / 16) + 2 * g;
                if (HALVED) {
                    first[n] = integers(-blocks.zero * sums[n][0]);
                    second[n] = integers(-blocks.zero * sums[n][1]);
                } else if (blocks.low == 8) {
                    first[n] = start8(sums[n][0] + sums[n][1]);
                } else {
                    first[n] = integers(-blocks.zero * (sums[n][0] + sums[n][1]));
                }
            }
            add_products<FORMAT, N>(low + g * LOW, high + g * HIGH, bytes, first, HALVED ? second : first);
            Floats scale = load_int8(scales + (HALVED ? 2 * g : g) * LANES);
            for (int n = 0; n < N; n++) scaled[n] = fma(to_floats(first[n]), scale, scaled[n]);
            if (HALVED) {
                scale = load_int8(scales + (2 * g + 1) * LANES);
                for (int n = 0; n < N; n++) scaled[n] = fma(to_floats(second[n]), scale, scaled[n]);
            }
            if (blocks.minima) {
                Floats least = load_int8(minima + (HALVED ? 2 * g : g) * LANES);
                for (int n = 0; n < N; n++) lowered[n] = fma(least, all((float)(sums[n][0] + (HALVED ? 0 : sums[n][1]))), lowered[n]);
                if (HALVED) {
                    least = load_int8(minima + (2 * g + 1) * LANES);
                    for (int n = 0; n < N; n++) lowered[n] = fma(least, all((float)sums[n][1]), lowered[n]);
                }
            }
        }
        Floats scale = load_half((const uint16_t*)panel), least = load_half((const uint16_t*)(panel + 32));
        for (int n = 0; n < N; n++) {
            float its = x.super_scale[(token + n) * super_stride + s];
            total[n] = fma(scaled[n], mul(scale, all(its)), total[n]);
            if (blocks.minima) least_total[n] = fma(lowered[n], mul(least, all(its)), least_total[n]);
        }
    }
    for (int n = 0; n < N; n++) store(out + n * stride, blocks.minima ? sub(total[n], least_total[n]) : total[n]);
}

// The same with eight partial sums for each row, as in llama.cpp for Q5_K and Q6_K.
template <int FORMAT, int N>
static void super_lane_tile(const uint8_t* panel, int64_t columns, const Input& x, int64_t token, float* out, int64_t stride) {
    constexpr Blocks blocks = blocks_of(FORMAT);
    constexpr int64_t LOW = LANES * GROUP / 2, HIGH = LANES * GROUP / 4, PARTS = SUPER / blocks.width;
    constexpr bool HALVED = blocks.width == 16;
    const int64_t supers = columns / SUPER, super_stride = supers_of(x.stride);
    Floats total[N][8], least_total[N];
    for (int n = 0; n < N; n++) {
        least_total[n] = all(0.0f);
        for (int i = 0; i < 8; i++) total[n][i] = all(0.0f);
    }
    for (int64_t s = 0; s < supers; s++, panel += bytes_of_block(FORMAT)) {
        const int8_t *scales = (const int8_t*)panel + 64, *minima = scales + PARTS * LANES;
        const uint8_t *low = panel + head_of_block(FORMAT), *high = low + SUPER / GROUP * LOW;
        Floats lane[N][8], lowered[N];
        for (int n = 0; n < N; n++) {
            const int32_t* sums = x.super_sum + ((token + n) * super_stride + s) * (SUPER / 16);
            lowered[n] = all(0.0f);
            for (int i = 0; i < 8; i++) {
                lane[n][i] = all(0.0f);
                if (blocks.minima) {
                    lowered[n] = fma(load_int8(minima + i * LANES), all((float)(sums[2 * i] + sums[2 * i + 1])), lowered[n]);
                    continue;
                }
                for (int half = 2 * i; half < 2 * i + 2; half++)
                    lane[n][i] = fma(load_int8(scales + half * LANES), all((float)(-blocks.zero * sums[half])), lane[n][i]);
            }
        }
        for (int64_t g = 0; g < SUPER / GROUP; g++) {
            if (N == 1)
                for (int64_t line = 0; line < LOW + HIGH; line += 64) __builtin_prefetch(low + g * (LOW + HIGH) + 3072 + line, 0, 2);
            const Floats first = load_int8(scales + (HALVED ? 2 * g : g) * LANES), second = HALVED ? load_int8(scales + (2 * g + 1) * LANES) : first;
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                Quartets a, b;
                weights4(low + g * LOW + i * 64, &a, &b);
                a = with_high(a, high + g * HIGH, i);
                b = with_high(b, high + g * HIGH + 64, i);
                for (int n = 0; n < N; n++) {
                    const int32_t* bytes = (const int32_t*)(x.super_int8 + ((token + n) * super_stride + s) * SUPER + g * GROUP);
                    lane[n][i] = fma(to_floats(dot4(integers(0), a, bytes[i])), first, lane[n][i]);
                    lane[n][i + 4] = fma(to_floats(dot4(integers(0), b, bytes[i + 4])), second, lane[n][i + 4]);
                }
            }
        }
        Floats scale = load_half((const uint16_t*)panel), least = load_half((const uint16_t*)(panel + 32));
        for (int n = 0; n < N; n++) {
            float its = x.super_scale[(token + n) * super_stride + s];
            for (int i = 0; i < 8; i++) total[n][i] = fma(lane[n][i], mul(scale, all(its)), total[n][i]);
            if (blocks.minima) least_total[n] = fma(lowered[n], mul(least, all(its)), least_total[n]);
        }
    }
    for (int n = 0; n < N; n++) {
        Floats sum = sum_of_lanes(total[n]);
        store(out + n * stride, blocks.minima ? sub(sum, least_total[n]) : sum);
    }
}

template <int FORMAT, int N>
static void block_tile(const uint8_t* panel, int64_t columns, const Input& x, int64_t token, float* out, int64_t stride) {
    if (FORMAT == Q8_0) lane_tile<N>(panel, columns, x, token, out, stride);
    else if (FORMAT == Q5_K || FORMAT == Q6_K) super_lane_tile<FORMAT, N>(panel, columns, x, token, out, stride);
    else if (1 << FORMAT & BY_SUPER) super_tile<FORMAT, N>(panel, columns, x, token, out, stride);
    else minima_tile<FORMAT, N>(panel, columns, x, token, out, stride);
}

// Multiplies rows first to last, which are multiples of 16, so that the rows are whole panels. `out` has room for whole panels.
template <int FORMAT>
static void multiply_blocks(const Matrix& m, int64_t first, int64_t last, const Input& x, int64_t tokens, float* out, int64_t stride) {
    constexpr bool IN_LANES = FORMAT == Q8_0 || FORMAT == Q5_K || FORMAT == Q6_K;  // these take many registers
    const int64_t bytes = panel_bytes(FORMAT, m.columns);
    // The tokens are divided into runs whose integers stay in the second-level cache while all panels pass by.
    int64_t room = 393216 / x.stride / 4 * 4;
    if (room < 16) room = 16;
    for (int64_t begin = 0; begin < tokens; begin += room) {
        int64_t end = begin + room < tokens ? begin + room : tokens;
        for (int64_t r = first; r < last; r += LANES) {
            const uint8_t* panel = m.data + r / LANES * bytes;
            float* to = out + r - first;
            int64_t t = begin;
            for (; TILE_OF_BLOCKS >= 4 && !IN_LANES && t + 4 <= end; t += 4) block_tile<FORMAT, 4>(panel, m.columns, x, t, to + t * stride, stride);
            for (; TILE_OF_BLOCKS >= 2 && t + 2 <= end; t += 2) block_tile<FORMAT, 2>(panel, m.columns, x, t, to + t * stride, stride);
            for (; t < end; t++) block_tile<FORMAT, 1>(panel, m.columns, x, t, to + t * stride, stride);
        }
    }
}

// One number of a matrix, for read_row.
static float number_of_block(int32_t format, const uint8_t* panel, int64_t lane, int64_t column) {
    const Blocks blocks = blocks_of(format);
    const int64_t each = columns_of_block(format), at = column % each, group = at / GROUP, inside = at % GROUP, place = lane * 4 + column % 4;
    const uint8_t* block = panel + column / each * bytes_of_block(format);
    const uint8_t *low = block + head_of_block(format), *high = low + each * LANES * blocks.low / 8;
    int value;
    if (blocks.low == 8) {
        value = low[group * LANES * GROUP + inside / 4 * 64 + place];
    } else {
        int byte = low[group * LANES * GROUP / 2 + inside % 16 / 4 * 64 + place];
        value = inside < 16 ? byte & 15 : byte >> 4;
        if (blocks.high) value |= (high[group * LANES * GROUP / 4 + inside / 16 * 64 + place] >> inside % 16 / 4 * 2 & 3) << 4;
    }
    uint16_t bits[2];
    if (1 << format & BY_SUPER) {
        const int8_t *scales = (const int8_t*)block + 64, *minima = scales + SUPER / blocks.width * LANES;
        const int64_t part = at / blocks.width * LANES + lane;
        memcpy(bits, block + lane * 2, 2);
        memcpy(bits + 1, block + 32 + lane * 2, 2);
        float number = half_to_float(bits[0]) * scales[part] * (float)(value - blocks.zero);
        return blocks.minima ? number - half_to_float(bits[1]) * minima[part] : number;
    }
    memcpy(bits, block + group * 32 + lane * 2, 2);
    memcpy(bits + 1, block + 64 + group * 32 + lane * 2, 2);
    return half_to_float(bits[0]) * (float)value + half_to_float(bits[1]);
}

}  // namespace TGEN_KERNEL
