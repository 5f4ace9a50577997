// The data structures that all kernels share: matrices, norms, instructions, and the pages of the cache.
//
// Python compiles a model's spec into a program of a few kinds of instruction (tgen/executors/native/program.py), and a kernel runs it. So
// this library knows no architecture.
#pragma once

#include <stddef.h>
#include <stdint.h>

// The formats of stored numbers. The first four are row-major, straight from the file. INT8 and INT4 are packed panels (pack.h).
//
// F16 and the formats from Q8_0 to IQ4_XS are matrices of GGUF files, by ggml's names, which multiply vectors as llama.cpp does. F16
// multiplies vectors that are rounded to float16. The others are panels (pack.h, gguf/blocks.h), and the vectors are rounded to 8 bits as
// llama.cpp rounds them. The last two are caches in float16 that multiply queries and weights in float16 (caches.h).
enum Format { FLOAT32, FLOAT16, BFLOAT16, F16, INT8, INT4, Q8_0, Q4_0, Q4_1, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_XS, HALVES, PAIRED_HALVES };

// The formats that read a vector in each of its rounded forms (inputs.h), as bits.
constexpr int32_t PLAIN_INTEGERS = 1 << INT8 | 1 << INT4, ROUND_SCALES = 1 << Q8_0 | 1 << Q4_0, ROUND_SUMS = 1 << Q4_1 | 1 << Q5_1;
constexpr int32_t BY_GROUP = PLAIN_INTEGERS | ROUND_SCALES | ROUND_SUMS;
constexpr int32_t BY_SUPER = 1 << Q2_K | 1 << Q3_K | 1 << Q4_K | 1 << Q5_K | 1 << Q6_K | 1 << IQ4_XS;

constexpr int64_t LANES = 16;   // rows of a panel, and positions of a page
constexpr int64_t GROUP = 32;   // columns that share a scale
constexpr int64_t SUPER = 256;  // columns that share the scale of their scales, in ggml's K types
constexpr int64_t CHUNK = 512;  // the most positions whose attention is one partial sum
constexpr int64_t HUGE_PAGE = 2 << 20;  // bytes
constexpr int MAX_THREADS = 64;

// The bytes of the huge pages that hold so many bytes.
static inline int64_t whole_pages(int64_t bytes) { return (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE; }

struct Matrix {
    int32_t format, rows, columns;
    const uint8_t* data;  // [rows][columns], or panels
    const float* bias;    // [rows], or null
};

struct Norm {
    int32_t kind;  // 0: root mean square, 1: layer norm
    int32_t width;
    float eps;
    const float* weight;
    const float* bias;  // null for none
};

// Bytes of the weights of a group of columns in a panel without minima and nested scales. Such a panel holds, for every 64 columns, 2 x 16
// scales in float16 and the weights of two groups, each for 16 rows.
static inline int64_t group_bytes(int32_t format) { return LANES * GROUP / (format == INT4 || format == Q4_0 ? 2 : 1); }

// The layout of the panels for ggml's types with minima or with nested scales.
struct Blocks {
    int low, high;  // bits of an integer: 4 or 8 in one place, and perhaps 2 more in another
    int width;      // columns that share a scale
    bool minima;    // whether they also share a minimum
    int zero;       // the number by which every stored integer is too large
};

constexpr Blocks blocks_of(int32_t format) {
    return format == Q4_1   ? Blocks{4, 0, 32, true, 0}
           : format == Q5_1 ? Blocks{4, 2, 32, true, 0}
           : format == Q2_K ? Blocks{4, 0, 16, true, 0}
           : format == Q3_K ? Blocks{4, 0, 16, false, 4}
           : format == Q4_K ? Blocks{4, 0, 32, true, 0}
           : format == Q5_K ? Blocks{4, 2, 32, true, 0}
           : format == Q6_K ? Blocks{4, 2, 16, false, 32}
                            : Blocks{8, 0, 32, false, 128};
}

// Bytes before the integers in a block of a panel. A block of 64 columns has scales and minima in float16. A block of 256 columns has
// factors of scales and of minima in float16, and then the scales and minima in bytes.
constexpr int64_t head_of_block(int32_t format) {
    return 1 << format & BY_SUPER ? 64 + SUPER / blocks_of(format).width * LANES * (blocks_of(format).minima ? 2 : 1) : 128;
}

constexpr int64_t columns_of_block(int32_t format) { return 1 << format & BY_SUPER ? SUPER : 2 * GROUP; }
constexpr int64_t bytes_of_block(int32_t format) {
    return head_of_block(format) + columns_of_block(format) * LANES * (blocks_of(format).low + blocks_of(format).high) / 8;
}

static inline int64_t panel_bytes(int32_t format, int64_t columns) {
    if (1 << format & (ROUND_SUMS | BY_SUPER)) return (columns + columns_of_block(format) - 1) / columns_of_block(format) * bytes_of_block(format);
    return (columns + 63) / 64 * (64 + 2 * group_bytes(format));
}

// One layer of the cache. `offset` counts the bytes of a page that earlier layers take.
struct CacheLayer {
    int32_t kv_heads, head_dim;
    int64_t offset;
};

// Bytes of a head's keys in a page, and of its values: [head_dim][16] and [16][head_dim]. Integers have other layouts (kernels/caches.h).
// A load of sixteen values may read past the last value; room is left there, because another thread may be writing what follows.
static inline int64_t key_bytes(int32_t format, int64_t head_dim) {
    return format == INT8 ? panel_bytes(INT8, head_dim) + LANES * 4 : LANES * head_dim * (format == FLOAT32 ? 4 : 2);
}

static inline int64_t value_bytes(int32_t format, int64_t head_dim) {
    if (format == INT8) return (head_dim + LANES - 1) / LANES * LANES * LANES;
    return (LANES * head_dim + (head_dim % LANES ? LANES : 0)) * (format == FLOAT32 ? 4 : 2);
}

struct Slabs;

struct Geometry {
    int32_t owners;  // how many owners it has: the model and its rows
    int32_t format;  // FLOAT32, FLOAT16, INT8, HALVES or PAIRED_HALVES
    int32_t layers;
    int64_t page_bytes, slab_pages;
    int64_t chunk;  // positions whose attention is one partial sum; the same for all rows, so that sums have one order
    CacheLayer* layer;
    Slabs* slabs;
};

// Sixteen positions of a row in all layers. Rows may share a page; a row that is about to write to a shared page copies the page first.
struct Page {
    int32_t owners, number;  // among those of its slab
    struct Slab* slab;
    uint8_t* memory;  // of the slab
};

// Where a head's keys and values stand in a slab: those of all its pages side by side, so that attention reads long runs of memory.
struct Head {
    int64_t keys_at, values_at, key_bytes, value_bytes;
};

static inline Head head_of(const Geometry* geometry, int32_t layer_number, int64_t kv_head) {
    const CacheLayer& layer = geometry->layer[layer_number];
    const int64_t keys = key_bytes(geometry->format, layer.head_dim), values = value_bytes(geometry->format, layer.head_dim);
    const int64_t at = geometry->slab_pages * (layer.offset + kv_head * (keys + values));
    return {at, at + geometry->slab_pages * keys, keys, values};
}

// A page's slab and its number there in one word: slabs begin at huge memory pages, and have fewer pages than that has bytes. Attention reads
// these words alone, side by side in a row: a step reads so much memory that each page's record would have left the caches since the last layer.
typedef uintptr_t Spot;

static inline Spot spot_of(const Page* page) { return (Spot)page->memory | (Spot)page->number; }

// A page's part of a run that starts `run` bytes into its slab, of so many bytes a page.
static inline uint8_t* part_of(Spot spot, int64_t run, int64_t bytes) {
    return (uint8_t*)(spot & ~(Spot)(HUGE_PAGE - 1)) + run + (int64_t)(spot & (HUGE_PAGE - 1)) * bytes;
}
static inline uint8_t* keys_of(const Head& head, Spot spot) { return part_of(spot, head.keys_at, head.key_bytes); }
static inline uint8_t* values_of(const Head& head, Spot spot) { return part_of(spot, head.values_at, head.value_bytes); }

struct Row {
    Geometry* geometry;
    int32_t length, pages, capacity;
    Page** page;
    Spot* spot;   // of each page
    Row* source;  // keys and values of the encoder's text, or null
    int32_t owners;
};

enum Kind { EMBED, JOIN, MULTIPLY, ATTEND, SELECT, STORE_KEYS, EXPERTS };
enum Activation { NO_ACTIVATION, GELU, GELU_TANH, SILU, RELU, RELU_SQUARED, XIELU, CLAMPED, GELU_HALF };
enum Scores { SOFTMAX, SIGMOID, SPARSEMIXER };
enum Span { EACH_HEAD, OWN_HEAD, WHOLE_WIDTH };  // the span of a norm of queries or keys; in the last two, each head has its own weights
enum Place { HIDDEN, MIXED, INNER, OUTPUT, PROJECTED, LOGITS, ROUTED };  // the places of vectors between instructions

// One instruction. Fields that its kind does not use are 0, or -1 if they number a matrix, a norm or a table.
struct Instruction {
    int32_t kind;
    // JOIN: x = after(x + before(y)), then hidden = into(x); with `early`, hidden = into(x) comes first. A norm of -1 changes nothing.
    int32_t add;  // 0: y is not added; 1: y is added; 2: y replaces x
    int32_t early, before, after, into;
    float scale;  // EMBED: the factor of the embeddings; JOIN: the factor of hidden
    // MULTIPLY: target = activation(matrices[0] * source), times (matrices[1] * source) if gated; or up to three products side by side
    int32_t source, target, matrices[3], gated, activation;
    float softcap;  // MULTIPLY and ATTEND: bounds results to +-softcap by a tanh; 0 for none
    // EMBED: matrices[0] holds the embeddings, matrices[1] the vectors of positions from row `offset` on; `constant` is added to each
    int32_t offset;
    const float* constant;  // MULTIPLY and EXPERTS: three numbers of XIELU, or two of CLAMPED
    // ATTEND
    int32_t layer, cross, causal, heads, window, rope, distances, q_norm, k_norm;
    int32_t key_at, value_at;  // where keys and values start in PROJECTED, after the queries; also for STORE_KEYS
    int32_t norm_span, norm_after_rope;
    float clip;                       // bounds queries, keys and values to +-clip; 0 for none
    float growth_beta, growth_span;  // queries at position p are multiplied by 1 + beta * ln(1 + floor(p / span)); span 0 for none
    float attention_scale;
    const float* sinks;  // ATTEND, and the MULTIPLY after it: [heads] one further score for each head's softmax, or null
    int32_t formats;  // JOIN and MULTIPLY: bit f is set if a matrix of format f reads the vectors that this instruction prepares
    // EXPERTS: y = (y if `add`, else 0) + the weighted sum of what each token's experts make of hidden. matrices[0] is the first matrix of
    // expert 0. The matrices of an expert are its gate, if `gated`, and then the two others; the next expert's follow. `offset` is the
    // place in ROUTED of a logit whose sigmoid multiplies y first; 0 for none.
    int32_t experts, chosen, scores, normalised, groups, kept_groups, group_best, inner_formats;
    float route_scale, jitter;
    const float* correction;  // [experts] added to scores for the choice alone, or null
};

// Cosines and sines, [positions][dim / 2].
struct Rope {
    int32_t dim, positions;
    const float *cosine, *sine;
};

// Numbers added to scores, [heads][2 * reach], at the index key - query + reach; reach is a multiple of 16.
struct Distances {
    int32_t heads, reach;
    const float* table;
};

struct Program {
    Instruction* instructions;
    int32_t count;
};

// The rows of one run, with their ids side by side.
struct Batch {
    int32_t rows, tokens, chosen;
    Row** row;
    const int32_t* start;      // [rows + 1] each row's first token
    const int32_t* token_row;  // [tokens]
    const int32_t* ids;        // [tokens], or null when `vectors` are given
    const float* vectors;      // [tokens][width] that take the place of embeddings, or null
    const int32_t* selected;   // [chosen] tokens that SELECT keeps
    float* result;             // [chosen][result_stride] logits, or [tokens][result_stride] hidden states
    int64_t result_stride;     // at least the numbers of a result, rounded up to a multiple of 16
    const int32_t* interrupt;  // another thread writes a number other than 0 here to end the run early; or null
};

struct Arena;
struct Pool;

struct Model {
    int32_t width, inner, projected, mixed, routed;  // the most numbers that a token takes in each place
    int32_t experts, chosen, expert_inner;           // the largest mixture: its experts, the experts of a token, an expert's inner width
    Matrix* matrices;
    Norm* norms;
    Rope* ropes;
    Distances* distances;
    Pool* pool;
    Arena* arena;
};

// Runs a program over a batch on the threads of the pool. Returns 0 on success, 1 if memory ran out, 2 if the run was interrupted. After
// 1 or 2 the result means nothing.
//
// With `need`, it only says there how many bytes the model's buffers would take afterwards. So nothing but the rows' lengths and the cache's
// layout must be there, and no thread runs.
typedef int (*RunProgram)(Model*, const Program*, const Batch*, int64_t* need);
