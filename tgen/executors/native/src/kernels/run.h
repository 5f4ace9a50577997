// What the instructions of a program share: the buffers of a run, the division of work among threads, and activations.
#pragma once

#include "../arena.h"
#include "multiply.h"
#include "../threads.h"

namespace TGEN_KERNEL {

constexpr int64_t LINE = 16;  // counters in a line of the processor's cache

// Some queries of a row that one thread computes at once, for one head of keys: those of one token with one chunk of keys, or those of
// several tokens with all keys.
struct Item {
    int32_t row, token, tokens, chunk;  // chunk -1: all
};

// The buffers of a mixture. A pair is a token and one of its experts. Pairs are ordered by expert, and those of an expert by token.
struct Routes {
    int32_t* chosen;       // [places][chosen] each token's experts, in ascending order
    float* weight;         // [places][chosen] the weights of these experts
    int32_t* start;        // [experts + 1] each expert's first pair
    int32_t* pair_token;   // [pairs]
    float* pair_weight;    // [pairs]
    Input gathered;        // [pairs] the tokens' vectors
    float* inner;          // [pairs][inner_stride]
    int64_t inner_stride;
    Input inner_input;     // [pairs]
    float* part;           // [tokens][part_stride] the results of one expert for its tokens
    float* shared;         // [tokens][part_stride] the results of the shared part for all tokens
    int64_t part_stride;
};

struct Run {
    Model* model;
    const Program* program;
    const Batch* batch;
    int threads;
    int64_t tokens;  // all tokens of the batch; from SELECT on, the chosen ones
    float *x, *chosen_x, *y, *projected, *mixed, *inner;
    Input hidden, other;
    int64_t x_stride, y_stride, projected_stride, mixed_stride, inner_stride, logits_stride;
    Item *items, *cross_items;
    int64_t item_count, cross_item_count;
    int64_t* partial_at;  // [tokens] where a token's partial results start; -1: it has none
    float* partials;      // [..][heads] the results of chunks (Chunks of attention.h)
    float* own_partials;  // [threads][QUERIES] the same for what a thread does at once, own_stride floats for each query
    int64_t own_stride;
    int32_t* halted;      // [2] whether the run was interrupted, as thread 0 saw it before this instruction and the last one
    int32_t* taken;       // [2][threads][LINE] how many blocks of a thread's share are taken
    int phase;            // which half of `taken` the next work uses
    float* routed;        // [tokens][routed_stride] the router's logits, and that of the shared part's gate
    int64_t routed_stride;
    Routes routes;
    bool several;         // more than one token, so that vectors are shared between threads
};

// Whether another thread wants the run to end early. An instruction may then leave out work, because the run ends before the next
// instruction.
INLINE bool is_hurried(const Run& run) { return run.batch->interrupt && __atomic_load_n(run.batch->interrupt, __ATOMIC_RELAXED); }

// A thread's share [first, last) of `count` items; shares begin at multiples of `unit`.
INLINE void share(int64_t count, int64_t unit, int threads, int thread, int64_t* first, int64_t* last) {
    int64_t units = (count + unit - 1) / unit;
    *first = units * thread / threads * unit;
    *last = units * (thread + 1) / threads * unit;
    if (*last > count) *last = count;
    if (*first > count) *first = count;
}

// Divides `count` items in blocks among the threads, and waits until all are done. Each thread has its own share and takes the blocks of it
// in order. Then it helps the others, because cores do not read memory equally fast. A share is a multiple of `unit` items.
//
// A thread takes half of the blocks that are left, down to one: at each taking the processor waits for all that it has asked memory for.
//
// The counters of the last such work are set back now: every thread has passed its barrier, and none has passed this one's.
template <class Work>
INLINE void in_blocks(Run& run, int thread, int64_t count, int64_t unit, int64_t block, Work work) {
    int32_t *taken = run.taken + run.phase * run.threads * LINE, *next = run.taken + (1 - run.phase) * run.threads * LINE;
    __atomic_store_n(next + thread * LINE, 0, __ATOMIC_RELAXED);
    for (int turn = 0; turn < run.threads; turn++) {
        int owner = (thread + turn) % run.threads;
        int64_t first, last;
        share(count, unit, run.threads, owner, &first, &last);
        const int32_t blocks = (int32_t)((last - first + block - 1) / block);
        for (;;) {
            int32_t from = __atomic_load_n(taken + owner * LINE, __ATOMIC_RELAXED), to = from + (blocks - from + 1) / 2;
            if (from >= blocks) break;
            if (!__atomic_compare_exchange_n(taken + owner * LINE, &from, to, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) continue;
            for (int64_t at = first + block * from; from < to; from++, at += block) work(at, at + block < last ? at + block : last);
        }
    }
    run.phase = 1 - run.phase;
    pool_barrier(run.model->pool, thread);
}

// The tokens [first, last) whose vectors a thread computes.
INLINE void own_tokens(const Run& run, int thread, int64_t* first, int64_t* last) {
    if (run.several) return share(run.tokens, 1, run.threads, thread, first, last);
    *first = 0;
    *last = run.tokens;
}

// The place of a token's vectors. With one token, each thread computes them in its own place.
INLINE int64_t place(const Run& run, int64_t token, int thread) { return run.several ? token : thread; }

// Memory for the vectors of some tokens, in the forms that matrices of these formats read.
static Input make_input(Arena* arena, int64_t tokens, int64_t width, int32_t formats) {
    int64_t stride = padded(width);
    Input input;
    input.stride = stride;
    const auto take = [=](int32_t readers, int64_t bytes) { return arena_take(arena, formats & readers ? tokens * bytes : 0); };
    const int64_t groups = stride / GROUP, supers = supers_of(stride);
    input.floats = (float*)arena_take(arena, tokens * stride * 4);
    input.bf16 = (uint16_t*)take(ROUNDED, stride * 2);
    input.halves = (float*)take(1 << F16, stride * 4);
    input.int8 = (int8_t*)take(BY_GROUP, stride);
    input.scale = (float*)take(BY_GROUP, groups * 4);
    input.sum = (int32_t*)take(BY_GROUP, groups * 4);
    input.half_scale = (float*)take(ROUND_SCALES | ROUND_SUMS, groups * 4);
    input.half_sum = (float*)take(ROUND_SUMS, groups * 4);
    input.quartet = (int32_t*)take(1 << Q8_0, stride);
    input.super_int8 = (int8_t*)take(BY_SUPER, supers * SUPER);
    input.super_scale = (float*)take(BY_SUPER, supers * 4);
    input.super_sum = (int32_t*)take(BY_SUPER, supers * (SUPER / 16) * 4);
    return input;
}

INLINE Floats activate(int activation, const float* numbers, Floats x) {
    switch (activation) {
        case GELU: return mul(mul(x, all(0.5f)), one_plus_erf(mul(x, all(0.70710678f))));
        case GELU_TANH: {
            Floats cubic = mul(x, fma(mul(x, x), all(0.044715f), all(1.0f)));
            return mul(mul(x, all(0.5f)), add(hyperbolic_tangent(mul(cubic, all(0.79788456f))), all(1.0f)));
        }
        case GELU_HALF: {  // llama.cpp looks the value up in a table for float16
            Floats rough = half_of(x), cubic = mul(rough, fma(mul(rough, rough), all(0.044715f), all(1.0f)));
            Floats value = half_of(mul(mul(rough, all(0.5f)), add(hyperbolic_tangent(mul(cubic, all(0.79788456f))), all(1.0f))));
            value = where_positive(sub(x, all(-10.0f)), value, all(0.0f));
            return where_positive(sub(all(10.0f), x), value, x);
        }
        case SILU: return div(x, add(all(1.0f), exponential(sub(all(0.0f), x))));
        case RELU: return max(x, all(0.0f));
        case RELU_SQUARED: { Floats r = max(x, all(0.0f)); return mul(r, r); }
        case XIELU: {  // numbers: softplus(alpha_p), beta + softplus(alpha_n), beta
            Floats falling = mul(sub(sub(exponential(min(x, all(-1e-6f))), all(1.0f)), x), all(numbers[1]));
            return fma(x, all(numbers[2]), where_positive(x, mul(mul(x, x), all(numbers[0])), falling));
        }
        default: return x;
    }
}

// Biases, activation, gate and softcap of rows first to last: `out` and `up` start at row `first`; numbers beyond the last row are not read.
static void finish_rows(const Instruction& op, const float* bias, const float* up_bias, int64_t first, int64_t last, int64_t tokens,
                        float* out, const float* up, int64_t stride) {
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t i = 0; i < last - first; i += LANES) {
            float* at = out + t * stride + i;
            int64_t left = last - first - i;
            Floats value = load(at), other = all(0.0f);
            if (bias) value = add(value, load_some(bias + first + i, left));
            if (op.gated) other = load(up + t * stride + i);
            if (up_bias) other = add(other, load_some(up_bias + first + i, left));
            if (op.activation == CLAMPED) {  // constant: alpha, limit
                Floats limit = all(op.constant[1]);
                value = min(value, limit);
                value = mul(value, sigmoid(mul(value, all(op.constant[0]))));
                other = add(max(min(other, limit), all(-op.constant[1])), all(1.0f));
            } else if (op.activation) {
                value = activate(op.activation, op.constant, value);
            }
            if (op.gated) value = mul(value, other);
            if (op.softcap != 0) value = mul(hyperbolic_tangent(div(value, all(op.softcap))), all(op.softcap));
            store_some(at, left, value);
        }
}

}  // namespace TGEN_KERNEL
