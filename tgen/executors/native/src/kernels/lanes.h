// Sixteen float lanes, sixteen int32 lanes and eight double lanes on each instruction set, with one set of names.
//
// All files that include this one are written once, for sixteen lanes: one register on AVX-512, two on AVX2, four on NEON, an array
// otherwise. Each kernel file defines one of TGEN_AVX512, TGEN_AVX2, TGEN_NEON or TGEN_PLAIN, and TGEN_KERNEL, the namespace of its copy.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <float.h>
#include <math.h>
#include <string.h>
#if TGEN_AVX512 || TGEN_AVX2
#include <immintrin.h>
#elif TGEN_NEON
#include <arm_neon.h>
#endif

#define INLINE static inline __attribute__((always_inline))

namespace TGEN_KERNEL {

// uint16_t holds float16 and bfloat16 here, so the compiler needs no types for them.
INLINE float bf16_to_float(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

#if TGEN_AVX512

struct Floats { __m512 v; };
struct Ints { __m512i v; };

INLINE Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
INLINE void store(float* p, Floats a) { _mm512_storeu_ps(p, a.v); }
INLINE Floats all(float x) { return {_mm512_set1_ps(x)}; }
INLINE Floats add(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
INLINE Floats sub(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
INLINE Floats mul(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
INLINE Floats div(Floats a, Floats b) { return {_mm512_div_ps(a.v, b.v)}; }
INLINE Floats fma(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
INLINE Floats max(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
INLINE Floats min(Floats a, Floats b) { return {_mm512_min_ps(a.v, b.v)}; }
INLINE Floats magnitude(Floats a) { return {_mm512_abs_ps(a.v)}; }
INLINE Floats nearest(Floats a) { return {_mm512_roundscale_ps(a.v, 0)}; }
// a where x > 0, b elsewhere
INLINE Floats where_positive(Floats x, Floats a, Floats b) {
    return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.v, _mm512_setzero_ps(), _CMP_GT_OQ), b.v, a.v)};
}
// 2^n for whole numbers n from -126 to 127
INLINE Floats power_of_two(Floats n) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127)), 23))};
}
INLINE float sum(Floats a) { return _mm512_reduce_add_ps(a.v); }
INLINE float largest(Floats a) { return _mm512_reduce_max_ps(a.v); }
// The largest of numbers that are not negative, or NaN if one of them is NaN. The bits of such numbers have the order of integers.
INLINE float largest_or_nan(Floats a) {
    uint32_t bits = _mm512_reduce_max_epu32(_mm512_castps_si512(a.v));
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
// The same for each of four registers.
INLINE void largest4_or_nan(const Floats* a, float* out) {
    const __m512i one = _mm512_castps_si512(a[0].v), two = _mm512_castps_si512(a[1].v);
    const __m512i three = _mm512_castps_si512(a[2].v), four = _mm512_castps_si512(a[3].v);
    const __m512i low = _mm512_max_epu32(_mm512_unpacklo_epi32(one, two), _mm512_unpackhi_epi32(one, two));
    const __m512i high = _mm512_max_epu32(_mm512_unpacklo_epi32(three, four), _mm512_unpackhi_epi32(three, four));
    const __m512i each = _mm512_max_epu32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
    const __m256i half = _mm256_max_epu32(_mm512_castsi512_si256(each), _mm512_extracti64x4_epi64(each, 1));
    _mm_storeu_si128((__m128i*)out, _mm_max_epu32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
}
INLINE Floats load_half(const uint16_t* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))}; }
INLINE void store_half(uint16_t* p, Floats a) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(a.v, 0)); }
INLINE Floats load_bf16(const uint16_t* p) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16))};
}
INLINE void store_int8(int8_t* p, Floats a) { _mm_storeu_si128((__m128i*)p, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(a.v))); }
INLINE float half_to_float(uint16_t bits) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits))); }

// The sums of the lanes of four registers. The order of additions is the same in each of them.
INLINE void sum4(const Floats* a, float* out) {
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a[0].v, a[1].v), _mm512_unpackhi_ps(a[0].v, a[1].v));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(a[2].v, a[3].v), _mm512_unpackhi_ps(a[2].v, a[3].v));
    __m512d ab2 = _mm512_castps_pd(ab), cd2 = _mm512_castps_pd(cd);
    __m512 all4 = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab2, cd2)), _mm512_castpd_ps(_mm512_unpackhi_pd(ab2, cd2)));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all4), _mm512_extractf32x8_ps(all4, 1));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

// Products of 16 rows of four weights with four int8 activations, summed into int32. Stored weights are unsigned, so an accumulator starts
// with the negative of what their offset adds: 128, or less for `dot4`. `dot4` takes weights up to 63.
INLINE Ints integers(int32_t x) { return {_mm512_set1_epi32(x)}; }
INLINE Ints start8(int32_t sum) { return integers(-128 * sum); }
struct Quartets { __m512i v; };
INLINE Quartets weights8(const uint8_t* p) { return {_mm512_load_si512(p)}; }
INLINE void weights4(const uint8_t* p, Quartets* low, Quartets* high) {
    const __m512i mask = _mm512_set1_epi8(15), packed = _mm512_load_si512(p);
    low->v = _mm512_and_si512(packed, mask);
    high->v = _mm512_and_si512(_mm512_srli_epi16(packed, 4), mask);
}
// Adds the two high bits of weights to their four low bits. A byte at p holds the pairs of high bits of four quartets; `place` is the
// quartet.
INLINE Quartets with_high(Quartets w, const uint8_t* p, int place) {
    __m512i bits = _mm512_load_si512(p);
    bits = place < 2 ? _mm512_slli_epi16(bits, 4 - 2 * place) : _mm512_srli_epi16(bits, 2 * place - 4);
    return {_mm512_or_si512(w.v, _mm512_and_si512(bits, _mm512_set1_epi8(0x30)))};
}
INLINE Floats load_int8(const int8_t* p) { return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_load_si128((const __m128i*)p)))}; }
INLINE Ints dot8(Ints a, Quartets w, int32_t x) { return {_mm512_dpbusd_epi32(a.v, w.v, _mm512_set1_epi32(x))}; }
// The same with multipliers from 0 to 127, which are the unsigned operand here. So no offset is needed, and an accumulator starts with 0.
INLINE Quartets values8(const uint8_t* p) { return {_mm512_xor_si512(_mm512_load_si512(p), _mm512_set1_epi8((char)0x80))}; }
INLINE Ints weigh8(Ints a, Quartets w, int32_t x) { return {_mm512_dpbusd_epi32(a.v, _mm512_set1_epi32(x), w.v)}; }
INLINE Ints dot4(Ints a, Quartets w, int32_t x) { return dot8(a, w, x); }
INLINE Floats to_floats(Ints a) { return {_mm512_cvtepi32_ps(a.v)}; }
// A bit for each number from `low` to `high`.
INLINE uint32_t within(Floats a, float low, float high) {
    return _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(a.v, _mm512_set1_ps(low), _CMP_GE_OQ), a.v, _mm512_set1_ps(high), _CMP_LE_OQ);
}
// The numbers from `low` to `high`; -infinity in the place of the others.
INLINE Floats keep_within(Floats a, float low, float high) {
    return {_mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), (__mmask16)within(a, low, high), a.v)};
}

struct Doubles { __m512d v; };
INLINE Doubles widened(const float* p) { return {_mm512_cvtps_pd(_mm256_loadu_ps(p))}; }
INLINE void store(double* p, Doubles a) { _mm512_storeu_pd(p, a.v); }
INLINE Doubles doubles(double x) { return {_mm512_set1_pd(x)}; }
INLINE Doubles add(Doubles a, Doubles b) { return {_mm512_add_pd(a.v, b.v)}; }
INLINE Doubles sub(Doubles a, Doubles b) { return {_mm512_sub_pd(a.v, b.v)}; }
INLINE Doubles mul(Doubles a, Doubles b) { return {_mm512_mul_pd(a.v, b.v)}; }
INLINE Doubles fma(Doubles a, Doubles b, Doubles c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }
INLINE Doubles max(Doubles a, Doubles b) { return {_mm512_max_pd(a.v, b.v)}; }
INLINE Doubles nearest(Doubles a) { return {_mm512_roundscale_pd(a.v, 0)}; }
// a * 2^n, for a near 1 and whole numbers n from -1000 to 0
INLINE Doubles times_power_of_two(Doubles a, Doubles n) { return {_mm512_scalef_pd(a.v, n.v)}; }
// a + b in the lanes whose bit is 1, a in the others
INLINE Doubles add_some(Doubles a, Doubles b, uint32_t bits) { return {_mm512_mask_add_pd(a.v, (__mmask8)bits, a.v, b.v)}; }

#elif TGEN_AVX2

struct Floats { __m256 a, b; };
struct Ints { __m256i a, b; };

INLINE Floats load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
INLINE void store(float* p, Floats x) { _mm256_storeu_ps(p, x.a); _mm256_storeu_ps(p + 8, x.b); }
INLINE Floats all(float x) { __m256 v = _mm256_set1_ps(x); return {v, v}; }
INLINE Floats add(Floats x, Floats y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
INLINE Floats sub(Floats x, Floats y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
INLINE Floats mul(Floats x, Floats y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
INLINE Floats div(Floats x, Floats y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
INLINE Floats fma(Floats x, Floats y, Floats z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
INLINE Floats max(Floats x, Floats y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
INLINE Floats min(Floats x, Floats y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
INLINE Floats magnitude(Floats x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
INLINE Floats nearest(Floats x) { return {_mm256_round_ps(x.a, 8), _mm256_round_ps(x.b, 8)}; }
INLINE Floats where_positive(Floats x, Floats y, Floats z) {
    const __m256 zero = _mm256_setzero_ps();
    return {_mm256_blendv_ps(z.a, y.a, _mm256_cmp_ps(x.a, zero, _CMP_GT_OQ)), _mm256_blendv_ps(z.b, y.b, _mm256_cmp_ps(x.b, zero, _CMP_GT_OQ))};
}
INLINE __m256 power_of_two8(__m256 n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
INLINE Floats power_of_two(Floats n) { return {power_of_two8(n.a), power_of_two8(n.b)}; }
INLINE float sum8(__m256 v) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
INLINE float sum(Floats x) { return sum8(_mm256_add_ps(x.a, x.b)); }
INLINE float largest(Floats x) {
    __m256 v = _mm256_max_ps(x.a, x.b);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}
INLINE float largest_or_nan(Floats x) {
    __m256i v = _mm256_max_epu32(_mm256_castps_si256(x.a), _mm256_castps_si256(x.b));
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    __m128i two = _mm_max_epu32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epu32(two, _mm_shuffle_epi32(two, 1))));
}
INLINE Floats load_half(const uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 8)))};
}
INLINE void store_half(uint16_t* p, Floats x) {
    _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(x.a, 0));
    _mm_storeu_si128((__m128i*)(p + 8), _mm256_cvtps_ph(x.b, 0));
}
INLINE __m256 load_bf16_8(const uint16_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16));
}
INLINE Floats load_bf16(const uint16_t* p) { return {load_bf16_8(p), load_bf16_8(p + 8)}; }
INLINE void store_int8(int8_t* p, Floats x) {
    __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));
    words = _mm256_permute4x64_epi64(words, 0xd8);
    __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((__m128i*)p, bytes);
}
INLINE float half_to_float(uint16_t bits) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits))); }
INLINE void sum4(const Floats* x, float* out) {
    for (int i = 0; i < 4; i++) out[i] = sum(x[i]);
}
// maddubs would overflow with weights up to 255, so dot8 takes signed weights and moves their sign to the activation: |w| * (x * sign(w)).
INLINE Ints integers(int32_t x) { __m256i v = _mm256_set1_epi32(x); return {v, v}; }
INLINE Ints start8(int32_t) { return integers(0); }
struct Quartets { __m256i a, b; };
INLINE Quartets weights8(const uint8_t* p) {
    const __m256i flip = _mm256_set1_epi8((char)0x80);
    return {_mm256_xor_si256(_mm256_loadu_si256((const __m256i*)p), flip), _mm256_xor_si256(_mm256_loadu_si256((const __m256i*)(p + 32)), flip)};
}
INLINE void weights4(const uint8_t* p, Quartets* low, Quartets* high) {
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i a = _mm256_loadu_si256((const __m256i*)p), b = _mm256_loadu_si256((const __m256i*)(p + 32));
    *low = {_mm256_and_si256(a, mask), _mm256_and_si256(b, mask)};
    *high = {_mm256_and_si256(_mm256_srli_epi16(a, 4), mask), _mm256_and_si256(_mm256_srli_epi16(b, 4), mask)};
}
INLINE __m256i high_bits(const uint8_t* p, int place) {
    __m256i bits = _mm256_load_si256((const __m256i*)p);
    bits = place < 2 ? _mm256_slli_epi16(bits, 4 - 2 * place) : _mm256_srli_epi16(bits, 2 * place - 4);
    return _mm256_and_si256(bits, _mm256_set1_epi8(0x30));
}
INLINE Quartets with_high(Quartets w, const uint8_t* p, int place) {
    return {_mm256_or_si256(w.a, high_bits(p, place)), _mm256_or_si256(w.b, high_bits(p + 32, place))};
}
INLINE __m256 load_int8_8(const int8_t* p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p))); }
INLINE Floats load_int8(const int8_t* p) { return {load_int8_8(p), load_int8_8(p + 8)}; }
INLINE __m256i signed_dot(__m256i acc, __m256i w, __m256i x) {
    __m256i pairs = _mm256_maddubs_epi16(_mm256_sign_epi8(w, w), _mm256_sign_epi8(x, w));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
INLINE __m256i unsigned_dot(__m256i acc, __m256i w, __m256i x) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
}
INLINE Ints dot8(Ints a, Quartets w, int32_t x) {
    __m256i v = _mm256_set1_epi32(x);
    return {signed_dot(a.a, w.a, v), signed_dot(a.b, w.b, v)};
}
INLINE Quartets values8(const uint8_t* p) { return weights8(p); }
INLINE Ints weigh8(Ints a, Quartets w, int32_t x) {
    __m256i v = _mm256_set1_epi32(x);
    return {unsigned_dot(a.a, v, w.a), unsigned_dot(a.b, v, w.b)};
}
INLINE Ints dot4(Ints a, Quartets w, int32_t x) {
    __m256i v = _mm256_set1_epi32(x);
    return {unsigned_dot(a.a, w.a, v), unsigned_dot(a.b, w.b, v)};
}
INLINE Floats to_floats(Ints x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
INLINE __m256 within8(__m256 x, float low, float high) {
    return _mm256_and_ps(_mm256_cmp_ps(x, _mm256_set1_ps(low), _CMP_GE_OQ), _mm256_cmp_ps(x, _mm256_set1_ps(high), _CMP_LE_OQ));
}
INLINE uint32_t within(Floats x, float low, float high) {
    return (uint32_t)(_mm256_movemask_ps(within8(x.a, low, high)) | _mm256_movemask_ps(within8(x.b, low, high)) << 8);
}
INLINE Floats keep_within(Floats x, float low, float high) {
    const __m256 none = _mm256_set1_ps(-INFINITY);
    return {_mm256_blendv_ps(none, x.a, within8(x.a, low, high)), _mm256_blendv_ps(none, x.b, within8(x.b, low, high))};
}

struct Doubles { __m256d a, b; };
INLINE Doubles widened(const float* p) { return {_mm256_cvtps_pd(_mm_loadu_ps(p)), _mm256_cvtps_pd(_mm_loadu_ps(p + 4))}; }
INLINE void store(double* p, Doubles x) { _mm256_storeu_pd(p, x.a); _mm256_storeu_pd(p + 4, x.b); }
INLINE Doubles doubles(double x) { __m256d v = _mm256_set1_pd(x); return {v, v}; }
INLINE Doubles add(Doubles x, Doubles y) { return {_mm256_add_pd(x.a, y.a), _mm256_add_pd(x.b, y.b)}; }
INLINE Doubles sub(Doubles x, Doubles y) { return {_mm256_sub_pd(x.a, y.a), _mm256_sub_pd(x.b, y.b)}; }
INLINE Doubles mul(Doubles x, Doubles y) { return {_mm256_mul_pd(x.a, y.a), _mm256_mul_pd(x.b, y.b)}; }
INLINE Doubles fma(Doubles x, Doubles y, Doubles z) { return {_mm256_fmadd_pd(x.a, y.a, z.a), _mm256_fmadd_pd(x.b, y.b, z.b)}; }
INLINE Doubles max(Doubles x, Doubles y) { return {_mm256_max_pd(x.a, y.a), _mm256_max_pd(x.b, y.b)}; }
INLINE Doubles nearest(Doubles x) { return {_mm256_round_pd(x.a, 8), _mm256_round_pd(x.b, 8)}; }
INLINE __m256d times_power_of_two4(__m256d x, __m256d n) {
    const __m256d large = _mm256_set1_pd(0x1.8p52);  // a sum with it has n in its last bits
    return _mm256_castsi256_pd(_mm256_add_epi64(_mm256_castpd_si256(x), _mm256_slli_epi64(_mm256_castpd_si256(_mm256_add_pd(n, large)), 52)));
}
INLINE Doubles times_power_of_two(Doubles x, Doubles n) { return {times_power_of_two4(x.a, n.a), times_power_of_two4(x.b, n.b)}; }
INLINE __m256d where_set4(__m256d x, uint32_t bits) {
    const __m256i places = _mm256_setr_epi64x(1, 2, 4, 8);
    return _mm256_and_pd(x, _mm256_castsi256_pd(_mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(bits), places), places)));
}
INLINE Doubles add_some(Doubles x, Doubles y, uint32_t bits) {
    return {_mm256_add_pd(x.a, where_set4(y.a, bits)), _mm256_add_pd(x.b, where_set4(y.b, bits >> 4))};
}

#elif TGEN_NEON

struct Floats { float32x4_t v[4]; };
struct Ints { int32x4_t v[4]; };
#define EACH(expression) Floats r; for (int i = 0; i < 4; i++) r.v[i] = expression; return r

INLINE Floats load(const float* p) { EACH(vld1q_f32(p + 4 * i)); }
INLINE void store(float* p, Floats a) { for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, a.v[i]); }
INLINE Floats all(float x) { EACH(vdupq_n_f32(x)); }
INLINE Floats add(Floats a, Floats b) { EACH(vaddq_f32(a.v[i], b.v[i])); }
INLINE Floats sub(Floats a, Floats b) { EACH(vsubq_f32(a.v[i], b.v[i])); }
INLINE Floats mul(Floats a, Floats b) { EACH(vmulq_f32(a.v[i], b.v[i])); }
INLINE Floats div(Floats a, Floats b) { EACH(vdivq_f32(a.v[i], b.v[i])); }
INLINE Floats fma(Floats a, Floats b, Floats c) { EACH(vfmaq_f32(c.v[i], a.v[i], b.v[i])); }
INLINE Floats max(Floats a, Floats b) { EACH(vmaxq_f32(a.v[i], b.v[i])); }
INLINE Floats min(Floats a, Floats b) { EACH(vminq_f32(a.v[i], b.v[i])); }
INLINE Floats magnitude(Floats a) { EACH(vabsq_f32(a.v[i])); }
INLINE Floats nearest(Floats a) { EACH(vrndnq_f32(a.v[i])); }
INLINE Floats where_positive(Floats x, Floats a, Floats b) { EACH(vbslq_f32(vcgtq_f32(x.v[i], vdupq_n_f32(0)), a.v[i], b.v[i])); }
INLINE Floats power_of_two(Floats n) {
    EACH(vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n.v[i]), vdupq_n_s32(127)), 23)));
}
INLINE float sum(Floats a) { return vaddvq_f32(vaddq_f32(vaddq_f32(a.v[0], a.v[1]), vaddq_f32(a.v[2], a.v[3]))); }
INLINE float largest(Floats a) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3]))); }
INLINE float largest_or_nan(Floats a) {
    uint32x4_t bits = vreinterpretq_u32_f32(a.v[0]);
    for (int i = 1; i < 4; i++) bits = vmaxq_u32(bits, vreinterpretq_u32_f32(a.v[i]));
    uint32_t top = vmaxvq_u32(bits);
    float value;
    memcpy(&value, &top, 4);
    return value;
}
INLINE Floats load_half(const uint16_t* p) { EACH(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i)))); }
INLINE void store_half(uint16_t* p, Floats a) { for (int i = 0; i < 4; i++) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.v[i]))); }
INLINE Floats load_bf16(const uint16_t* p) { EACH(vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16))); }
INLINE void store_int8(int8_t* p, Floats a) {
    int16x8_t low = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(a.v[0])), vqmovn_s32(vcvtnq_s32_f32(a.v[1])));
    int16x8_t high = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(a.v[2])), vqmovn_s32(vcvtnq_s32_f32(a.v[3])));
    vst1q_s8(p, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
}
INLINE float half_to_float(uint16_t bits) { return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(bits))), 0); }
INLINE void sum4(const Floats* x, float* out) {
    for (int i = 0; i < 4; i++) out[i] = sum(x[i]);
}
INLINE Ints integers(int32_t x) { Ints r; for (int i = 0; i < 4; i++) r.v[i] = vdupq_n_s32(x); return r; }
INLINE Ints start8(int32_t) { return integers(0); }
struct Quartets { int8x16_t v[4]; };
INLINE Quartets weights8(const uint8_t* p) {
    Quartets r;
    for (int i = 0; i < 4; i++) r.v[i] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p + 16 * i), vdupq_n_u8(0x80)));
    return r;
}
INLINE void weights4(const uint8_t* p, Quartets* low, Quartets* high) {
    for (int i = 0; i < 4; i++) {
        uint8x16_t packed = vld1q_u8(p + 16 * i);
        low->v[i] = vreinterpretq_s8_u8(vandq_u8(packed, vdupq_n_u8(15)));
        high->v[i] = vreinterpretq_s8_u8(vshrq_n_u8(packed, 4));
    }
}
INLINE Quartets with_high(Quartets w, const uint8_t* p, int place) {
    for (int i = 0; i < 4; i++) {
        uint8x16_t bits = vandq_u8(vshlq_u8(vld1q_u8(p + 16 * i), vdupq_n_s8((int8_t)(4 - 2 * place))), vdupq_n_u8(0x30));
        w.v[i] = vorrq_s8(w.v[i], vreinterpretq_s8_u8(bits));
    }
    return w;
}
INLINE Floats load_int8(const int8_t* p) {
    int8x16_t bytes = vld1q_s8(p);
    int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
    Floats r;
    r.v[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(low)));
    r.v[1] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(low)));
    r.v[2] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(high)));
    r.v[3] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)));
    return r;
}
INLINE Ints dot8(Ints a, Quartets w, int32_t x) {
    int8x16_t v = vreinterpretq_s8_s32(vdupq_n_s32(x));
    for (int i = 0; i < 4; i++) a.v[i] = vdotq_s32(a.v[i], w.v[i], v);
    return a;
}
INLINE Quartets values8(const uint8_t* p) { return weights8(p); }
INLINE Ints weigh8(Ints a, Quartets w, int32_t x) { return dot8(a, w, x); }
INLINE Ints dot4(Ints a, Quartets w, int32_t x) { return dot8(a, w, x); }
INLINE Floats to_floats(Ints a) { EACH(vcvtq_f32_s32(a.v[i])); }
INLINE uint32x4_t within4(float32x4_t a, float low, float high) { return vandq_u32(vcgeq_f32(a, vdupq_n_f32(low)), vcleq_f32(a, vdupq_n_f32(high))); }
INLINE uint32_t within(Floats a, float low, float high) {
    const uint32x4_t places = {1, 2, 4, 8};
    uint32_t bits = 0;
    for (int i = 0; i < 4; i++) bits |= vaddvq_u32(vandq_u32(within4(a.v[i], low, high), places)) << 4 * i;
    return bits;
}
INLINE Floats keep_within(Floats a, float low, float high) { EACH(vbslq_f32(within4(a.v[i], low, high), a.v[i], vdupq_n_f32(-INFINITY))); }

struct Doubles { float64x2_t v[4]; };
#define EACH2(expression) Doubles r; for (int i = 0; i < 4; i++) r.v[i] = expression; return r
INLINE Doubles widened(const float* p) { EACH2(vcvt_f64_f32(vld1_f32(p + 2 * i))); }
INLINE void store(double* p, Doubles a) { for (int i = 0; i < 4; i++) vst1q_f64(p + 2 * i, a.v[i]); }
INLINE Doubles doubles(double x) { EACH2(vdupq_n_f64(x)); }
INLINE Doubles add(Doubles a, Doubles b) { EACH2(vaddq_f64(a.v[i], b.v[i])); }
INLINE Doubles sub(Doubles a, Doubles b) { EACH2(vsubq_f64(a.v[i], b.v[i])); }
INLINE Doubles mul(Doubles a, Doubles b) { EACH2(vmulq_f64(a.v[i], b.v[i])); }
INLINE Doubles fma(Doubles a, Doubles b, Doubles c) { EACH2(vfmaq_f64(c.v[i], a.v[i], b.v[i])); }
INLINE Doubles max(Doubles a, Doubles b) { EACH2(vmaxq_f64(a.v[i], b.v[i])); }
INLINE Doubles nearest(Doubles a) { EACH2(vrndnq_f64(a.v[i])); }
INLINE Doubles times_power_of_two(Doubles a, Doubles n) {
    EACH2(vreinterpretq_f64_s64(vaddq_s64(vreinterpretq_s64_f64(a.v[i]), vshlq_n_s64(vcvtq_s64_f64(n.v[i]), 52))));
}
INLINE Doubles add_some(Doubles a, Doubles b, uint32_t bits) {
    const uint64x2_t places = {1, 2};
    EACH2(vbslq_f64(vtstq_u64(vdupq_n_u64(bits >> 2 * i), places), vaddq_f64(a.v[i], b.v[i]), a.v[i]));
}
#undef EACH2
#undef EACH

#else  // TGEN_PLAIN

struct Floats { float v[16]; };
struct Ints { int32_t v[16]; };
#define EACH(expression) Floats r; for (int i = 0; i < 16; i++) r.v[i] = expression; return r

INLINE Floats load(const float* p) { Floats r; memcpy(r.v, p, 64); return r; }
INLINE void store(float* p, Floats a) { memcpy(p, a.v, 64); }
INLINE Floats all(float x) { EACH(x); }
INLINE Floats add(Floats a, Floats b) { EACH(a.v[i] + b.v[i]); }
INLINE Floats sub(Floats a, Floats b) { EACH(a.v[i] - b.v[i]); }
INLINE Floats mul(Floats a, Floats b) { EACH(a.v[i] * b.v[i]); }
INLINE Floats div(Floats a, Floats b) { EACH(a.v[i] / b.v[i]); }
INLINE Floats fma(Floats a, Floats b, Floats c) { EACH(a.v[i] * b.v[i] + c.v[i]); }
INLINE Floats max(Floats a, Floats b) { EACH(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
INLINE Floats min(Floats a, Floats b) { EACH(a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
INLINE Floats magnitude(Floats a) { EACH(fabsf(a.v[i])); }
INLINE Floats nearest(Floats a) { EACH(rintf(a.v[i])); }
INLINE Floats where_positive(Floats x, Floats a, Floats b) { EACH(x.v[i] > 0 ? a.v[i] : b.v[i]); }
INLINE Floats power_of_two(Floats n) { EACH(ldexpf(1.0f, (int)n.v[i])); }
INLINE float sum(Floats a) {
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++) a.v[i] += a.v[i + width];
    return a.v[0];
}
INLINE float largest(Floats a) {
    float best = a.v[0];
    for (int i = 1; i < 16; i++) best = a.v[i] > best ? a.v[i] : best;
    return best;
}
INLINE float largest_or_nan(Floats a) {
    float best = a.v[0];
    for (int i = 1; i < 16; i++) best = a.v[i] <= best ? best : a.v[i];
    for (int i = 0; i < 16; i++) best = a.v[i] == a.v[i] ? best : a.v[i];
    return best;
}
// Converts float16 by arithmetic on its bits, so that no instruction beyond the baseline is needed.
INLINE float half_to_float(uint16_t bits) {
    int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
    float value = exponent == 0    ? ldexpf((float)mantissa, -24)
                  : exponent == 31 ? (mantissa ? NAN : INFINITY)
                                   : ldexpf((float)(mantissa + 1024), exponent - 25);
    return bits & 0x8000 ? -value : value;
}
INLINE uint16_t float_to_half(float value) {
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    float size = fabsf(value);
    if (!(size < 65520.0f)) return sign | (size != size ? 0x7e00 : 0x7c00);
    if (size < 0x1p-14f) return sign | (uint16_t)rintf(size * 0x1p24f);  // subnormal, or the smallest normal number by rounding up
    int exponent;
    float fraction = frexpf(size, &exponent);  // [0.5, 1)
    uint32_t rounded = (uint32_t)rintf(fraction * 2048.0f);  // 1024 to 2048
    return sign | (uint16_t)(((uint32_t)(exponent + 14) << 10) + rounded - 1024);
}
struct Halves { uint16_t v[16]; };
INLINE Halves load16(const uint16_t* p) {  // a file may hold numbers at any address
    Halves r;
    memcpy(r.v, p, sizeof r.v);
    return r;
}
INLINE Floats load_half(const uint16_t* p) { Halves h = load16(p); EACH(half_to_float(h.v[i])); }
INLINE void store_half(uint16_t* p, Floats a) { for (int i = 0; i < 16; i++) p[i] = float_to_half(a.v[i]); }
INLINE Floats load_bf16(const uint16_t* p) { Halves h = load16(p); EACH(bf16_to_float(h.v[i])); }
INLINE void store_int8(int8_t* p, Floats a) {
    for (int i = 0; i < 16; i++) p[i] = a.v[i] >= -127.5f && a.v[i] <= 127.5f ? (int8_t)rintf(a.v[i]) : 0;
}
INLINE void sum4(const Floats* x, float* out) {
    for (int i = 0; i < 4; i++) out[i] = sum(x[i]);
}
INLINE Ints integers(int32_t x) { Ints r; for (int i = 0; i < 16; i++) r.v[i] = x; return r; }
INLINE Ints start8(int32_t sum) { return integers(-128 * sum); }
struct Quartets { uint8_t v[64]; };
INLINE Quartets weights8(const uint8_t* p) { Quartets r; memcpy(r.v, p, 64); return r; }
INLINE void weights4(const uint8_t* p, Quartets* low, Quartets* high) {
    for (int i = 0; i < 64; i++) low->v[i] = p[i] & 15, high->v[i] = p[i] >> 4;
}
INLINE Quartets with_high(Quartets w, const uint8_t* p, int place) {
    for (int i = 0; i < 64; i++) w.v[i] |= (uint8_t)((p[i] >> 2 * place & 3) << 4);
    return w;
}
INLINE Floats load_int8(const int8_t* p) { EACH((float)p[i]); }
INLINE Ints dot8(Ints a, Quartets w, int32_t x) {
    int8_t parts[4];
    memcpy(parts, &x, 4);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 4; j++) a.v[i] += w.v[4 * i + j] * parts[j];
    return a;
}
INLINE Quartets values8(const uint8_t* p) { return weights8(p); }
INLINE Ints weigh8(Ints a, Quartets w, int32_t x) {
    uint8_t parts[4];
    memcpy(parts, &x, 4);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 4; j++) a.v[i] += (w.v[4 * i + j] - 128) * parts[j];
    return a;
}
INLINE Ints dot4(Ints a, Quartets w, int32_t x) { return dot8(a, w, x); }
INLINE Floats to_floats(Ints a) { EACH((float)a.v[i]); }
INLINE uint32_t within(Floats a, float low, float high) {
    uint32_t bits = 0;
    for (int i = 0; i < 16; i++) bits |= (uint32_t)((a.v[i] >= low) & (a.v[i] <= high)) << i;
    return bits;
}
INLINE Floats keep_within(Floats a, float low, float high) { EACH(a.v[i] >= low && a.v[i] <= high ? a.v[i] : -INFINITY); }

struct Doubles { double v[8]; };
#define EACH2(expression) Doubles r; for (int i = 0; i < 8; i++) r.v[i] = expression; return r
INLINE Doubles widened(const float* p) { EACH2(p[i]); }
INLINE void store(double* p, Doubles a) { memcpy(p, a.v, sizeof a.v); }
INLINE Doubles doubles(double x) { EACH2(x); }
INLINE Doubles add(Doubles a, Doubles b) { EACH2(a.v[i] + b.v[i]); }
INLINE Doubles sub(Doubles a, Doubles b) { EACH2(a.v[i] - b.v[i]); }
INLINE Doubles mul(Doubles a, Doubles b) { EACH2(a.v[i] * b.v[i]); }
INLINE Doubles fma(Doubles a, Doubles b, Doubles c) { EACH2(a.v[i] * b.v[i] + c.v[i]); }
INLINE Doubles max(Doubles a, Doubles b) { EACH2(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
INLINE Doubles nearest(Doubles a) { EACH2(a.v[i] + 0x1.8p52 - 0x1.8p52); }
INLINE Doubles times_power_of_two(Doubles a, Doubles n) {
    int64_t bits[8];
    memcpy(bits, a.v, sizeof bits);
    for (int i = 0; i < 8; i++) bits[i] += (int64_t)n.v[i] * (INT64_C(1) << 52);
    memcpy(a.v, bits, sizeof bits);
    return a;
}
INLINE Doubles add_some(Doubles a, Doubles b, uint32_t bits) { EACH2(bits >> i & 1 ? a.v[i] + b.v[i] : a.v[i]); }
#undef EACH2
#undef EACH

#endif

#if !TGEN_AVX512
INLINE void largest4_or_nan(const Floats* a, float* out) {
    for (int i = 0; i < 4; i++) out[i] = largest_or_nan(a[i]);
}
#endif

// Up to 16 numbers from p on, of which `left` may be read; the others are 0.
INLINE Floats load_some(const float* p, int64_t left) {
    if (left >= 16) return load(p);
    float some[16] = {};
    memcpy(some, p, (size_t)left * 4);
    return load(some);
}

INLINE void store_some(float* p, int64_t left, Floats x) {
    if (left >= 16) return store(p, x);
    float some[16];
    store(some, x);
    memcpy(p, some, (size_t)left * 4);
}

// The nearest number that float16 has.
INLINE Floats half_of(Floats a) {
    uint16_t halves[16];
    store_half(halves, a);
    return load_half(halves);
}

INLINE float half_of(float x) {
    float lanes[16];
    store(lanes, half_of(all(x)));
    return lanes[0];
}

// e^x with a relative error of about 1e-7, by a polynomial on [-ln 2 / 2, ln 2 / 2]; 0 below -87.3. The constants are those of the vector
// expf in Arm's Optimized Routines, which llama.cpp uses, too.
INLINE Floats exponential(Floats x) {
    const Floats large = all(12582912.0f);  // 1.5 * 2^23: a float of this size has no bits for a fraction, so adding it rounds
    Floats bounded = min(max(x, all(-87.3f)), all(88.0f));
    Floats n = sub(fma(bounded, all(0x1.715476p+0f), large), large);
    Floats r = fma(n, all(-0x1.7f7d1cp-20f), fma(n, all(-0x1.62e4p-1f), bounded)), square = mul(r, r);
    Floats high = fma(all(0x1.0e4020p-7f), r, all(0x1.573e2ep-5f)), middle = fma(all(0x1.555e66p-3f), r, all(0x1.fffdb6p-2f));
    Floats p = fma(fma(high, square, middle), square, fma(all(0x1.ffffecp-1f), r, all(1.0f)));
    return where_positive(sub(x, all(-87.3f)), mul(p, power_of_two(n)), all(0.0f));
}

INLINE float exponential(float x) {
    float lanes[16];
    store(lanes, exponential(all(x)));
    return lanes[0];
}

// e^x of numbers that are not positive, to about 2e-7 relative for those near 0 and 1e-5 for the smallest; 0 far below.
INLINE Floats decay(Floats x) {
#if TGEN_AVX512
    const __m512 y = _mm512_max_ps(_mm512_mul_ps(x.v, _mm512_set1_ps(0x1.715476p+0f)), _mm512_set1_ps(-300.0f));
    const __m512 n = _mm512_roundscale_ps(y, 0), r = _mm512_sub_ps(y, n);  // 2^r by a polynomial on [-0.5, 0.5]
    __m512 p = _mm512_set1_ps(0x1.5bba12p-10f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.3cea88p-7f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.c6b752p-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.ebf9bcp-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.62e42ap-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return {_mm512_scalef_ps(p, n)};
#else
    return exponential(x);
#endif
}

// 2^x for x from -1000 to 0, to about 1e-12 relative, by a polynomial on [-1 / 2, 1 / 2] that interpolates at Chebyshev's nodes.
INLINE Doubles power_of_two(Doubles x) {
    Doubles n = nearest(x), r = sub(x, n), p = doubles(0x1.63cf7dec51603p-20);
    p = fma(p, r, doubles(0x1.00dc48dc4d96cp-16));
    p = fma(p, r, doubles(0x1.4308ae274a207p-13));
    p = fma(p, r, doubles(0x1.5d8745a95d2d4p-10));
    p = fma(p, r, doubles(0x1.3b2ab71725c04p-7));
    p = fma(p, r, doubles(0x1.c6b08dd6fb6b1p-5));
    p = fma(p, r, doubles(0x1.ebfbdff824847p-3));
    p = fma(p, r, doubles(0x1.62e42fef84cf7p-1));
    p = fma(p, r, doubles(0x1.ffffffffffffdp-1));
    return times_power_of_two(p, n);
}

INLINE Floats hyperbolic_tangent(Floats x) {
    // 1 - 2 / (e^2x + 1) loses digits near 0, where the series x - x^3/3 + 2x^5/15 - 17x^7/315 holds
    Floats large = sub(all(1.0f), div(all(2.0f), add(exponential(add(x, x)), all(1.0f))));
    Floats square = mul(x, x);
    Floats series = fma(square, all(-17.0f / 315), all(2.0f / 15));
    series = fma(square, series, all(-1.0f / 3));
    series = fma(mul(x, square), series, x);
    return where_positive(sub(magnitude(x), all(0.15f)), large, series);
}

INLINE Floats sigmoid(Floats x) { return div(all(1.0f), add(all(1.0f), exponential(sub(all(0.0f), x)))); }

// 1 + erf(x), by the complementary error function of |x| (Abramowitz and Stegun 7.1.26: absolute error below 1.5e-7).
INLINE Floats one_plus_erf(Floats x) {
    Floats size = magnitude(x);
    Floats t = div(all(1.0f), fma(all(0.3275911f), size, all(1.0f)));
    Floats p = all(1.061405429f);
    p = fma(p, t, all(-1.453152027f));
    p = fma(p, t, all(1.421413741f));
    p = fma(p, t, all(-0.284496736f));
    p = fma(p, t, all(0.254829592f));
    Floats complement = mul(mul(p, t), exponential(sub(all(0.0f), mul(size, size))));
    return where_positive(x, sub(all(2.0f), complement), complement);
}

}  // namespace TGEN_KERNEL
