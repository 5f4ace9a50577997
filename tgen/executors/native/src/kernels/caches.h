// The layout of the keys and values of one head in a page, for each number format of a cache.
//
// A cache writes one position (`put`), multiplies queries by the 16 keys of a page (`score`), scales the weights of a page (`scaled`), brings
// those of a chunk into the form in which it multiplies by them (`set_weights`), and adds weighted values of a page to sums (`weigh`). What
// stands at `ahead` is fetched meanwhile.
#pragma once

#include "lanes.h"
#include "../model.h"
#include "multiply.h"

namespace TGEN_KERNEL {

INLINE int64_t lanes_of(int64_t numbers) { return (numbers + LANES - 1) & ~(int64_t)(LANES - 1); }

INLINE void fetch(const uint8_t* p, int64_t bytes) {
    for (int64_t line = 0; line < bytes; line += 64) __builtin_prefetch(p + line, 0, 2);
}

// One of several equal parts of some lines.
INLINE void fetch_part(const uint8_t* p, int64_t first, int64_t last, int64_t part, int64_t parts) {
    const int64_t lines = last - first;
    fetch(p + (first + lines * part / parts) * 64, (lines * (part + 1) / parts - lines * part / parts) * 64);
}

// Floating-point numbers: keys [dim][16] and then values [16][dim].
template <class Type>
struct FloatCache : Type {
    typedef typename Type::Number Number;
    static constexpr int64_t BYTES = sizeof(Number);
    static constexpr bool IN_LANES = false;  // whether sums are made in the order of llama.cpp
    static constexpr int EARLY = 4;  // a fourth of the next keys is fetched beside the exponentials

    struct Weights {
        const float* numbers;
    };

    static void put(uint8_t* key_part, uint8_t* value_part, int64_t dim, int64_t slot, const float* key, const float* value) {
        Number *keys = (Number*)key_part, *values = (Number*)value_part + slot * dim;
        for (int64_t d = 0; d < dim; d += LANES) {
            Number some[LANES], others[LANES];
            Type::set(some, load(key + d));
            Type::set(others, load(value + d));
            int64_t left = dim - d < LANES ? dim - d : LANES;
            for (int64_t i = 0; i < left; i++) keys[(d + i) * LANES + slot] = some[i];
            memcpy(values + d, others, (size_t)(left * BYTES));
        }
    }

    template <int N>
    INLINE void score(const uint8_t* keys, const uint8_t* ahead, int64_t dim, const Input& queries, Floats* scores) {
        Floats even[N], odd[N];
        for (int n = 0; n < N; n++) even[n] = odd[n] = all(0.0f);
        int64_t d = 0;
        for (; d + 2 <= dim; d += 2) {
            fetch(ahead + d * LANES * BYTES, 2 * LANES * BYTES);
            Floats a = Type::get(keys, d * LANES), b = Type::get(keys, (d + 1) * LANES);
            for (int n = 0; n < N; n++) {
                even[n] = fma(all(queries.floats[n * queries.stride + d]), a, even[n]);
                odd[n] = fma(all(queries.floats[n * queries.stride + d + 1]), b, odd[n]);
            }
        }
        for (int n = 0; n < N; n++) {
            if (d < dim) even[n] = fma(all(queries.floats[n * queries.stride + d]), Type::get(keys, d * LANES), even[n]);
            scores[n] = add(even[n], odd[n]);
        }
    }

    INLINE Floats scaled(Floats numbers, const uint8_t*, int64_t) { return numbers; }

    INLINE void set_weights(Weights* weights, float* numbers, int64_t) { weights->numbers = numbers; }

    template <int N, int R>
    INLINE void weigh(const uint8_t* values, const uint8_t* ahead, int64_t lines, int64_t dim, int64_t at, int64_t positions,
                      const Weights* weights, int64_t first, Floats (*sums)[R]) {
        for (int64_t p = 0; p < positions; p++) {
            fetch_part(ahead, 0, lines, p, LANES);
            for (int v = 0; v < R; v++) {
                Floats value = Type::get(values, p * dim + at + v * LANES);
                for (int n = 0; n < N; n++) sums[n][v] = fma(all(weights[n].numbers[first + p]), value, sums[n][v]);
            }
        }
    }
};

struct Float32Numbers {
    typedef float Number;
    INLINE Floats get(const uint8_t* p, int64_t at) { return load((const float*)p + at); }
    INLINE void set(float* p, Floats x) { store(p, x); }
};

struct Float16Numbers {
    typedef uint16_t Number;
    INLINE Floats get(const uint8_t* p, int64_t at) { return load_half((const uint16_t*)p + at); }
    INLINE void set(uint16_t* p, Floats x) { store_half(p, x); }
};

// Float16 in llama.cpp's arithmetic. Each weight is divided by the total and rounded to float16; step.h also rounds the queries. Sums are
// added in llama.cpp's order: each score has 64 partial sums, which are added as in `weigh_in_lanes`. PAIRED says that the file orders the
// numbers of a head so that rotated pairs are neighbours; in this cache, the second number of a pair is half a head after the first.
template <bool PAIRED>
struct HalfCache : FloatCache<Float16Numbers> {
    static constexpr bool IN_LANES = true;

    template <int N>
    INLINE void score(const uint8_t* keys, const uint8_t* ahead, int64_t dim, const Input& queries, Floats* scores) {
        const int64_t whole = dim / 64 * 64;
        Floats lane[N][LANES];
        for (int64_t i = 0; i < LANES; i++) {
            Floats part[N][4];
            for (int n = 0; n < N; n++)
                for (int a = 0; a < 4; a++) part[n][a] = all(0.0f);
            for (int64_t d = 0; d < whole; d += 64)
                for (int64_t a = 0; a < 4; a++) {
                    const int64_t in_file = d + a * 16 + i, at = PAIRED ? in_file / 2 + in_file % 2 * (dim / 2) : in_file;
                    if (a % 2 == 0) fetch(ahead + (i * whole / 32 + d / 32 + a / 2) * 64, 64);
                    Floats key = get(keys, at * LANES);
                    for (int n = 0; n < N; n++) part[n][a] = fma(key, all(queries.floats[n * queries.stride + at]), part[n][a]);
                }
            for (int n = 0; n < N; n++) lane[n][i] = add(add(part[n][0], part[n][2]), add(part[n][1], part[n][3]));
        }
        for (int n = 0; n < N; n++) {
            for (int width = LANES / 2; width; width /= 2)
                for (int i = 0; i < width; i++) lane[n][i] = add(lane[n][i], lane[n][i + width]);
            for (int64_t d = whole; d < dim; d++) {
                const int64_t at = PAIRED ? d / 2 + d % 2 * (dim / 2) : d;
                lane[n][0] = fma(get(keys, at * LANES), all(queries.floats[n * queries.stride + at]), lane[n][0]);
            }
            scores[n] = lane[n][0];
        }
    }
};

// Integers, for quantised weights. The keys are a panel as weights are: a row of it for each position. After them stands a scale for each
// position's values, [16]. The values stand as [dim / 16][4][16][4]: four positions of a number side by side.
struct Int8Cache {
    static constexpr bool IN_LANES = false;
    static constexpr int EARLY = 2;

    struct alignas(64) Weights {
        int8_t multiples[CHUNK];
        float scale[CHUNK / LANES];  // the scale of the multiples of each page
    };

    static void put(uint8_t* keys, uint8_t* values, int64_t dim, int64_t slot, const float* key, const float* value) {
        for (int64_t g = 0; g < padded(dim) / GROUP; g++) {
            uint8_t* pair = keys + g / 2 * (64 + 2 * group_bytes(INT8));
            int8_t bytes[GROUP];
            uint16_t half[LANES];
            store_half(half, all(quantise(key + g * GROUP, GROUP, bytes, true)));
            memcpy(pair + g % 2 * 32 + slot * 2, half, 2);
            for (int64_t i = 0; i < GROUP; i++) pair[64 + g % 2 * group_bytes(INT8) + i / 4 * 64 + slot * 4 + i % 4] = (uint8_t)(bytes[i] + 128);
        }
        int8_t bytes[1024];
        ((float*)(keys + panel_bytes(INT8, dim)))[slot] = quantise(value, lanes_of(dim), bytes, false);
        for (int64_t d = 0; d < dim; d++)
            values[d / LANES * 256 + slot / 4 * 64 + d % LANES * 4 + slot % 4] = (uint8_t)(bytes[d] + 128);
    }

    // Rounds the numbers to multiples, -127 to 127, of a scale, and returns the scale. With `half`, the scale is rounded to float16 first.
    // If a number is NaN or infinite, the scale is NaN.
    static float quantise(const float* numbers, int64_t count, int8_t* bytes, bool half) {
        Floats highest = all(0.0f), strange = all(0.0f);
        for (int64_t i = 0; i < count; i += LANES) {
            highest = max(highest, magnitude(load(numbers + i)));
            strange = fma(load(numbers + i), all(0.0f), strange);
        }
        float scale = largest(highest) / 127.0f;
        if (half) {
            uint16_t rounded[LANES];
            store_half(rounded, all(scale));
            scale = half_to_float(rounded[0]);
        }
        bool fine = sum(strange) == 0 && scale <= FLT_MAX;
        Floats inverse = all(fine && scale > 1e-32f ? 1.0f / scale : 0.0f);
        for (int64_t i = 0; i < count; i += LANES) {
            Floats multiple = mul(load(numbers + i), inverse);
            store_int8(bytes + i, min(max(multiple, all(-127.0f)), all(127.0f)));
        }
        return fine ? scale : NAN;
    }

    template <int N>
    INLINE void score(const uint8_t* keys, const uint8_t* ahead, int64_t dim, const Input& queries, Floats* scores) {
        panel_sums<false, N, true>(keys, padded(dim) / GROUP, queries, 0, ahead, scores);
    }

    INLINE Floats scaled(Floats numbers, const uint8_t* keys, int64_t dim) {
        return mul(numbers, load((const float*)(keys + panel_bytes(INT8, dim))));
    }

    // Weights and scales are not negative. Whole multiples of a page's largest product / 127; the scale is NaN if a product is. Numbers up to
    // the next four pages' end are overwritten.
    INLINE void set_weights(Weights* weights, float* numbers, int64_t count) {
        alignas(64) float inverse[CHUNK / LANES];
        for (int64_t page = 0; page * LANES < count; page += 4) {
            Floats four[4];
            for (int64_t i = 0; i < 4; i++) {
                float* some = numbers + (page + i) * LANES;
                if ((page + i) * LANES >= count) store(some, all(0.0f));
                four[i] = load(some);
            }
            largest4_or_nan(four, weights->scale + page);
        }
        for (int64_t page = 0; page * LANES < count; page += LANES) {
            Floats top = load(weights->scale + page);
            store(inverse + page, where_positive(sub(top, all(1e-30f)), div(all(127.0f), top), all(0.0f)));
            store(weights->scale + page, mul(top, all(1.0f / 127.0f)));
        }
        for (int64_t page = 0; page * LANES < count; page++)
            store_int8(weights->multiples + page * LANES, mul(load(numbers + page * LANES), all(inverse[page])));
    }

    template <int N, int R>
    INLINE void weigh(const uint8_t* values, const uint8_t* ahead, int64_t lines, int64_t, int64_t at, int64_t, const Weights* weights,
                      int64_t first, Floats (*sums)[R]) {
        fetch(ahead, lines * 64);
        Ints products[N][R];
        for (int n = 0; n < N; n++)
            for (int v = 0; v < R; v++) products[n][v] = start8(0);
        for (int i = 0; i < 4; i++)
            for (int v = 0; v < R; v++) {
                Quartets quartets = values8(values + (at + v * LANES) * LANES + i * 64);
                for (int n = 0; n < N; n++)
                    products[n][v] = weigh8(products[n][v], quartets, ((const int32_t*)(weights[n].multiples + first))[i]);
            }
        for (int n = 0; n < N; n++)
            for (int v = 0; v < R; v++) sums[n][v] = fma(to_floats(products[n][v]), all(weights[n].scale[first / LANES]), sums[n][v]);
    }
};

}  // namespace TGEN_KERNEL
