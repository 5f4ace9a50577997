// The vectors that matrices multiply, in the rounded forms that the formats of matrices read.
#pragma once

#include "lanes.h"
#include "../model.h"

namespace TGEN_KERNEL {

// The vectors of some tokens in every form that a matrix may read. A row has `stride` numbers, a multiple of 64, and zeros beyond the
// width.
struct Input {
    int64_t stride;
    float* floats;     // [tokens][stride]
    uint16_t* bf16;    // [tokens][stride]
    float* halves;     // [tokens][stride] the floats rounded to float16
    int8_t* int8;      // [tokens][stride]
    float* scale;      // [tokens][stride / 32] the scale of each group of int8
    int32_t* sum;      // [tokens][stride / 32] the sum of the group's int8
    // For the matrices of GGUF files: for each group, the scale, and the product of scale and sum, both rounded to float16. The three
    // fields with `super` are integers with one scale for each 256, scales [tokens][stride / 256, rounded up], and sums of each 16
    // integers.
    float *half_scale, *half_sum;
    int32_t* quartet;  // [tokens][stride / 4] the sum of each 4 of int8
    int8_t* super_int8;
    float* super_scale;
    int32_t* super_sum;
};

// The formats that read `bf16`. Without instructions for it, they read the floats.
#if TGEN_AVX512
constexpr int32_t ROUNDED = 1 << BFLOAT16;
#else
constexpr int32_t ROUNDED = 0;
#endif

INLINE int64_t padded(int64_t columns) { return (columns + 63) & ~(int64_t)63; }
INLINE int64_t supers_of(int64_t columns) { return (columns + SUPER - 1) / SUPER; }

// Rounds each 32 numbers to multiples of their largest magnitude / 127, to the nearest, ties to even. llama.cpp gets the same integers, and
// then rounds the scale for matrices without minima (its Q8_0), and also the product with the sum for matrices with minima (Q8_1).
static void round_groups(const Input& input, int64_t t, const float* floats, int64_t used, int32_t formats) {
    int8_t* bytes = input.int8 + t * input.stride;
    const int64_t at = t * (input.stride / GROUP);
    for (int64_t g = 0; g < used / GROUP; g++) {
        Floats a = load(floats + g * GROUP), b = load(floats + g * GROUP + 16);
        float top = largest(max(magnitude(a), magnitude(b)));
        Floats inverse = all(top > 1e-30f && top <= FLT_MAX ? 127.0f / top : 0.0f);  // finite
        store_int8(bytes + g * GROUP, mul(a, inverse));
        store_int8(bytes + g * GROUP + 16, mul(b, inverse));
        int32_t total = 0;
        for (int i = 0; i < GROUP; i++) total += bytes[g * GROUP + i];
        input.scale[at + g] = top / 127.0f;
        input.sum[at + g] = total;
        if (formats & (ROUND_SCALES | ROUND_SUMS)) input.half_scale[at + g] = half_of(top / 127.0f);
        if (formats >> Q8_0 & 1)
            for (int i = 0; i < GROUP / 4; i++) {
                const int8_t* four = bytes + g * GROUP + 4 * i;
                input.quartet[t * (input.stride / 4) + g * (GROUP / 4) + i] = four[0] + four[1] + four[2] + four[3];
            }
        if (formats & ROUND_SUMS) input.half_sum[at + g] = half_of(top / 127.0f * (float)total);
    }
}

// Rounds each 256 numbers to multiples of m / -127, where m is the number with the largest magnitude, as llama.cpp does for its K types
// (Q8_K).
static void round_supers(const Input& input, int64_t t, const float* floats, int64_t width) {
    const int64_t supers = supers_of(input.stride);
    for (int64_t s = 0; s < width / SUPER; s++) {
        const float* some = floats + s * SUPER;
        int8_t* bytes = input.super_int8 + (t * supers + s) * SUPER;
        int32_t* sums = input.super_sum + (t * supers + s) * (SUPER / 16);
        Floats high = all(0.0f), low = all(0.0f);
        for (int64_t i = 0; i < SUPER; i += LANES) {
            high = max(high, load(some + i));
            low = max(low, sub(all(0.0f), load(some + i)));
        }
        float up = largest(high), down = largest(low), extreme = up > down ? up : -down;
        if (up == down && up > 0)  // if both signs have the largest magnitude, the first number counts
            for (int64_t i = 0; i < SUPER; i++)
                if (fabsf(some[i]) == up) {
                    extreme = some[i];
                    break;
                }
        float inverse = extreme != 0 && fabsf(extreme) > 1e-30f && fabsf(extreme) <= FLT_MAX ? -127.0f / extreme : 0.0f;
        for (int64_t i = 0; i < SUPER; i += LANES) store_int8(bytes + i, mul(load(some + i), all(inverse)));
        for (int64_t j = 0; j < SUPER / 16; j++) {
            sums[j] = 0;
            for (int64_t i = 0; i < 16; i++) sums[j] += bytes[j * 16 + i];
        }
        input.super_scale[t * supers + s] = inverse != 0 ? 1.0f / inverse : extreme / -127.0f;
    }
}

// Converts token t's vector [width] to the forms that `formats` asks for.
static void prepare(const Input& input, int64_t t, const float* vector, int64_t width, int32_t formats) {
    float* floats = input.floats + t * input.stride;
    int64_t used = padded(width);
    if (floats != vector) memcpy(floats, vector, (size_t)width * 4);
    memset(floats + width, 0, (size_t)(used - width) * 4);
#if TGEN_AVX512
    if (formats >> BFLOAT16 & 1) {
        uint16_t* bf16 = input.bf16 + t * input.stride;
        for (int64_t k = 0; k < used; k += 32)
            _mm512_storeu_si512(bf16 + k, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(floats + k + 16), _mm512_loadu_ps(floats + k)));
    }
#endif
    if (formats >> F16 & 1)
        for (int64_t k = 0; k < used; k += LANES) store(input.halves + t * input.stride + k, half_of(load(floats + k)));
    if (formats & BY_GROUP) round_groups(input, t, floats, used, formats);
    if (formats & BY_SUPER) round_supers(input, t, floats, width);
    if (formats & (BY_GROUP | BY_SUPER)) {
        Floats strange = all(0.0f);  // stays 0 unless a number is infinite or NaN
        for (int64_t k = 0; k < used; k += LANES) strange = fma(load(floats + k), all(0.0f), strange);
        // Integers cannot hold NaN, so a scale becomes NaN: the result must be NaN, too, so that it is noticed.
        if (sum(strange) != 0) {
            if (formats & BY_GROUP) input.scale[t * (input.stride / GROUP)] = NAN;
            if (formats & (ROUND_SCALES | ROUND_SUMS)) input.half_scale[t * (input.stride / GROUP)] = NAN;
            if (formats & BY_SUPER) input.super_scale[t * supers_of(input.stride)] = NAN;
        }
    }
}

}  // namespace TGEN_KERNEL
