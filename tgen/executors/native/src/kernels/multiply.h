// Products of a matrix with the vectors of one or many tokens.
//
// Each number of a result comes from one or a few chains of additions in the order of the columns, which one fixed tree adds at the end.
// The order does not depend on the number of tokens or threads, so a token's result has the same bits alone and beside others.
#pragma once

#include "gguf/blocks.h"

namespace TGEN_KERNEL {

#if TGEN_AVX512
constexpr int TILE_TOKENS = 6, PANEL_TOKENS = 8;
#else
constexpr int TILE_TOKENS = 2, PANEL_TOKENS = 2;
#endif

// ---- row-major matrices: a register holds 16 columns of one row

struct Float32Row {
    static constexpr int64_t BYTES = 4, STEP = 16, CHAINS = 1;
    typedef Floats Weights;
    INLINE Weights get(const uint8_t* p) { return load((const float*)p); }
    INLINE Floats dot(Floats acc, Weights w, const Input& x, int64_t at) { return fma(w, load(x.floats + at), acc); }
};

struct Float16Row {
    static constexpr int64_t BYTES = 2, STEP = 16, CHAINS = 1;
    typedef Floats Weights;
    INLINE Weights get(const uint8_t* p) { return load_half((const uint16_t*)p); }
    INLINE Floats dot(Floats acc, Weights w, const Input& x, int64_t at) { return fma(w, load(x.floats + at), acc); }
};

// Float16 times vectors rounded to float16, in the order of llama.cpp's products with one vector. Its four registers are four chains here,
// or two if its registers have half as many lanes.
struct F16Row {
#if TGEN_AVX512
    static constexpr int64_t BYTES = 2, STEP = 16, CHAINS = 4;
#else
    static constexpr int64_t BYTES = 2, STEP = 16, CHAINS = 2;
#endif
    typedef Floats Weights;
    INLINE Weights get(const uint8_t* p) { return load_half((const uint16_t*)p); }
    INLINE Floats dot(Floats acc, Weights w, const Input& x, int64_t at) { return fma(w, load(x.halves + at), acc); }
};

struct Bfloat16Row {
#if TGEN_AVX512
    static constexpr int64_t BYTES = 2, STEP = 32, CHAINS = 1;
    typedef __m512i Weights;
    INLINE Weights get(const uint8_t* p) { return _mm512_loadu_si512(p); }
    INLINE Floats dot(Floats acc, Weights w, const Input& x, int64_t at) {
        return {_mm512_dpbf16_ps(acc.v, (__m512bh)w, (__m512bh)_mm512_loadu_si512(x.bf16 + at))};
    }
#else
    static constexpr int64_t BYTES = 2, STEP = 16, CHAINS = 1;
    typedef Floats Weights;
    INLINE Weights get(const uint8_t* p) { return load_bf16((const uint16_t*)p); }
    INLINE Floats dot(Floats acc, Weights w, const Input& x, int64_t at) { return fma(w, load(x.floats + at), acc); }
#endif
};

// Four rows times N tokens. For one token, the rows are read one after the other, because one stream of memory is read fastest. For more
// tokens, they are read together, so that each activation is loaded once, and FETCH rows from number `fetch` on are fetched ahead.
template <class Type, int N, int FETCH>
static void row_tile(const uint8_t* weights, int64_t row_bytes, int64_t columns, const Input& x, int64_t token, float* out, int64_t stride,
                     int64_t fetch = 0) {
    constexpr int CHAINS = Type::CHAINS;
    constexpr int64_t STRIDE = CHAINS * Type::STEP;
    const uint8_t* ahead = weights + fetch * row_bytes + 65536;
    Floats acc[CHAINS][N][4];
    for (int c = 0; c < CHAINS; c++)
        for (int n = 0; n < N; n++)
            for (int r = 0; r < 4; r++) acc[c][n][r] = all(0.0f);
    int64_t whole = columns / Type::STEP * Type::STEP, at = token * x.stride;
    if (N == 1) {
        for (int r = 0; r < 4; r++) {
            Floats sum[CHAINS];
            for (int c = 0; c < CHAINS; c++) sum[c] = all(0.0f);
            const uint8_t* row = weights + r * row_bytes;
            int64_t k = 0;
            for (; k + STRIDE <= whole; k += STRIDE)
#pragma GCC unroll 4
                for (int c = 0; c < CHAINS; c++) {
                    const uint8_t* some = row + (k + c * Type::STEP) * Type::BYTES;
                    __builtin_prefetch(some + 1024, 0, 2);
                    sum[c] = Type::dot(sum[c], Type::get(some), x, at + k + c * Type::STEP);
                }
#pragma GCC unroll 4
            for (int c = 0; c < CHAINS; c++, k += Type::STEP)
                if (k < whole) sum[c] = Type::dot(sum[c], Type::get(row + k * Type::BYTES), x, at + k);
            for (int c = 0; c < CHAINS; c++) acc[c][0][r] = sum[c];
        }
    } else {
        for (int c = 0; c < CHAINS; c++)  // one chain after the other, so that all sums of a chain stay in registers
            for (int64_t k = c * Type::STEP; k < whole; k += STRIDE) {
                typename Type::Weights w[4];
                for (int r = 0; r < FETCH; r++) __builtin_prefetch(ahead + r * row_bytes + k * Type::BYTES, 0, 2);
                for (int r = 0; r < 4; r++) w[r] = Type::get(weights + r * row_bytes + k * Type::BYTES);
                for (int n = 0; n < N; n++)
                    for (int r = 0; r < 4; r++) acc[c][n][r] = Type::dot(acc[c][n][r], w[r], x, at + n * x.stride + k);
            }
    }
    if (whole < columns) {  // the last columns do not fill a register, so a padded copy keeps the load from reading past the matrix
        for (int r = 0; r < 4; r++) {
            alignas(64) uint8_t rest[128] = {};
            memcpy(rest, weights + r * row_bytes + whole * Type::BYTES, (size_t)((columns - whole) * Type::BYTES));
            Floats(&last)[N][4] = acc[whole / Type::STEP % CHAINS];
            for (int n = 0; n < N; n++) last[n][r] = Type::dot(last[n][r], Type::get(rest), x, at + n * x.stride + whole);
        }
    }
    for (int n = 0; n < N; n++) {
        for (int half = CHAINS / 2; half; half /= 2)
            for (int c = 0; c < half; c++)
                for (int r = 0; r < 4; r++) acc[c][n][r] = add(acc[c][n][r], acc[c + half][n][r]);
        if (CHAINS == 1) sum4(acc[0][n], out + n * stride);
        else
            for (int r = 0; r < 4; r++) out[n * stride + r] = sum(acc[0][n][r]);
    }
}

// The same, with `rows` (0, 2 or 4) rows fetched ahead.
template <class Type, int N>
static void fetching_tile(const uint8_t* weights, int64_t row_bytes, int64_t columns, const Input& x, int64_t token, float* out, int64_t stride,
                          int64_t fetch, int64_t rows) {
    if (rows == 2) row_tile<Type, N, 2>(weights, row_bytes, columns, x, token, out, stride, fetch);
    else if (rows == 4) row_tile<Type, N, 4>(weights, row_bytes, columns, x, token, out, stride, fetch);
    else row_tile<Type, N, 0>(weights, row_bytes, columns, x, token, out, stride);
}

// Four rows times tokens first to last, in tiles. A single tile of several tokens fetches all four rows ahead; else the first two tiles
// fetch two each. So memory delivers the rows evenly while the tiles compute; too many requests at once would wait for each other.
template <class Type>
static void row_tiles(const uint8_t* weights, int64_t row_bytes, int64_t columns, const Input& x, int64_t first, int64_t last, float* out,
                      int64_t stride) {
    const int64_t wide = (last - first) / TILE_TOKENS + ((last - first) % TILE_TOKENS + 2) / 4;  // tiles of more than one token
    const int64_t share = wide > 1 ? 2 : wide == 1 ? 4 : 0;
    int64_t fetched = first == 0 ? 0 : 4;
    for (int64_t t = first; t < last; fetched += share) {
        float* to = out + t * stride;
        const int64_t left = last - t, rows = fetched < 4 ? share : 0;
        if (left >= TILE_TOKENS) {
            fetching_tile<Type, TILE_TOKENS>(weights, row_bytes, columns, x, t, to, stride, fetched, rows);
            t += TILE_TOKENS;
        } else if (TILE_TOKENS > 4 && left >= 4) {
            fetching_tile<Type, 4>(weights, row_bytes, columns, x, t, to, stride, fetched, rows);
            t += 4;
        } else if (TILE_TOKENS > 2 && left >= 2) {
            fetching_tile<Type, 2>(weights, row_bytes, columns, x, t, to, stride, fetched, rows);
            t += 2;
        } else {
            row_tile<Type, 1, 0>(weights, row_bytes, columns, x, t, to, stride);
            t++;
        }
    }
}

// Rows first to last of a row-major matrix times `tokens` tokens. The result is out[token * stride + row - first].
template <class Type>
static void multiply_rows(const Matrix& m, int64_t first, int64_t last, const Input& x, int64_t tokens, float* out, int64_t stride) {
    int64_t row_bytes = (int64_t)m.columns * Type::BYTES;
    // The tokens are divided into blocks whose activations stay in the second-level cache while all rows pass by.
    int64_t block = 393216 / (x.stride * Type::BYTES) / TILE_TOKENS * TILE_TOKENS;
    if (block < 4 * TILE_TOKENS) block = 4 * TILE_TOKENS;
    for (int64_t begin = 0; begin < tokens; begin += block) {
        int64_t end = begin + block < tokens ? begin + block : tokens;
        for (int64_t r = first; r < last; r += 4) {
            const uint8_t* weights = m.data + r * row_bytes;
            float* to = out + r - first;
            int64_t rows = last - r < 4 ? last - r : 4;
            if (rows == 4) {
                row_tiles<Type>(weights, row_bytes, m.columns, x, begin, end, to, stride);
                continue;
            }
            float spare[4];  // the last rows do not fill a tile, so each is computed as a tile of four equal rows
            for (int64_t i = 0; i < rows; i++)
                for (int64_t t = begin; t < end; t++) {
                    row_tile<Type, 1, 0>(weights + i * row_bytes, 0, m.columns, x, t, spare, 4);
                    to[t * stride + i] = spare[0];
                }
        }
    }
}

// ---- packed panels of 16 rows (pack.h has the layout): a register holds one column's sum for 16 rows

// A panel times N tokens. With FETCH, what stands at `ahead` is fetched meanwhile, a line of it for each line of the panel.
template <bool FOUR_BITS, int N, bool FETCH>
INLINE void panel_sums(const uint8_t* panel, int64_t groups, const Input& x, int64_t token, const uint8_t* ahead, Floats* total) {
    constexpr int64_t GROUP_BYTES = LANES * GROUP / (FOUR_BITS ? 2 : 1), PAIR_BYTES = 64 + 2 * GROUP_BYTES;
    for (int n = 0; n < N; n++) total[n] = all(0.0f);
    const int64_t group_stride = x.stride / GROUP;
    for (int64_t g = 0; g < groups; g += 2) {
        const uint8_t* pair = panel + g / 2 * PAIR_BYTES;
        if (FETCH) __builtin_prefetch(ahead + g / 2 * PAIR_BYTES, 0, 2);
        for (int h = 0; h < 2; h++) {
            Ints acc[N];
            const uint8_t* weights = pair + 64 + h * GROUP_BYTES;
            for (int n = 0; n < N; n++) {
                int32_t sum = x.sum[(token + n) * group_stride + g + h];
                acc[n] = FOUR_BITS ? integers(-8 * sum) : start8(sum);
            }
            if (FOUR_BITS) {
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) {
                    Quartets low, high;
                    weights4(weights + i * 64, &low, &high);
                    for (int n = 0; n < N; n++) {
                        const int32_t* bytes = (const int32_t*)(x.int8 + (token + n) * x.stride) + (g + h) * 8 + i;
                        acc[n] = dot4(dot4(acc[n], low, bytes[0]), high, bytes[4]);
                    }
                }
            } else {
#pragma GCC unroll 8
                for (int i = 0; i < 8; i++) {
                    Quartets w = weights8(weights + i * 64);
                    if (FETCH) __builtin_prefetch(ahead + g / 2 * PAIR_BYTES + 64 + h * GROUP_BYTES + i * 64, 0, 2);
                    for (int n = 0; n < N; n++)
                        acc[n] = dot8(acc[n], w, ((const int32_t*)(x.int8 + (token + n) * x.stride))[(g + h) * 8 + i]);
                }
            }
            Floats scale = load_half((const uint16_t*)(pair + h * 32));
            for (int n = 0; n < N; n++)
                total[n] = fma(to_floats(acc[n]), mul(scale, all(x.scale[(token + n) * group_stride + g + h])), total[n]);
        }
    }
}

// The same into memory. One token's panels are fetched a kilobyte ahead, but for those of four bits.
template <bool FOUR_BITS, int N>
static void panel_tile(const uint8_t* panel, int64_t groups, const Input& x, int64_t token, float* out, int64_t stride) {
    Floats total[N];
    panel_sums<FOUR_BITS, N, N == 1 && !FOUR_BITS>(panel, groups, x, token, panel + 1024, total);
    for (int n = 0; n < N; n++) store(out + n * stride, total[n]);
}

// Multiplies rows first to last, which are multiples of 16, so that the rows are whole panels. `out` has room for whole panels.
template <bool FOUR_BITS>
static void multiply_panels(const Matrix& m, int64_t first, int64_t last, const Input& x, int64_t tokens, float* out, int64_t stride) {
    int64_t bytes = panel_bytes(m.format, m.columns), groups = padded(m.columns) / GROUP;
    int64_t block = 393216 / x.stride / PANEL_TOKENS * PANEL_TOKENS;
    if (block < 3 * PANEL_TOKENS) block = 3 * PANEL_TOKENS;
    for (int64_t begin = 0; begin < tokens; begin += block) {
        int64_t end = begin + block < tokens ? begin + block : tokens;
        for (int64_t r = first; r < last; r += LANES) {
            const uint8_t* panel = m.data + r / LANES * bytes;
            float* to = out + r - first;
            int64_t t = begin;
            for (; t + PANEL_TOKENS <= end; t += PANEL_TOKENS) panel_tile<FOUR_BITS, PANEL_TOKENS>(panel, groups, x, t, to + t * stride, stride);
            if (PANEL_TOKENS > 4 && t + 4 <= end) {
                panel_tile<FOUR_BITS, 4>(panel, groups, x, t, to + t * stride, stride);
                t += 4;
            }
            if (PANEL_TOKENS > 2 && t + 2 <= end) {
                panel_tile<FOUR_BITS, 2>(panel, groups, x, t, to + t * stride, stride);
                t += 2;
            }
            for (; t < end; t++) panel_tile<FOUR_BITS, 1>(panel, groups, x, t, to + t * stride, stride);
        }
    }
}

INLINE Input with_round_scales(Input x) {
    x.scale = x.half_scale;
    return x;
}

static void multiply(const Matrix& m, int64_t first, int64_t last, const Input& x, int64_t tokens, float* out, int64_t stride) {
    switch (m.format) {
        case FLOAT32: return multiply_rows<Float32Row>(m, first, last, x, tokens, out, stride);
        case FLOAT16: return multiply_rows<Float16Row>(m, first, last, x, tokens, out, stride);
        case BFLOAT16: return multiply_rows<Bfloat16Row>(m, first, last, x, tokens, out, stride);
        case F16: return multiply_rows<F16Row>(m, first, last, x, tokens, out, stride);
        case INT8: return multiply_panels<false>(m, first, last, x, tokens, out, stride);
        case INT4: return multiply_panels<true>(m, first, last, x, tokens, out, stride);
        case Q8_0: return multiply_blocks<Q8_0>(m, first, last, x, tokens, out, stride);
        case Q4_0: return multiply_panels<true>(m, first, last, with_round_scales(x), tokens, out, stride);
        case Q4_1: return multiply_blocks<Q4_1>(m, first, last, x, tokens, out, stride);
        case Q5_1: return multiply_blocks<Q5_1>(m, first, last, x, tokens, out, stride);
        case Q2_K: return multiply_blocks<Q2_K>(m, first, last, x, tokens, out, stride);
        case Q3_K: return multiply_blocks<Q3_K>(m, first, last, x, tokens, out, stride);
        case Q4_K: return multiply_blocks<Q4_K>(m, first, last, x, tokens, out, stride);
        case Q5_K: return multiply_blocks<Q5_K>(m, first, last, x, tokens, out, stride);
        case Q6_K: return multiply_blocks<Q6_K>(m, first, last, x, tokens, out, stride);
        case IQ4_XS: return multiply_blocks<IQ4_XS>(m, first, last, x, tokens, out, stride);
    }
}

// One row of a matrix as floats [columns].
static void read_row(const Matrix& m, int64_t row, float* out) {
    const uint8_t* data = m.data + row * m.columns * (m.format == FLOAT32 ? 4 : 2);
    for (int64_t k = 0; k < m.columns; k++) {
        uint16_t bits;
        switch (m.format) {
            case FLOAT32: memcpy(out + k, data + 4 * k, 4); break;
            case FLOAT16: case F16: memcpy(&bits, data + 2 * k, 2); out[k] = half_to_float(bits); break;
            case BFLOAT16: memcpy(&bits, data + 2 * k, 2); out[k] = bf16_to_float(bits); break;
            case INT8: case INT4: case Q8_0: case Q4_0: {
                bool four = m.format == INT4 || m.format == Q4_0;
                int64_t group = k / GROUP, quartet = k % GROUP / 4, lane = row % LANES, each = group_bytes(m.format);
                const uint8_t* pair = m.data + row / LANES * panel_bytes(m.format, m.columns) + group / 2 * (64 + 2 * each);
                memcpy(&bits, pair + group % 2 * 32 + lane * 2, 2);
                const uint8_t* weights = pair + 64 + group % 2 * each;
                int byte = weights[(four ? quartet % 4 : quartet) * 64 + lane * 4 + k % 4];
                int value = four ? (quartet < 4 ? byte & 15 : byte >> 4) - 8 : byte - 128;
                out[k] = half_to_float(bits) * (float)value;
                break;
            }
            default: out[k] = number_of_block(m.format, m.data + row / LANES * panel_bytes(m.format, m.columns), row % LANES, k);
        }
    }
}

}  // namespace TGEN_KERNEL
