// Mixtures of experts: the choice of each token's experts, and the weighted sum of their results.
//
// A token's sum adds its experts in ascending order, whatever the experts of other tokens are, so that its bits do not depend on these.
#pragma once

#include "run.h"

namespace TGEN_KERNEL {

constexpr int MOST_EXPERTS = 4096;

// The pairs of a token and an expert, side by side, that have the same expert.
struct Group {
    int32_t expert, first, count;
};

// The vectors of `input` from number `vector` on.
INLINE Input from(Input input, int64_t vector) {
    int64_t groups = input.stride / GROUP;
    input.floats += vector * input.stride;
    input.bf16 += vector * input.stride;
    input.halves += vector * input.stride;
    input.int8 += vector * input.stride;
    input.scale += vector * groups;
    input.sum += vector * groups;
    input.half_scale += vector * groups;
    input.half_sum += vector * groups;
    input.quartet += vector * (input.stride / 4);
    input.super_int8 += vector * supers_of(input.stride) * SUPER;
    input.super_scale += vector * supers_of(input.stride);
    input.super_sum += vector * supers_of(input.stride) * (SUPER / 16);
    return input;
}

// The index of the largest number that is not taken, and the first of equal ones. Even if all are NaN, it is an index that is not taken.
static int32_t largest_left(const float* numbers, const uint8_t* taken, int32_t count) {
    int32_t best = -1;
    for (int32_t i = 0; i < count; i++)
        if (!taken[i] && (best < 0 || numbers[i] > numbers[best])) best = i;
    return best;
}

// Marks every expert outside the best groups as taken, so that none of them is chosen.
static void keep_groups(const Instruction& op, const float* wanted, uint8_t* taken) {
    float best[MOST_EXPERTS];
    uint8_t kept[MOST_EXPERTS] = {};
    int32_t size = op.experts / op.groups;
    for (int32_t g = 0; g < op.groups; g++) {
        uint8_t* inside = taken + g * size;
        best[g] = 0;
        for (int32_t n = 0; n < op.group_best; n++) {
            int32_t i = largest_left(wanted + g * size, inside, size);
            best[g] += wanted[g * size + i];
            inside[i] = 1;
        }
    }
    for (int32_t n = 0; n < op.kept_groups; n++) kept[largest_left(best, kept, op.groups)] = 1;
    for (int32_t i = 0; i < op.experts; i++) taken[i] = !kept[i / size];
}

// SparseMixer (arXiv:2409.12136) chooses one expert after the other. A weight is a softmax over the experts that are left and whose logits
// are near the highest one.
static void choose_mixed(const Instruction& op, const float* logits, uint8_t* taken, int32_t* chosen, float* weight) {
    for (int32_t n = 0; n < op.chosen; n++) {
        int32_t best = largest_left(logits, taken, op.experts);
        float top = logits[best], total = 0;
        for (int32_t i = 0; i < op.experts; i++) {
            bool far = (top - logits[i]) / fmaxf(fabsf(logits[i]), top) > 2 * op.jitter;
            if (!taken[i] && !far) total += expf(logits[i] - top);
        }
        taken[best] = 1;
        chosen[n] = best;
        weight[n] = 1.0f / total;
    }
}

// Chooses a token's experts, and gives them in ascending order with their weights.
static void choose(const Instruction& op, const float* logits, int32_t* chosen, float* weight) {
    uint8_t taken[MOST_EXPERTS] = {};
    float score[MOST_EXPERTS], wanted[MOST_EXPERTS];
    if (op.scores == SPARSEMIXER) {
        choose_mixed(op, logits, taken, chosen, weight);
    } else {
        float top = -INFINITY;
        double total = 0;
        for (int32_t i = 0; i < op.experts; i++) top = fmaxf(top, logits[i]);
        for (int32_t i = 0; i < op.experts; i++) {
            score[i] = op.scores == SOFTMAX ? expf(logits[i] - top) : 1.0f / (1.0f + expf(-logits[i]));
            total += (double)score[i];
        }
        const float inverse = (float)(1.0 / total);
        for (int32_t i = 0; i < op.experts; i++) {
            if (op.scores == SOFTMAX) score[i] *= inverse;
            wanted[i] = op.correction ? score[i] + op.correction[i] : score[i];
        }
        if (op.groups > 1) keep_groups(op, wanted, taken);
        float sum = 0;
        for (int32_t n = 0; n < op.chosen; n++) {
            chosen[n] = largest_left(wanted, taken, op.experts);
            taken[chosen[n]] = 1;
            sum += weight[n] = score[chosen[n]];
        }
        for (int32_t n = 0; n < op.chosen; n++) weight[n] = weight[n] / (op.normalised ? fmaxf(sum, 1e-20f) : 1.0f) * op.route_scale;
    }
    for (int32_t n = 1; n < op.chosen; n++) {
        int32_t expert = chosen[n], to = n;
        float its = weight[n];
        for (; to > 0 && chosen[to - 1] > expert; to--) {
            chosen[to] = chosen[to - 1];
            weight[to] = weight[to - 1];
        }
        chosen[to] = expert;
        weight[to] = its;
    }
}

// Sorts the pairs of all tokens by expert.
static void sort_pairs(const Run& run, const Instruction& op) {
    const Routes& routes = run.routes;
    int64_t pairs = run.tokens * op.chosen;
    memset(routes.start, 0, (size_t)(op.experts + 1) * 4);
    for (int64_t p = 0; p < pairs; p++) routes.start[routes.chosen[p] + 1]++;
    for (int32_t e = 0; e < op.experts; e++) routes.start[e + 1] += routes.start[e];
    int32_t next[MOST_EXPERTS];
    memcpy(next, routes.start, (size_t)op.experts * 4);
    for (int64_t p = 0; p < pairs; p++) {
        int32_t to = next[routes.chosen[p]]++;
        routes.pair_token[to] = (int32_t)(p / op.chosen);
        routes.pair_weight[to] = routes.weight[p];
    }
}

// Copies the forms of a token's vector that `formats` asks for.
static void copy_vector(const Input& from, int64_t token, const Input& to, int64_t pair, int32_t formats) {
    int64_t stride = from.stride, groups = stride / GROUP;
    memcpy(to.floats + pair * stride, from.floats + token * stride, (size_t)stride * 4);
    if (formats & ROUNDED) memcpy(to.bf16 + pair * stride, from.bf16 + token * stride, (size_t)stride * 2);
    if (formats >> F16 & 1) memcpy(to.halves + pair * stride, from.halves + token * stride, (size_t)stride * 4);
    if (formats & BY_SUPER) {
        const int64_t supers = supers_of(stride);
        memcpy(to.super_int8 + pair * supers * SUPER, from.super_int8 + token * supers * SUPER, (size_t)(supers * SUPER));
        memcpy(to.super_scale + pair * supers, from.super_scale + token * supers, (size_t)supers * 4);
        memcpy(to.super_sum + pair * supers * (SUPER / 16), from.super_sum + token * supers * (SUPER / 16), (size_t)(supers * (SUPER / 16)) * 4);
    }
    if (formats & BY_GROUP) {
        memcpy(to.int8 + pair * stride, from.int8 + token * stride, (size_t)stride);
        memcpy(to.scale + pair * groups, from.scale + token * groups, (size_t)groups * 4);
        memcpy(to.sum + pair * groups, from.sum + token * groups, (size_t)groups * 4);
    }
    if (formats & (ROUND_SCALES | ROUND_SUMS)) memcpy(to.half_scale + pair * groups, from.half_scale + token * groups, (size_t)groups * 4);
    if (formats & ROUND_SUMS) memcpy(to.half_sum + pair * groups, from.half_sum + token * groups, (size_t)groups * 4);
    if (formats >> Q8_0 & 1) memcpy(to.quartet + pair * (stride / 4), from.quartet + token * (stride / 4), (size_t)stride);
}

// Chooses the experts, lists the groups and returns their number. With several tokens, it also gathers the vectors of each expert's tokens.
static int32_t route(const Run& run, const Instruction& op, int thread, const Input& hidden, Group* groups, const int32_t** token, const float** weight) {
    const Routes& routes = run.routes;
    int64_t first, last;
    own_tokens(run, thread, &first, &last);
    for (int64_t t = first; t < last; t++) {
        int64_t at = place(run, t, thread) * op.chosen;
        choose(op, run.routed + t * run.routed_stride, routes.chosen + at, routes.weight + at);
    }
    if (!run.several) {
        static const int32_t NO_TOKEN[MOST_EXPERTS] = {};
        *token = NO_TOKEN;
        *weight = routes.weight + thread * op.chosen;
        for (int32_t n = 0; n < op.chosen; n++) groups[n] = {routes.chosen[thread * op.chosen + n], n, 1};
        return op.chosen;
    }
    pool_barrier(run.model->pool, thread);
    if (thread == 0) sort_pairs(run, op);
    pool_barrier(run.model->pool, thread);
    share(run.tokens * op.chosen, 1, run.threads, thread, &first, &last);
    for (int64_t p = first; p < last; p++) copy_vector(hidden, routes.pair_token[p], routes.gathered, p, op.formats);
    pool_barrier(run.model->pool, thread);
    int32_t count = 0;
    for (int32_t e = 0; e < op.experts; e++)
        if (routes.start[e] < routes.start[e + 1]) groups[count++] = {e, routes.start[e], routes.start[e + 1] - routes.start[e]};
    *token = routes.pair_token;
    *weight = routes.pair_weight;
    return count;
}

// Sets the sums of the experts to zero in the thread's columns, and moves the shared part's result from y to `routes.shared`.
static void start_sums(const Run& run, const Instruction& op, int64_t first, int64_t last) {
    for (int64_t t = 0; t < run.tokens; t++) {
        float factor = 1;
        if (op.offset) {  // the sigmoid of the gate, as llama.cpp computes it
            float gate = run.routed[t * run.routed_stride + op.offset];
            factor = gate != 0 ? gate / (1.0f + expf(-gate)) / gate : 0.5f;
        }
        for (int64_t i = first; i < last; i += LANES) {
            float* y = run.y + t * run.y_stride + i;
            if (op.add) store(run.routes.shared + t * run.routes.part_stride + i, mul(load(y), all(factor)));
            store(y, all(0.0f));
        }
    }
}

static void mix_experts(const Run& run, const Instruction& op, int thread) {
    const Model& model = *run.model;
    const Routes& routes = run.routes;
    Group groups[MOST_EXPERTS];
    const int32_t* token;
    const float* weight;
    Input hidden = run.hidden, inner = routes.inner_input;
    hidden.stride = padded(model.width);
    const int32_t each = op.gated ? 3 : 2;
    const int32_t count = route(run, op, thread, hidden, groups, &token, &weight);
    const Matrix* matrices = model.matrices + op.matrices[0];
    int64_t first, last;
    for (int32_t g = 0; g < count; g++) {
        const Matrix* of = matrices + groups[g].expert * each;
        share(of->rows, LANES, run.threads, thread, &first, &last);
        if (first >= last) continue;
        Input input = run.several ? from(routes.gathered, groups[g].first) : from(hidden, thread);
        float *out = routes.inner + groups[g].first * routes.inner_stride + first, *up = out + routes.inner_stride / 2;
        multiply(of[0], first, of[0].format >= INT8 ? lanes_of(last) : last, input, groups[g].count, out, routes.inner_stride);
        if (op.gated) multiply(of[1], first, of[1].format >= INT8 ? lanes_of(last) : last, input, groups[g].count, up, routes.inner_stride);
        finish_rows(op, of[0].bias, op.gated ? of[1].bias : nullptr, first, last, groups[g].count, out, up, routes.inner_stride);
    }
    pool_barrier(model.pool, thread);
    const int64_t columns = matrices[each - 1].columns;
    inner.stride = padded(columns);
    share(run.tokens * op.chosen, 1, run.threads, thread, &first, &last);
    for (int64_t p = first; p < last; p++) prepare(inner, p, routes.inner + p * routes.inner_stride, columns, op.inner_formats);
    pool_barrier(model.pool, thread);
    share(model.width, LANES, run.threads, thread, &first, &last);
    start_sums(run, op, first, last);
    for (int32_t g = 0; g < count && first < last; g++) {
        const Matrix& down = matrices[groups[g].expert * each + each - 1];
        float* out = routes.part + first;
        multiply(down, first, down.format >= INT8 ? lanes_of(last) : last, from(inner, groups[g].first), groups[g].count, out, routes.part_stride);
        for (int32_t n = 0; n < groups[g].count; n++) {
            float* y = run.y + token[groups[g].first + n] * run.y_stride;
            Floats factor = all(weight[groups[g].first + n]);
            for (int64_t i = first; i < last; i += LANES) {
                Floats value = load(out + n * routes.part_stride + i - first);
                if (down.bias) value = add(value, load_some(down.bias + i, last - i));
                store(y + i, add(load(y + i), mul(value, factor)));
            }
        }
    }
    for (int64_t t = 0; op.add && t < run.tokens; t++)
        for (int64_t i = first; i < last; i += LANES) {
            float* y = run.y + t * run.y_stride + i;
            store(y, add(load(y), load(routes.shared + t * routes.part_stride + i)));
        }
    pool_barrier(model.pool, thread);
}

// Takes the buffers for the mixtures of a run from the arena. `places` and `formats` are those of take_buffers.
static void take_expert_buffers(Run* run, Arena* arena, int64_t places, int32_t formats) {
    const Model& model = *run->model;
    Routes& routes = run->routes;
    int64_t pairs = run->tokens * model.chosen;
    run->routed_stride = padded(model.routed);
    run->routed = (float*)arena_take(arena, run->tokens * run->routed_stride * 4);
    routes.chosen = (int32_t*)arena_take(arena, places * model.chosen * 4);
    routes.weight = (float*)arena_take(arena, places * model.chosen * 4);
    routes.start = (int32_t*)arena_take(arena, (model.experts + 1) * (int64_t)sizeof(int32_t));
    routes.pair_token = (int32_t*)arena_take(arena, pairs * 4);
    routes.pair_weight = (float*)arena_take(arena, pairs * 4);
    if (run->several) routes.gathered = make_input(arena, pairs, model.width, formats);
    routes.inner_stride = 2 * padded(model.expert_inner);
    routes.inner = (float*)arena_take(arena, pairs * routes.inner_stride * 4);
    routes.inner_input = make_input(arena, pairs, model.expert_inner, formats);
    routes.part_stride = padded(model.width);
    routes.part = (float*)arena_take(arena, run->tokens * routes.part_stride * 4);
    routes.shared = (float*)arena_take(arena, run->tokens * routes.part_stride * 4);
}

}  // namespace TGEN_KERNEL
