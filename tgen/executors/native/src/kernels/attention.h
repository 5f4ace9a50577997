// Attention of some queries, whose heads share keys and values, to the pages of a row.
//
// The keys of a row are divided into chunks of a fixed size. Each chunk gives a largest score, a sum of exponentials and a weighted sum of
// values, and the chunks are joined in their order. So the bits depend neither on which threads did which chunks nor on how many queries
// came together.
#pragma once

#include "caches.h"

namespace TGEN_KERNEL {

constexpr int QUERIES = 4, VALUE_LANES = 4;  // queries, and registers of values, that fit into the processor's registers at once
constexpr int64_t AHEAD = 8;  // pages that are fetched ahead

// What all queries of one call share.
struct Scene {
    const Row* row;
    int64_t offset;        // bytes from the start of a page to the head's keys
    int64_t head_dim;
    const Input* queries;  // the numbers of each query of a call
    float scale, softcap;
    const float* biases;   // [heads][bias_stride] at the index key - query + reach; null for none
    int64_t bias_stride, reach;
};

// One query: its position in the row, the keys [first, end) that it sees, and the number of its head.
struct Query {
    int64_t position, first, end;
    int32_t head;
};

// The result of some keys: the sum of exp(score - top) in `total`, and the sum of exp(score - top) * value in `sums` [head_dim, rounded up
// to 16].
struct Partial {
    float top, total;
    float* sums;
};

// The address of the head's keys in the page of a block of positions.
INLINE const uint8_t* keys_of(const Scene& scene, int64_t block) { return scene.row->page[block / LANES]->data + scene.offset; }

// The same as `weigh` in llama.cpp's order of additions. Each number has 64 partial sums; sum i adds the positions p with p % 64 = i. At
// the end, partial sums that are 32 apart are added, then those 16, 8, 4, 2 and 1 apart.
template <class Cache, int N, int R>
static void weigh_in_lanes(const Scene& scene, const typename Cache::Weights* weights, int64_t begin, int64_t end, int64_t at, Partial* out) {
    const int64_t dim = scene.head_dim, values_at = Cache::values_at(dim);
    for (int64_t block = begin; block < end; block += LANES)
        fetch(keys_of(scene, block) + values_at + at * Cache::BYTES, R * LANES * Cache::BYTES);
    Floats lane[LANES][N][R];
    for (int64_t p = 0; p < LANES; p++) {
        Floats part[4][N][R];
        for (int a = 0; a < 4; a++)
            for (int n = 0; n < N; n++)
                for (int v = 0; v < R; v++) part[a][n][v] = all(0.0f);
        for (int a = 0; a < 4; a++)
            for (int64_t block = begin + (a + 4 - begin / LANES % 4) % 4 * LANES; block + p < end; block += 4 * LANES) {
                const uint8_t* values = keys_of(scene, block) + values_at;
                for (int v = 0; v < R; v++) {
                    Floats value = Cache::get(values, p * dim + at + v * LANES);
                    for (int n = 0; n < N; n++) part[a][n][v] = fma(all(weights[n].numbers[block - begin + p]), value, part[a][n][v]);
                }
            }
        for (int n = 0; n < N; n++)
            for (int v = 0; v < R; v++) lane[p][n][v] = add(add(part[0][n][v], part[2][n][v]), add(part[1][n][v], part[3][n][v]));
    }
    for (int width = LANES / 2; width; width /= 2)
        for (int p = 0; p < width; p++)
            for (int n = 0; n < N; n++)
                for (int v = 0; v < R; v++) lane[p][n][v] = add(lane[p][n][v], lane[p + width][n][v]);
    for (int n = 0; n < N; n++)
        for (int v = 0; v < R; v++) store(out[n].sums + at + v * LANES, lane[0][n][v]);
}

// The sums of weight times value over the keys [begin, end), for R registers of a head's numbers from `at` on.
template <class Cache, int N, int R>
static void weigh(const Scene& scene, const typename Cache::Weights* weights, int64_t begin, int64_t end, int64_t at, Partial* out) {
    const int64_t dim = scene.head_dim, values_at = Cache::values_at(dim), beyond = scene.row->pages * LANES;
    Floats sums[N][R];
    for (int n = 0; n < N; n++)
        for (int v = 0; v < R; v++) sums[n][v] = all(0.0f);
    if constexpr (Cache::IN_LANES) {
        weigh_in_lanes<Cache, N, R>(scene, weights, begin, end, at, out);
        return;
    }
    for (int64_t block = begin; block < end; block += LANES) {
        int64_t positions = end - block < LANES ? end - block : LANES, further = block + AHEAD * LANES;
        // Near the end, fetch the first keys of the next chunk.
        const uint8_t* ahead = further < end ? keys_of(scene, further) + values_at : keys_of(scene, further < beyond ? further : block);
        Cache::template weigh<N, R>(keys_of(scene, block) + values_at, ahead, dim, at, positions, weights, block - begin, sums);
    }
    for (int n = 0; n < N; n++)
        for (int v = 0; v < R; v++) store(out[n].sums + at + v * LANES, sums[n][v]);
}

// Scores, exponentials and weighted values of the keys [begin, end) for N queries; `end - begin` is at most CHUNK, `begin` a multiple of
// it.
template <class Cache, int N>
static void attend_chunk(const Scene& scene, const Query* query, int64_t begin, int64_t end, Partial* out) {
    alignas(64) float scores[N][CHUNK];
    alignas(64) static const float COUNT[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const int64_t dim = scene.head_dim, values_at = Cache::values_at(dim);
    const Floats count = load(COUNT), nothing = all(-INFINITY);
    Floats top[N];
    for (int n = 0; n < N; n++) top[n] = nothing;
    for (int64_t block = begin; block < end; block += LANES) {
        // Pages lie far apart, so the processor cannot guess the next one. Near the end of the keys, fetch the first values.
        int64_t further = block + AHEAD * LANES, values = begin + further - (end + LANES - 1) / LANES * LANES;
        const uint8_t* ahead = further < end ? keys_of(scene, further) : keys_of(scene, values < end ? values : begin) + values_at;
        Floats products[N];
        Cache::template score<N>(keys_of(scene, block), ahead, dim, *scene.queries, products);
        for (int n = 0; n < N; n++) {
            Floats score = mul(products[n], all(scene.scale));
            if (scene.softcap != 0) score = mul(hyperbolic_tangent(div(score, all(scene.softcap))), all(scene.softcap));
            if (scene.biases) score = add(score, load(scene.biases + query[n].head * scene.bias_stride + block - query[n].position + scene.reach));
            if (block + LANES > query[n].end) score = where_positive(sub(all((float)(query[n].end - block)), count), score, nothing);
            if (block < query[n].first) score = where_positive(sub(count, all((float)(query[n].first - block - 1))), score, nothing);
            store(scores[n] + block - begin, score);
            top[n] = max(top[n], score);
        }
    }
    typename Cache::Weights weights[N];
    for (int n = 0; n < N; n++) {
        out[n].top = largest(top[n]);
        const Floats level = all(out[n].top == -INFINITY ? 0.0f : out[n].top);
        double total = 0;
        for (int64_t block = begin; block < end; block += LANES) {
            Floats weight = exponential(sub(load(scores[n] + block - begin), level));
            store(scores[n] + block - begin, weight);
            total += (double)sum(weight);
        }
        const float inverse = total > 0 ? (float)(1.0 / total) : 0.0f;
        for (int64_t block = begin; block < end; block += LANES)
            Cache::set_weights(weights + n, block - begin, load(scores[n] + block - begin), inverse, keys_of(scene, block) + values_at);
        out[n].total = (float)total;
        if (Cache::IN_LANES && total > 0) {  // the weights are divided by the total already
            out[n].top += logf((float)total);
            out[n].total = 1;
        }
    }
    for (int64_t at = 0; at < dim; at += VALUE_LANES * LANES) {
        switch (lanes_of(dim - at) / LANES) {
            case 1: weigh<Cache, N, 1>(scene, weights, begin, end, at, out); break;
            case 2: weigh<Cache, N, 2>(scene, weights, begin, end, at, out); break;
            case 3: weigh<Cache, N, 3>(scene, weights, begin, end, at, out); break;
            default: weigh<Cache, N, 4>(scene, weights, begin, end, at, out);
        }
    }
}

template <class Cache>
static void attend_some(const Scene& scene, const Query* query, int count, int64_t begin, int64_t end, Partial* out) {
    switch (count) {
        case 1: return attend_chunk<Cache, 1>(scene, query, begin, end, out);
        case 2: return attend_chunk<Cache, 2>(scene, query, begin, end, out);
        case 3: return attend_chunk<Cache, 3>(scene, query, begin, end, out);
        default: return attend_chunk<Cache, 4>(scene, query, begin, end, out);
    }
}

// Attention of at most QUERIES queries to one chunk of keys. Keys that none of the queries sees are left out.
static void attend(const Scene& scene, const Query* query, int count, int64_t begin, int64_t end, Partial* out) {
    int64_t last = 0, first = end;
    for (int n = 0; n < count; n++) {
        last = query[n].end > last ? query[n].end : last;
        first = query[n].first < first ? query[n].first : first;
    }
    if (end > last) end = last;
    // Keys before every query's window add nothing. The start stays a multiple of a page's size, so the order of the other keys is the
    // same.
    int64_t from = first / LANES * LANES > begin ? first / LANES * LANES : begin;
    if (from >= end) {
        for (int n = 0; n < count; n++) {
            out[n].top = -INFINITY;
            out[n].total = 0;
        }
        return;
    }
    switch (scene.row->geometry->format) {
        case FLOAT32: return attend_some<FloatCache<Float32Numbers>>(scene, query, count, from, end, out);
        case FLOAT16: return attend_some<FloatCache<Float16Numbers>>(scene, query, count, from, end, out);
        case HALVES: return attend_some<HalfCache<false>>(scene, query, count, from, end, out);
        case PAIRED_HALVES: return attend_some<HalfCache<true>>(scene, query, count, from, end, out);
        default: return attend_some<Int8Cache>(scene, query, count, from, end, out);
    }
}

// Adds a later chunk's partial result to that of the chunks before it.
static void join(Partial* sum, const Partial& next, int64_t dim) {
    if (next.total == 0) return;
    if (sum->total == 0) {
        sum->top = next.top;
        sum->total = next.total;
        memcpy(sum->sums, next.sums, (size_t)lanes_of(dim) * 4);
        return;
    }
    float top = sum->top > next.top ? sum->top : next.top;
    float old_share = exponential(sum->top - top), new_share = exponential(next.top - top);
    sum->top = top;
    sum->total = sum->total * old_share + next.total * new_share;
    for (int64_t d = 0; d < lanes_of(dim); d += LANES)
        store(sum->sums + d, add(mul(load(sum->sums + d), all(old_share)), mul(load(next.sums + d), all(new_share))));
}

// Adds an attention sink: a score that belongs to no key and takes a share of the weights.
static void add_sink(Partial* sum, float score, int64_t dim) {
    float top = sum->top > score ? sum->top : score;
    float old_share = exponential(sum->top - top);
    sum->top = top;
    sum->total = sum->total * old_share + exponential(score - top);
    for (int64_t d = 0; d < lanes_of(dim); d += LANES) store(sum->sums + d, mul(load(sum->sums + d), all(old_share)));
}

// Writes the weighted mean of the values.
static void finish(const Partial& sum, int64_t dim, float* out) {
    float inverse = sum.total > 0 ? 1.0f / sum.total : 0.0f;
    for (int64_t d = 0; d < dim; d++) out[d] = sum.sums[d] * inverse;
}

}  // namespace TGEN_KERNEL
