// Attention of some queries, whose heads share keys and values, to the pages of a row.
//
// The keys of a row are taken in chunks of a fixed size. Each chunk gives a largest score, a sum of exponentials and a weighted sum of
// values; at the end all chunks are joined. So the bits do not depend on which threads did which chunks, or on how many queries came together.
#pragma once

#include "caches.h"

namespace TGEN_KERNEL {

constexpr int QUERIES = 4, VALUE_LANES = 4;  // queries, and registers of values, that fit into the processor's registers at once
constexpr int64_t AHEAD = 8;  // pages that are fetched ahead

// A head's keys and values of a row, from a position on.
struct Stretch {
    const Row* row;  // null for none
    Head place;
    int64_t begin;
};

// What all queries of one call share.
//
// Memory is read at its full speed if fetches follow each other evenly. So a chunk's values are fetched while its scores are computed, and
// the keys of `next`, which the thread reads after the chunk, while the rest is computed.
struct Scene {
    const Row* row;
    Head place;
    Stretch next;
    bool cold;  // whether the keys have not been fetched yet
    int64_t head_dim;
    const Input* queries;  // the vectors of all queries of a call
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

// Where a head's keys and values of a block of positions stand.
INLINE const uint8_t* keys_at(const Scene& scene, int64_t block) { return keys_of(scene.place, scene.row->spot[block / LANES]); }
INLINE const uint8_t* values_at(const Scene& scene, int64_t block) { return values_of(scene.place, scene.row->spot[block / LANES]); }

// What to fetch beside a block of positions: the keys at the same place of the next chunk, or something that is in the cache already.
INLINE const uint8_t* next_keys(const Scene& scene, int64_t block) {
    const Stretch& next = scene.next;
    const int64_t page = (next.begin + block % scene.row->geometry->chunk) / LANES;
    return next.row && page < next.row->pages ? keys_of(next.place, next.row->spot[page]) : keys_at(scene, block);
}

// How many cache lines of a page's keys are fetched during the exponentials; the others are fetched while values are weighed.
template <class Cache>
INLINE int64_t early_lines(const Scene& scene) { return scene.place.key_bytes / 64 / Cache::EARLY; }

// The same as `weigh` in llama.cpp's order of additions. Each number has 64 partial sums; sum i adds the positions p with p % 64 = i. At
// the end, partial sums that are 32 apart are added, then those 16, 8, 4, 2 and 1 apart.
template <class Cache, int N, int R>
static void weigh_in_lanes(const Scene& scene, const typename Cache::Weights* weights, int64_t begin, int64_t end, int64_t at, int64_t first_line,
                           int64_t last_line, Partial* out) {
    const int64_t dim = scene.head_dim;
    Floats lane[LANES][N][R];
    for (int64_t p = 0; p < LANES; p++) {
        Floats part[4][N][R];
        for (int a = 0; a < 4; a++)
            for (int n = 0; n < N; n++)
                for (int v = 0; v < R; v++) part[a][n][v] = all(0.0f);
        for (int a = 0; a < 4; a++)
            for (int64_t block = begin + (a + 4 - begin / LANES % 4) % 4 * LANES; block + p < end; block += 4 * LANES) {
                const uint8_t* values = values_at(scene, block);
                fetch_part(next_keys(scene, block), first_line, last_line, p, LANES);
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
    const int64_t dim = scene.head_dim, space = lanes_of(dim), early = early_lines<Cache>(scene), late = (scene.place.key_bytes + 63) / 64 - early;
    const int64_t first_line = early + late * at / space, last_line = early + late * (at + R * LANES) / space;
    Floats sums[N][R];
    for (int n = 0; n < N; n++)
        for (int v = 0; v < R; v++) sums[n][v] = all(0.0f);
    if constexpr (Cache::IN_LANES) {
        weigh_in_lanes<Cache, N, R>(scene, weights, begin, end, at, first_line, last_line, out);
        return;
    }
    for (int64_t block = begin; block < end; block += LANES) {
        int64_t positions = end - block < LANES ? end - block : LANES;
        const uint8_t* ahead = next_keys(scene, block) + first_line * 64;
        Cache::template weigh<N, R>(values_at(scene, block), ahead, last_line - first_line, dim, at, positions, weights, block - begin, sums);
    }
    for (int n = 0; n < N; n++)
        for (int v = 0; v < R; v++) store(out[n].sums + at + v * LANES, sums[n][v]);
}

// A query's scores of a block of keys from its products with them: scaled and bounded, with biases, and -infinity for keys that it does not see.
INLINE Floats finished_score(const Scene& scene, const Query& query, int64_t block, Floats score) {
    alignas(64) static const float COUNT[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const Floats count = load(COUNT), nothing = all(-INFINITY);
    score = mul(score, all(scene.scale));
    if (scene.softcap != 0) score = mul(hyperbolic_tangent(div(score, all(scene.softcap))), all(scene.softcap));
    if (scene.biases) score = add(score, load(scene.biases + query.head * scene.bias_stride + block - query.position + scene.reach));
    if (block + LANES > query.end) score = where_positive(sub(all((float)(query.end - block)), count), score, nothing);
    if (block < query.first) score = where_positive(sub(count, all((float)(query.first - block - 1))), score, nothing);
    return score;
}

// The scores of a page's keys, into scores[n * CHUNK + key - begin], and the largest of them into `top`. Those of a `plain` block are only
// scaled.
template <class Cache, int N>
INLINE void score_page(const Scene& scene, const Query* query, int64_t begin, int64_t end, int64_t block, bool plain, float* scores, Floats* top) {
    if (scene.cold && block + AHEAD * LANES < end) fetch(keys_at(scene, block + AHEAD * LANES), scene.place.key_bytes);
    Floats found[N];
    Cache::template score<N>(keys_at(scene, block), values_at(scene, block), scene.head_dim, *scene.queries, found);
    for (int n = 0; n < N; n++) {
        const Floats score = plain ? mul(found[n], all(scene.scale)) : finished_score(scene, query[n], block, found[n]);
        store(scores + n * CHUNK + block - begin, score);
        top[n] = max(top[n], score);
    }
}

// Scores, exponentials and weighted values of the keys [begin, end) of one chunk for N queries.
template <class Cache, int N>
static void attend_chunk(const Scene& scene, const Query* query, int64_t begin, int64_t end, Partial* out) {
    alignas(64) float scores[N][CHUNK];
    const int64_t dim = scene.head_dim, early = early_lines<Cache>(scene);
    Floats top[N];
    for (int n = 0; n < N; n++) top[n] = all(-INFINITY);
    int64_t seen = scene.softcap != 0 || scene.biases ? 0 : end;  // up to here, all queries see all keys, and their scores are plain
    for (int n = 0; n < N; n++) seen = query[n].first > begin ? 0 : query[n].end < seen ? query[n].end : seen;
    int64_t block = begin;
    for (; block + LANES <= seen; block += LANES) score_page<Cache, N>(scene, query, begin, end, block, true, scores[0], top);
    for (; block < end; block += LANES) score_page<Cache, N>(scene, query, begin, end, block, false, scores[0], top);
    Floats level[N], lanes[N];
    double total[N];
    for (int n = 0; n < N; n++) {
        out[n].top = largest(top[n]);
        level[n] = all(out[n].top == -INFINITY ? 0.0f : out[n].top);
        lanes[n] = all(0.0f);
        total[n] = 0;
    }
    for (block = begin; block < end; block += LANES) {
        const uint8_t *keys = keys_at(scene, block), *ahead = next_keys(scene, block);
        for (int n = 0; n < N; n++) {
            fetch_part(ahead, 0, early, n, N);
            Floats weight = sub(load(scores[n] + block - begin), level[n]);
            weight = Cache::IN_LANES ? exponential(weight) : decay(weight);
            if (Cache::IN_LANES) total[n] += (double)sum(weight);
            else lanes[n] = add(lanes[n], weight);
            store(scores[n] + block - begin, Cache::scaled(weight, keys, dim));
        }
    }
    typename Cache::Weights weights[N];
    for (int n = 0; n < N; n++) {
        out[n].total = sum(lanes[n]);
        if (Cache::IN_LANES) {  // the weights are shares of the total, rounded to float16
            const Floats inverse = all(total[n] > 0 ? (float)(1.0 / total[n]) : 0.0f);
            for (block = begin; block < end; block += LANES)
                store(scores[n] + block - begin, half_of(mul(load(scores[n] + block - begin), inverse)));
            if (total[n] > 0) {
                out[n].top += logf((float)total[n]);
                out[n].total = 1;
            }
        }
        Cache::set_weights(weights + n, scores[n], end - begin);
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

// The results of all chunks of a query, in memory: their tops and totals [chunks, rounded up to 16], and their sums [chunks][head_dim,
// rounded up to 16].
struct Chunks {
    int64_t count, dim;
    float* numbers;

    static int64_t floats(int64_t count, int64_t dim) { return 2 * lanes_of(count) + count * lanes_of(dim); }
    float* top(int64_t chunk) const { return numbers + chunk; }
    float* total(int64_t chunk) const { return numbers + lanes_of(count) + chunk; }
    float* sums(int64_t chunk) const { return numbers + 2 * lanes_of(count) + chunk * lanes_of(dim); }

    void put(int64_t chunk, const Partial& result) const {
        *top(chunk) = result.total != 0 ? result.top : -INFINITY;
        *total(chunk) = result.total;
        for (int64_t i = chunk + 1; chunk + 1 == count && i < lanes_of(count); i++) {  // the rest of the last register
            *top(i) = -INFINITY;
            *total(i) = 0;
        }
    }
};

// The weighted mean of the values of all chunks; `sink` is a score that belongs to no key and has a share of the total, or null. Chunks in
// which the query saw no key change nothing, so the bits do not depend on how many of them there are. `shares` has room for a number of each
// chunk, rounded up to 16.
static void join(const Chunks& chunks, const float* sink, float* shares, float* out) {
    Floats tops = all(sink ? *sink : -INFINITY), totals = all(0.0f);
    for (int64_t i = 0; i < chunks.count; i += LANES) tops = max(tops, load(chunks.top(i)));
    const float top = largest(tops);
    for (int64_t i = 0; i < chunks.count; i += LANES) {
        Floats share = where_positive(load(chunks.total(i)), exponential(sub(load(chunks.top(i)), all(top))), all(0.0f));
        store(shares + i, share);
        totals = fma(share, load(chunks.total(i)), totals);
    }
    const float total = sum(totals) + (sink ? exponential(*sink - top) : 0.0f);
    const float inverse = total != 0 ? 1.0f / total : 0.0f;
    for (int64_t d = 0; d < chunks.dim; d += LANES) {
        Floats sums = all(0.0f);
        for (int64_t chunk = 0; chunk < chunks.count; chunk++)
            if (shares[chunk] != 0) sums = fma(all(shares[chunk]), load(chunks.sums(chunk) + d), sums);
        store_some(out + d, chunks.dim - d, mul(sums, all(inverse)));
    }
}

}  // namespace TGEN_KERNEL
