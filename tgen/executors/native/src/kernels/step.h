// Runs a program over a batch in one parallel region, in which every thread goes through all instructions.
//
// With one token, each thread repeats the cheap work on vectors (norms, sums, quantising) in its own memory, and so needs no barrier after
// it. With several tokens, each thread does this work for some of them.
#pragma once

#include "attention.h"
#include "experts.h"

namespace TGEN_KERNEL {

// Sixteen sums in double, so that the order of additions hardly ever changes the float that they are rounded to. llama.cpp also adds in
// double.
struct Sum {
    double lanes[LANES] = {};

    INLINE void add(Sum* sum, Floats x) {
        float some[LANES];
        store(some, x);
        for (int i = 0; i < LANES; i++) sum->lanes[i] += (double)some[i];
    }

    double total() const {
        double total = 0;
        for (double lane : lanes) total += lane;
        return total;
    }
};

// The mean (0 for a root mean square) and the inverse deviation of `width` numbers.
static void measure(const Norm& norm, const float* in, int64_t width, float* mean, float* inverse) {
    const int64_t whole = width / LANES * LANES;
    *mean = 0;
    if (norm.kind == 1) {
        Sum sum;
        for (int64_t i = 0; i < whole; i += LANES) Sum::add(&sum, load(in + i));
        for (int64_t i = whole; i < width; i++) sum.lanes[0] += (double)in[i];
        *mean = (float)(sum.total() / (double)width);
    }
    Sum squares;
    for (int64_t i = 0; i < whole; i += LANES) {
        Floats away = sub(load(in + i), all(*mean));
        Sum::add(&squares, mul(away, away));
    }
    for (int64_t i = whole; i < width; i++) squares.lanes[0] += (double)((in[i] - *mean) * (in[i] - *mean));
    *inverse = 1.0f / sqrtf((float)(squares.total() / (double)width) + norm.eps);
}

// out = (in - mean) * inverse * weight + bias, with weights from number `from` on.
static void rescale(const Norm& norm, const float* in, int64_t width, float mean, float inverse, int64_t from, float* out) {
    const float *weight = norm.weight + from, *bias = norm.bias ? norm.bias + from : nullptr;
    int64_t whole = width / LANES * LANES;
    for (int64_t i = 0; i < whole; i += LANES) {
        Floats value = mul(mul(sub(load(in + i), all(mean)), all(inverse)), load(weight + i));
        store(out + i, bias ? add(value, load(bias + i)) : value);
    }
    for (int64_t i = whole; i < width; i++) out[i] = (in[i] - mean) * inverse * weight[i] + (bias ? bias[i] : 0.0f);
}

static void normalise(const Norm& norm, const float* in, float* out) {
    float mean, inverse;
    measure(norm, in, norm.width, &mean, &inverse);
    rescale(norm, in, norm.width, mean, inverse, 0, out);
}

static void embed(const Run& run, const Instruction& op, int thread) {
    const Batch& batch = *run.batch;
    int64_t first, last, width = run.model->width;
    own_tokens(run, thread, &first, &last);
    for (int64_t t = first; t < last; t++) {
        float* x = run.x + place(run, t, thread) * run.x_stride;
        if (batch.vectors) {
            memcpy(x, batch.vectors + t * width, (size_t)width * 4);
            continue;
        }
        const Matrix& table = run.model->matrices[op.matrices[0]];
        read_row(table, batch.ids[t], x);
        if (op.scale != 1.0f)
            for (int64_t i = 0; i < table.columns; i++) x[i] *= op.scale;
        if (op.matrices[1] >= 0) {
            float* vector = run.hidden.floats + place(run, t, thread) * run.hidden.stride;  // free until the first JOIN
            int32_t row = batch.token_row[t];
            read_row(run.model->matrices[op.matrices[1]], batch.row[row]->length + t - batch.start[row] + op.offset, vector);
            for (int64_t i = 0; i < width; i++) x[i] += vector[i];
        }
        if (op.constant)
            for (int64_t i = 0; i < width; i++) x[i] += op.constant[i];
    }
}

static void join_residual(const Run& run, const Instruction& op, int thread) {
    const Model& model = *run.model;
    int64_t first, last, width = model.width;
    own_tokens(run, thread, &first, &last);
    Input input = run.hidden;
    input.stride = padded(width);
    for (int64_t t = first; t < last; t++) {
        int64_t at = place(run, t, thread);
        float *x = run.x + at * run.x_stride, *hidden = input.floats + at * input.stride;
        const float* y = run.y + t * run.y_stride;
        if (op.early) normalise(model.norms[op.into], x, hidden);
        if (op.add && op.before >= 0) {
            float* normed = run.other.floats + at * run.other.stride;
            normalise(model.norms[op.before], y, normed);
            y = normed;
        }
        if (op.add == 1)
            for (int64_t i = 0; i < width; i += LANES) store(x + i, add(load(x + i), load(y + i)));
        if (op.add == 2) memcpy(x, y, (size_t)width * 4);
        if (op.after >= 0) normalise(model.norms[op.after], x, x);
        if (!op.early) {
            if (op.into >= 0) normalise(model.norms[op.into], x, hidden);
            else memcpy(hidden, x, (size_t)width * 4);
        }
        if (op.scale != 1.0f)
            for (int64_t i = 0; i < width; i++) hidden[i] *= op.scale;
        prepare(input, at, hidden, width, op.formats);
    }
    if (run.several) pool_barrier(model.pool, thread);
}

// The memory of a place, and the distance from a token's vector there to the next token's.
INLINE float* target_of(const Run& run, int place, int64_t* stride) {
    switch (place) {
        case INNER: *stride = run.inner_stride; return run.inner;
        case PROJECTED: *stride = run.projected_stride; return run.projected;
        case ROUTED: *stride = run.routed_stride; return run.routed;
        case LOGITS: *stride = run.logits_stride; return run.batch->result;
        default: *stride = run.y_stride; return run.y;
    }
}

static void take_mixed(const Run& run, const Instruction& op, int64_t token, int thread, float* out);

constexpr int64_t START = 2048;  // bytes that are fetched before a thread begins to read a matrix

INLINE const uint8_t* row_of(const Matrix& m, int64_t row) {
    return m.data + (m.format >= INT8 ? row / LANES * panel_bytes(m.format, m.columns) : row * m.columns * (m.format == FLOAT32 ? 4 : 2));
}

// Fetch the rows with which a thread probably begins: of several matrices side by side, this looks only at the first.
INLINE void fetch_start(const Run& run, const Matrix& m, int thread) {
    int64_t first, last;
    share(lanes_of(m.rows), LANES, run.threads, thread, &first, &last);
    if (first < m.rows) fetch(row_of(m, first), START);
}

// How many rows a thread takes at once: about 16 KiB of weights and a panel or more, or 128 KiB and two if more than 16 tokens share them.
static int64_t block_rows(const Matrix& m, int64_t tokens) {
    int64_t bytes = m.format >= INT8 ? panel_bytes(m.format, m.columns) : LANES * m.columns * (m.format == FLOAT32 ? 4 : 2);
    int64_t panels = (tokens > 16 ? 131072 : 16384) / bytes, least = tokens > 16 ? 2 : 1;
    return LANES * (panels > least ? panels : least);
}

// Rows first to last of a MULTIPLY, with its biases and activation. `out` is the place of row `first`.
static void multiply_some(const Run& run, const Instruction& op, const Matrix& m, int64_t first, int64_t last, const Input& input, float* out,
                          int64_t stride) {
    if (op.gated && run.tokens == 1) fetch(row_of(run.model->matrices[op.matrices[1]], first), START);
    multiply(m, first, m.format >= INT8 ? lanes_of(last) : last, input, run.tokens, out, stride);
    const float *bias = m.bias, *up_bias = nullptr;
    float* up = nullptr;
    if (op.gated) {  // the gate's rows go to the target, those of the other matrix to a place of the same shape after it
        const Matrix& other = run.model->matrices[op.matrices[1]];
        up = out + run.inner_stride / 2;
        up_bias = other.bias;
        if (is_hurried(run)) return;
        if (run.tokens == 1 && last < m.rows) fetch(row_of(m, last), START);  // where the thread goes on after the other matrix
        multiply(other, first, other.format >= INT8 ? lanes_of(last) : last, input, run.tokens, up, stride);
    }
    if (bias || up_bias || op.gated || op.activation || op.softcap != 0)
        finish_rows(op, bias, up_bias, first, last, run.tokens, out, up, stride);
}

static void multiply_all(Run& run, const Instruction& op, int thread) {
    const Model& model = *run.model;
    const Matrix& leading = model.matrices[op.matrices[0]];
    if (!run.several) fetch_start(run, leading, thread);
    Input input = op.source == HIDDEN ? run.hidden : run.other;
    input.stride = padded(leading.columns);
    if (op.source != HIDDEN) {
        int64_t first, last;
        own_tokens(run, thread, &first, &last);
        for (int64_t t = first; t < last; t++) {
            int64_t at = place(run, t, thread);
            float* vector = input.floats + at * input.stride;
            if (op.source == MIXED) take_mixed(run, op, t, thread, vector);
            else memcpy(vector, run.inner + t * run.inner_stride, (size_t)leading.columns * 4);
            prepare(input, at, vector, leading.columns, op.formats);
        }
        if (run.several) pool_barrier(model.pool, thread);
    }
    if (!run.several) input = from(input, thread);  // the thread's own copy
    int64_t stride, rows = 0;
    float* target = target_of(run, op.target, &stride);
    const int parts = op.gated ? 1 : 3;
    for (int part = 0; part < parts && op.matrices[part] >= 0; part++) rows += lanes_of(model.matrices[op.matrices[part]].rows);
    in_blocks(run, thread, rows, LANES, block_rows(leading, run.tokens), [&](int64_t begin, int64_t end) {
        int64_t start = 0;
        for (int part = 0; part < parts && op.matrices[part] >= 0; part++) {
            const Matrix& m = model.matrices[op.matrices[part]];
            const int64_t first = begin > start ? begin - start : 0, last = end - start < m.rows ? end - start : m.rows;
            if (first < last && !is_hurried(run)) multiply_some(run, op, m, first, last, input, target + start + first, stride);
            start += lanes_of(m.rows);
        }
    });
}

static void turn(const Rope& rope, int64_t position, float* head) {
    const int64_t half = rope.dim / 2;
    const float *cosine = rope.cosine + position * half, *sine = rope.sine + position * half;
    for (int64_t i = 0; i < half; i += LANES) {
        Floats a = load_some(head + i, half - i), b = load_some(head + i + half, half - i);
        Floats c = load_some(cosine + i, half - i), s = load_some(sine + i, half - i);
        store_some(head + i, half - i, fma(a, c, sub(all(0.0f), mul(b, s))));
        store_some(head + i + half, half - i, fma(a, s, mul(b, c)));
    }
}

INLINE void clip(const Instruction& op, int64_t count, float* numbers) {
    if (op.clip != 0)
        for (int64_t i = 0; i < count; i++) numbers[i] = fminf(fmaxf(numbers[i], -op.clip), op.clip);
}

// One head of queries or keys as attention reads it: clipped, normalised, rotated. `heads` holds all heads of the token, side by side.
static void prepare_head(const Run& run, const Instruction& op, int32_t norm_number, const float* heads, int64_t head, int64_t dim,
                         int64_t position, float* out) {
    memcpy(out, heads + head * dim, (size_t)dim * 4);
    clip(op, dim, out);
    if (op.rope >= 0 && op.norm_after_rope) turn(run.model->ropes[op.rope], position, out);
    if (norm_number >= 0) {
        const Norm& norm = run.model->norms[norm_number];
        float mean, inverse;
        if (op.norm_span == WHOLE_WIDTH) measure(norm, heads, norm.width, &mean, &inverse);
        else measure(norm, out, dim, &mean, &inverse);
        rescale(norm, out, dim, mean, inverse, op.norm_span == EACH_HEAD ? 0 : head * dim, out);
    }
    if (op.rope >= 0 && !op.norm_after_rope) turn(run.model->ropes[op.rope], position, out);
}

// Writes a token's keys and values of one head into its row's page.
static void write_cache(const Run& run, const Instruction& op, const Row* row, int64_t token, int64_t position, int32_t kv_head) {
    const Geometry& geometry = *row->geometry;
    const CacheLayer& layer = geometry.layer[op.layer];
    const int64_t dim = layer.head_dim, slot = position % LANES;
    const float* projected = run.projected + token * run.projected_stride;
    alignas(64) float key[1024], value[1024];
    prepare_head(run, op, op.k_norm, projected + op.key_at, kv_head, dim, position, key);
    memcpy(value, projected + op.value_at + kv_head * dim, (size_t)dim * 4);
    clip(op, dim, value);
    memset(key + dim, 0, (size_t)(padded(dim) - dim) * 4);
    memset(value + dim, 0, (size_t)(padded(dim) - dim) * 4);
    const Head head = head_of(&geometry, op.layer, kv_head);
    const Spot spot = row->spot[position / LANES];
    uint8_t *keys = keys_of(head, spot), *values = values_of(head, spot);
    switch (geometry.format) {
        case FLOAT32: return FloatCache<Float32Numbers>::put(keys, values, dim, slot, key, value);
        case FLOAT16: case HALVES: case PAIRED_HALVES: return FloatCache<Float16Numbers>::put(keys, values, dim, slot, key, value);
        default: return Int8Cache::put(keys, values, dim, slot, key, value);
    }
}

INLINE int64_t position_of(const Run& run, int64_t token) {
    int32_t row = run.batch->token_row[token];
    return run.batch->row[row]->length + token - run.batch->start[row];
}

// Where an item begins for one key-value head.
static Stretch stretch_of(const Run& run, const Instruction& op, const Item& item, int64_t kv_head) {
    const Row* row = op.cross ? run.batch->row[item.row]->source : run.batch->row[item.row];
    return {row, head_of(row->geometry, op.layer, kv_head), item.chunk < 0 ? 0 : item.chunk * row->geometry->chunk};
}

// Some queries of an item for one key-value head, as attention takes them. A thread keeps them for the next chunk of their row.
struct Queries {
    int64_t token, from;
    int32_t kv_head;
    int count;
    Query query[QUERIES];
    alignas(64) float numbers[QUERIES * 1024], scales[QUERIES * 32];
    alignas(64) int8_t bytes[QUERIES * 1024];
    int32_t totals[QUERIES * 32];

    Input input(int64_t dim) {
        return {padded(dim), numbers, nullptr, nullptr, bytes, scales, totals, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
    }
};

// Prepare the queries of an item from number `from` on, which see keys before `length`.
static void prepare_queries(const Run& run, const Instruction& op, const Item& item, int32_t kv_head, int64_t from, const Geometry& geometry,
                            int64_t length, Queries* queries) {
    if (queries->token == item.token && queries->kv_head == kv_head && queries->from == from) return;
    const CacheLayer& layer = geometry.layer[op.layer];
    const int64_t dim = layer.head_dim, group = op.heads / layer.kv_heads, left = item.tokens * group - from;
    const Input input = queries->input(dim);
    queries->token = item.token;
    queries->kv_head = kv_head;
    queries->from = from;
    queries->count = (int)(left < QUERIES ? left : QUERIES);
    for (int n = 0; n < queries->count; n++) {
        int64_t token = item.token + (from + n) / group;
        int32_t head = (int32_t)(kv_head * group + (from + n) % group);
        int64_t position = position_of(run, token), end = op.causal ? position + 1 : length;
        if (op.window && end > position + op.window) end = position + op.window;
        float* vector = queries->numbers + n * input.stride;
        prepare_head(run, op, op.q_norm, run.projected + token * run.projected_stride, head, dim, position, vector);
        if (op.growth_span != 0) {
            float factor = 1.0f + op.growth_beta * log1pf(floorf((float)position / op.growth_span));
            for (int64_t i = 0; i < dim; i++) vector[i] *= factor;
        }
        prepare(input, n, vector, dim, geometry.format == INT8 ? 1 << INT8 : 0);
        if (geometry.format >= HALVES)
            for (int64_t i = 0; i < dim; i += LANES) store(vector + i, half_of(load(vector + i)));
        queries->query[n] = {position, op.window && position >= op.window ? position + 1 - op.window : 0, end, head};
    }
}

// A thread's own place for the results of chunks of the n-th of the queries that it takes at once.
INLINE float* own_partials(const Run& run, int thread, int n) { return run.own_partials + (thread * QUERIES + n) * run.own_stride; }

// Where the results of the chunks of a head's query stand, for a token that is alone in its row.
static Chunks chunks_of(const Run& run, const Row& row, int64_t token, int64_t head, int64_t dim) {
    const int64_t count = row.length / row.geometry->chunk + 1;
    return {count, dim, run.partials + run.partial_at[token] + head * Chunks::floats(count, dim)};
}

// All queries of an item for one key-value head. The thread reads `after` next; `cold` says that the item's keys
// were not fetched, because the thread did something else before.
static void attend_item(const Run& run, const Instruction& op, const Item& item, int32_t kv_head, const Stretch& after, bool cold, int thread,
                        Queries* queries) {
    const Batch& batch = *run.batch;
    const Stretch start = stretch_of(run, op, item, kv_head);
    const Row* row = start.row;
    const CacheLayer& layer = row->geometry->layer[op.layer];
    const int64_t dim = layer.head_dim, group = op.heads / layer.kv_heads, chunk = row->geometry->chunk;
    const int64_t length = op.cross ? row->length : row->length + batch.start[item.row + 1] - batch.start[item.row];
    const int64_t stop = item.chunk < 0 || start.begin + chunk > length ? length : start.begin + chunk;
    const Input input = queries->input(dim);
    Scene scene = {row, start.place, {}, cold, dim, &input, op.attention_scale, op.softcap, nullptr, 0, 0};
    if (op.distances >= 0) {
        const Distances& distances = run.model->distances[op.distances];
        scene.reach = distances.reach;
        scene.bias_stride = 2 * (int64_t)distances.reach;
        scene.biases = distances.table;
    }
    for (int64_t from = 0; from < item.tokens * group; from += QUERIES) {
        prepare_queries(run, op, item, kv_head, from, *row->geometry, length, queries);
        const Query* query = queries->query;
        Chunks chunks[QUERIES];
        for (int n = 0; n < queries->count; n++)
            chunks[n] = item.chunk < 0 ? Chunks{(length + chunk - 1) / chunk, dim, own_partials(run, thread, n)}
                                       : chunks_of(run, *row, item.token, query[n].head, dim);
        for (int64_t begin = start.begin; begin < stop; begin += chunk) {
            const bool again = from + QUERIES < item.tokens * group;
            scene.next = begin + chunk < stop ? Stretch{row, start.place, begin + chunk} : again ? start : after;
            Partial result[QUERIES];
            for (int n = 0; n < queries->count; n++) result[n] = {-INFINITY, 0, chunks[n].sums(begin / chunk)};
            attend(scene, query, queries->count, begin, begin + chunk < length ? begin + chunk : length, result);
            scene.cold = false;
            for (int n = 0; n < queries->count; n++) chunks[n].put(begin / chunk, result[n]);
        }
        for (int n = 0; n < queries->count && item.chunk < 0; n++) {
            float* out = run.mixed + (item.token + (from + n) / group) * run.mixed_stride + query[n].head * dim;
            join(chunks[n], op.sinks ? op.sinks + query[n].head : nullptr, chunks[n].top(0), out);
        }
    }
}

// A token's mixed heads: as they stand, or joined from the results of its chunks.
static void take_mixed(const Run& run, const Instruction& op, int64_t token, int thread, float* out) {
    const Batch& batch = *run.batch;
    int64_t columns = run.model->matrices[op.matrices[0]].columns;
    if (run.partial_at[token] < 0 || op.cross) {
        memcpy(out, run.mixed + token * run.mixed_stride, (size_t)columns * 4);
        return;
    }
    const Row* row = batch.row[batch.token_row[token]];
    const int64_t dim = row->geometry->layer[op.layer].head_dim;
    for (int64_t head = 0; head < columns / dim; head++)
        join(chunks_of(run, *row, token, head, dim), op.sinks ? op.sinks + head : nullptr, own_partials(run, thread, 0), out + head * dim);
}

static void attend_all(Run& run, const Instruction& op, int thread) {
    const Batch& batch = *run.batch;
    const Geometry& geometry = *(op.cross ? batch.row[0]->source : batch.row[0])->geometry;
    const int32_t kv_heads = geometry.layer[op.layer].kv_heads;
    if (!op.cross) {
        // If a row reads one token, the item that attends to the token's chunk writes its keys and values. Those of other rows are written
        // here.
        bool any = false;
        for (int32_t r = 0; r < batch.rows; r++) any |= batch.start[r + 1] - batch.start[r] > 1;
        if (any) {
            int64_t first, last;
            share(run.tokens, 1, run.threads, thread, &first, &last);
            for (int64_t t = first; t < last; t++) {
                int32_t r = batch.token_row[t];
                if (batch.start[r + 1] - batch.start[r] > 1)
                    for (int32_t head = 0; head < kv_heads; head++) write_cache(run, op, batch.row[r], t, position_of(run, t), head);
            }
            pool_barrier(run.model->pool, thread);
        }
    }
    // Head by head, since a head's keys stand side by side.
    const Item* items = op.cross ? run.cross_items : run.items;
    const int64_t each = op.cross ? run.cross_item_count : run.item_count;
    int64_t first, last;
    share(each * kv_heads, 1, run.threads, thread, &first, &last);
    Queries queries;
    queries.token = -1;
    in_blocks(run, thread, each * kv_heads, 1, 1, [&](int64_t number, int64_t) {
        if (is_hurried(run)) return;  // over a long text, attention takes much of a run
        const Item& item = items[number % each];
        int32_t head = (int32_t)(number / each);
        const Row* row = batch.row[item.row];
        bool alone = batch.start[item.row + 1] - batch.start[item.row] == 1;
        if (!op.cross && alone && (item.chunk < 0 || item.chunk == row->length / row->geometry->chunk))
            write_cache(run, op, row, item.token, row->length, head);
        const bool own = number >= first && number < last;  // not another thread's
        Stretch after = {};
        if (own && number + 1 < last) after = stretch_of(run, op, items[(number + 1) % each], (number + 1) / each);
        attend_item(run, op, item, head, after, !own || number == first, thread, &queries);
    });
}

static void store_keys(const Run& run, const Instruction& op, int thread) {
    int64_t first, last;
    share(run.tokens, 1, run.threads, thread, &first, &last);
    for (int64_t t = first; t < last; t++) {
        const Row* row = run.batch->row[run.batch->token_row[t]];
        for (int32_t head = 0; head < row->geometry->layer[op.layer].kv_heads; head++)
            write_cache(run, op, row, t, position_of(run, t), head);
    }
    pool_barrier(run.model->pool, thread);
}

// Keeps the tokens whose logits are wanted. Each thread has its own copy of the run, so each makes the same change.
static void select_tokens(Run* run, int thread) {
    const Batch& batch = *run->batch;
    if (batch.chosen < run->tokens) {
        bool several = batch.chosen > 1;
        int64_t first = 0, last = batch.chosen;
        if (several) share(batch.chosen, 1, run->threads, thread, &first, &last);
        if (run->several) pool_barrier(run->model->pool, thread);  // another thread may have computed the chosen token
        for (int64_t i = first; i < last; i++)
            memcpy(run->chosen_x + (several ? i : thread) * run->x_stride, run->x + batch.selected[i] * run->x_stride, (size_t)run->x_stride * 4);
        run->x = run->chosen_x;
        run->tokens = batch.chosen;
        run->several = several;
    }
    pool_barrier(run->model->pool, thread);  // a matrix may write to y next, which other threads may still read
}

// Whether to end the run early. All threads get the same answer: thread 0 looks, and the others wait for it. Answers alternate between two
// places, so that an answer is overwritten only after the next barrier, when all threads have read it.
static bool is_interrupted(const Run& run, int32_t instruction, int thread) {
    if (!run.batch->interrupt) return false;
    int32_t* halted = run.halted + instruction % 2;
    if (thread == 0) *halted = is_hurried(run);
    pool_barrier(run.model->pool, thread);
    return *halted != 0;
}

static void work(void* argument, int thread) {
    Run run = *(Run*)argument;
    for (int32_t i = 0; i < run.program->count; i++) {
        const Instruction& op = run.program->instructions[i];
        fetch((const uint8_t*)(&op + 1), sizeof op);  // the matrices read since the last step have driven it from the caches
        if (is_interrupted(run, i, thread)) return;
        switch (op.kind) {
            case EMBED: embed(run, op, thread); break;
            case JOIN: join_residual(run, op, thread); break;
            case MULTIPLY: multiply_all(run, op, thread); break;
            case ATTEND: attend_all(run, op, thread); break;
            case SELECT:
                select_tokens(&run, thread);
                if (run.tokens == 0) return;  // nobody wants logits of this part of a prompt
                break;
            case STORE_KEYS: store_keys(run, op, thread); break;
            case EXPERTS: mix_experts(run, op, thread); break;
        }
    }
    if (is_interrupted(run, run.program->count, thread)) return;
    bool logits = run.program->count && run.program->instructions[run.program->count - 1].target == LOGITS;
    if (logits || !run.batch->result) return;
    int64_t first, last;
    own_tokens(run, thread, &first, &last);
    if (run.several || thread == 0)
        for (int64_t t = first; t < last; t++)
            memcpy(run.batch->result + t * run.batch->result_stride, run.x + place(run, t, thread) * run.x_stride, (size_t)run.model->width * 4);
}

// Divides the work of attention into items. A long row that reads one token is divided into chunks of keys, other rows into runs of 8
// tokens.
static int64_t make_items(const Batch* batch, bool cross, bool split, Item* items) {
    int64_t count = 0;
    for (int32_t r = 0; r < batch->rows; r++) {
        int32_t start = batch->start[r], tokens = batch->start[r + 1] - start;
        const int64_t last = batch->row[r]->length / batch->row[r]->geometry->chunk;
        if (!cross && split && tokens == 1 && last > 0) {
            for (int32_t chunk = 0; chunk <= last; chunk++) items[count++] = {r, start, 1, chunk};
            continue;
        }
        for (int32_t t = 0; t < tokens; t += 8) items[count++] = {r, start + t, tokens - t < 8 ? tokens - t : 8, -1};
    }
    return count;
}

// The widest head of a row's cache and of its source's.
static int64_t widest_head(const Row* row) {
    int64_t widest = row->source ? widest_head(row->source) : 0;
    for (int32_t i = 0; i < row->geometry->layers; i++)
        if (row->geometry->layer[i].head_dim > widest) widest = row->geometry->layer[i].head_dim;
    return widest;
}

// The most chunks of a row and of its source when the row has read `tokens` more tokens.
static int64_t most_chunks(const Row* row, int64_t tokens) {
    const int64_t own = (row->length + tokens) / row->geometry->chunk + 1, other = row->source ? most_chunks(row->source, 0) : 0;
    return own > other ? own : other;
}

// The formats of all matrices that a program's vectors meet.
static int32_t formats_of(const Program* program) {
    int32_t formats = 0;
    for (int32_t i = 0; i < program->count; i++) formats |= program->instructions[i].formats | program->instructions[i].inner_formats;
    return formats;
}

// Takes all buffers of a run from the arena. They do not depend on how many of the pool's threads have time for it.
static void take_buffers(Run* run, Arena* arena) {
    const Model& model = *run->model;
    const Program& program = *run->program;
    const Batch& batch = *run->batch;
    const int64_t threads = pool_size(model.pool), places = batch.tokens > threads ? batch.tokens : threads;
    const int32_t formats = formats_of(&program);
    run->x_stride = padded(model.width);
    run->y_stride = padded(model.width);
    run->projected_stride = padded(model.projected);
    run->mixed_stride = padded(model.mixed);
    run->inner_stride = 2 * padded(model.inner);
    run->logits_stride = batch.result_stride;
    int64_t widest = model.width;
    if (model.mixed > widest) widest = model.mixed;
    if (model.inner > widest) widest = model.inner;
    run->x = (float*)arena_take(arena, places * run->x_stride * 4);
    run->chosen_x = (float*)arena_take(arena, (batch.chosen > threads ? batch.chosen : threads) * run->x_stride * 4);
    run->y = (float*)arena_take(arena, places * run->y_stride * 4);
    run->projected = (float*)arena_take(arena, places * run->projected_stride * 4);
    run->mixed = (float*)arena_take(arena, places * run->mixed_stride * 4);
    run->inner = (float*)arena_take(arena, places * run->inner_stride * 4);
    run->hidden = make_input(arena, places, model.width, formats);
    run->other = make_input(arena, places, widest, formats);
    if (model.chosen) take_expert_buffers(run, arena, places, formats);
    int64_t items = 0, partial_floats = 0, heads = 0, head_dim = widest_head(batch.row[0]);
    for (int32_t i = 0; i < program.count; i++)
        if (program.instructions[i].kind == ATTEND && program.instructions[i].heads > heads) heads = program.instructions[i].heads;
    run->partial_at = (int64_t*)arena_take(arena, batch.tokens * (int64_t)sizeof(int64_t));
    for (int32_t r = 0; r < batch.rows; r++) {
        int32_t tokens = batch.start[r + 1] - batch.start[r];
        int64_t chunks = batch.row[r]->length / batch.row[r]->geometry->chunk + 1;
        bool split = tokens == 1 && chunks > 1;
        items += split ? chunks : (tokens + 7) / 8;
        if (arena_ready(arena))
            for (int32_t t = batch.start[r]; t < batch.start[r + 1]; t++) run->partial_at[t] = split ? partial_floats : -1;
        if (split) partial_floats += heads * Chunks::floats(chunks, head_dim);
        const int64_t own = Chunks::floats(most_chunks(batch.row[r], tokens), head_dim);
        run->own_stride = own > run->own_stride ? own : run->own_stride;
    }
    run->own_partials = (float*)arena_take(arena, threads * QUERIES * run->own_stride * 4);
    run->partials = (float*)arena_take(arena, partial_floats * 4);
    run->items = (Item*)arena_take(arena, items * (int64_t)sizeof(Item));
    run->cross_items = (Item*)arena_take(arena, batch.tokens * (int64_t)sizeof(Item));
    run->taken = (int32_t*)arena_take(arena, 2 * threads * LINE * (int64_t)sizeof(int32_t));
    run->halted = (int32_t*)arena_take(arena, 2 * (int64_t)sizeof(int32_t));
}

int run_program(Model* model, const Program* program, const Batch* batch, int64_t* need) {
    Arena* arena = model->arena;
    for (int attempt = 0; attempt < 2; attempt++) {  // if the arena is too small, the first attempt only counts the memory that is needed
        arena_reset(arena);
        Run run = {};
        run.model = model;
        run.program = program;
        run.batch = batch;
        run.tokens = batch->tokens;
        run.several = batch->tokens > 1;
        take_buffers(&run, arena);
        if (need) {
            *need = arena_bytes(arena);
            return 0;
        }
        if (!arena_ready(arena)) {
            if (arena_grow(arena)) return 1;
            continue;
        }
        run.threads = pool_team(model->pool);
        memset(run.taken, 0, 2 * (size_t)(run.threads * LINE) * 4);
        run.halted[0] = run.halted[1] = 0;
        run.item_count = make_items(batch, false, true, run.items);
        run.cross_item_count = make_items(batch, true, false, run.cross_items);
        pool_run(model->pool, work, &run);
        return run.halted[0] || run.halted[1] ? 2 : 0;
    }
    return 1;
}

}  // namespace TGEN_KERNEL
