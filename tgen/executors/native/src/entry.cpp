#include "entry.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "threads.h"

#define DECLARE_KERNEL(name)                                                                                                      \
    namespace name {                                                                                                                 \
    int run_program(Model*, const Program*, const Batch*, int64_t*);                                                                 \
    void pack_matrix(int32_t, int32_t, int32_t, int32_t, const uint8_t*, uint8_t*, int32_t, int32_t);                                 \
    float read_all(Pool*, const uint8_t*, int64_t);                                                                                  \
    float finite_highest(const float*, int64_t);                                                                                     \
    void group_maxima(const float*, int64_t, int64_t, float*);                                                                       \
    int64_t places_from(const float*, int64_t, float, int64_t, int64_t*);                                                                 \
    void keep_some(const float*, const uint8_t*, int64_t, float*);                                                                   \
    void rough_sums(const float*, int64_t, int64_t, float, float, double*);                                                          \
    int64_t exact_sums(const float*, int64_t, int64_t, double, double, const float*, double*, double*, float*, int64_t*);            \
    int64_t fewest(const float*, int64_t, int64_t, double, double, double, int32_t, int64_t, double*, float*, double*, int64_t*, void*);      \
    }
DECLARE_KERNEL(plain)
#if defined(__x86_64__)
DECLARE_KERNEL(avx512)
DECLARE_KERNEL(avx2)
#elif defined(__aarch64__)
DECLARE_KERNEL(neon)
#endif

struct Kernel {
    const char* name;
    RunProgram run;
    void (*pack)(int32_t, int32_t, int32_t, int32_t, const uint8_t*, uint8_t*, int32_t, int32_t);
    float (*read)(Pool*, const uint8_t*, int64_t);
    float (*highest)(const float*, int64_t);
    void (*maxima)(const float*, int64_t, int64_t, float*);
    int64_t (*places)(const float*, int64_t, float, int64_t, int64_t*);
    void (*keep)(const float*, const uint8_t*, int64_t, float*);
    void (*rough_sums)(const float*, int64_t, int64_t, float, float, double*);
    int64_t (*exact_sums)(const float*, int64_t, int64_t, double, double, const float*, double*, double*, float*, int64_t*);
    int64_t (*fewest)(const float*, int64_t, int64_t, double, double, double, int32_t, int64_t, double*, float*, double*, int64_t*, void*);
};

#define KERNEL(name)                                                                                                               \
    {#name, name::run_program, name::pack_matrix, name::read_all, name::finite_highest, name::group_maxima, name::places_from,            \
     name::keep_some, name::rough_sums, name::exact_sums, name::fewest}

static const Kernel KERNELS[] = {
#if defined(__x86_64__)
    KERNEL(avx512),
    KERNEL(avx2),
#elif defined(__aarch64__)
    KERNEL(neon),
#endif
    KERNEL(plain),
};
static const int32_t KERNEL_COUNT = sizeof KERNELS / sizeof *KERNELS;

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
static int32_t has_neon_dot() { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
#elif defined(__aarch64__)
static int32_t has_neon_dot() { return 1; }  // Apple's processors
#endif

void tgen_turns(const float* angles, int64_t count, float* cosines, float* sines) {
    for (int64_t i = 0; i < count; i++) {
        cosines[i] = cosf(angles[i]);
        sines[i] = sinf(angles[i]);
    }
}

int32_t tgen_abi() { return TGEN_ABI; }

const char* tgen_kernel_name(int32_t kernel) { return kernel >= 0 && kernel < KERNEL_COUNT ? KERNELS[kernel].name : nullptr; }

int32_t tgen_kernel_runs(int32_t kernel) {
    if (kernel < 0 || kernel >= KERNEL_COUNT) return 0;
    const char* name = KERNELS[kernel].name;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!strcmp(name, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
    if (!strcmp(name, "avx2")) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#elif defined(__aarch64__)
    if (!strcmp(name, "neon")) return has_neon_dot();
#endif
    return 1;
}

Model* tgen_model_new(int32_t threads) {
    Model* model = (Model*)calloc(1, sizeof(Model));
    if (!model) return nullptr;
    model->pool = pool_open(threads);
    model->arena = arena_open();
    if (!model->pool || !model->arena) {
        tgen_model_free(model);
        return nullptr;
    }
    return model;
}

void tgen_model_free(Model* model) {
    if (!model) return;
    pool_close(model->pool);
    arena_close(model->arena);
    free(model);
}

int32_t tgen_model_threads(Model* model) { return pool_size(model->pool); }

void tgen_model_set(Model* model, const int32_t* widths, Matrix* matrices, Norm* norms, Rope* ropes, Distances* distances) {
    model->width = widths[0];
    model->projected = widths[1];
    model->mixed = widths[2];
    model->inner = widths[3];
    model->routed = widths[4];
    model->experts = widths[5];
    model->chosen = widths[6];
    model->expert_inner = widths[7];
    model->matrices = matrices;
    model->norms = norms;
    model->ropes = ropes;
    model->distances = distances;
}

int32_t tgen_run(Model* model, int32_t kernel, const Program* program, const Batch* batch) {
    return KERNELS[kernel].run(model, program, batch, nullptr);
}

int64_t tgen_run_bytes(Model* model, int32_t kernel, const Program* program, const Batch* batch) {
    int64_t need = 0;
    KERNELS[kernel].run(model, program, batch, &need);
    return need;
}

void tgen_pack(int32_t kernel, int32_t format, int32_t source_format, int32_t rows, int32_t columns, const uint8_t* source, uint8_t* packed,
               int32_t first, int32_t last) {
    KERNELS[kernel].pack(format, source_format, rows, columns, source, packed, first, last);
}

float tgen_read(Model* model, int32_t kernel, const uint8_t* data, int64_t bytes) {
    pool_team(model->pool);
    return KERNELS[kernel].read(model->pool, data, bytes);
}

float tgen_scan_highest(int32_t kernel, const float* logits, int64_t count) { return KERNELS[kernel].highest(logits, count); }

void tgen_scan_maxima(int32_t kernel, const float* logits, int64_t count, int64_t groups, float* maxima) {
    KERNELS[kernel].maxima(logits, count, groups, maxima);
}

int64_t tgen_scan_places(int32_t kernel, const float* logits, int64_t count, float border, int64_t most, int64_t* places) {
    return KERNELS[kernel].places(logits, count, border, most, places);
}

void tgen_scan_keep(int32_t kernel, const float* logits, const uint8_t* kept, int64_t count, float* result) {
    KERNELS[kernel].keep(logits, kept, count, result);
}

void tgen_scan_rough_sums(int32_t kernel, const float* logits, int64_t count, int64_t block, float highest, float factor, double* sums) {
    KERNELS[kernel].rough_sums(logits, count, block, highest, factor, sums);
}

int64_t tgen_scan_exact_sums(int32_t kernel, const float* logits, int64_t count, int64_t block, double highest, double factor,
                             const float* ranges, double* sums, double* whole, float* kept, int64_t* places) {
    return KERNELS[kernel].exact_sums(logits, count, block, highest, factor, ranges, sums, whole, kept, places);
}

int64_t tgen_scan_fewest(int32_t kernel, const float* logits, int64_t count, int64_t block, double highest, double factor, double share,
                         int32_t typical, int64_t few, double* sums, float* kept, double* ends, int64_t* places,
                         void* room) {
    return KERNELS[kernel].fewest(logits, count, block, highest, factor, share, typical, few, sums, kept, ends, places, room);
}

// ---- work on all threads besides programs

struct Check {
    int32_t format;
    const uint8_t* data;
    int64_t count;
    int threads;
    int32_t bad;
};

static void check(void* argument, int thread) {
    Check* c = (Check*)argument;
    int64_t first = c->count * thread / c->threads, last = c->count * (thread + 1) / c->threads;
    uint32_t bad = 0;
    if (c->format == FLOAT32) {
        for (int64_t i = first; i < last; i++) {
            uint32_t bits;
            memcpy(&bits, c->data + 4 * i, 4);
            bad |= (bits & 0x7f800000u) == 0x7f800000u;
        }
    } else {
        uint16_t exponent = c->format == FLOAT16 ? 0x7c00 : 0x7f80;
        for (int64_t i = first; i < last; i++) {
            uint16_t bits;
            memcpy(&bits, c->data + 2 * i, 2);
            bad |= (bits & exponent) == exponent;
        }
    }
    if (bad) __atomic_store_n(&c->bad, 1, __ATOMIC_RELAXED);
}

int32_t tgen_finite(Model* model, int32_t format, const uint8_t* data, int64_t count) {
    Check c = {format, data, count, pool_team(model->pool), 0};
    pool_run(model->pool, check, &c);
    return !c.bad;
}

// Each block of the data has its own checksum, and the sum of these does not depend on their order. So any number of threads gets one
// result.
constexpr int64_t CHECKSUM_BLOCK = 1 << 20;

struct Sum {
    const uint8_t* data;
    int64_t bytes;
    int threads;
    uint64_t total;
};

static uint64_t mixed(uint64_t sum, uint64_t word) {
    sum = (sum ^ word) * 0x9e3779b97f4a7c15u;
    return sum ^ sum >> 29;
}

static uint64_t block_sum(const uint8_t* data, int64_t size) {
    uint64_t lane[8] = {1, 2, 3, 4, 5, 6, 7, 8}, word, sum = (uint64_t)size;  // eight chains, because a step waits for its chain's last
    int64_t at = 0;
    for (; at + 64 <= size; at += 64)
        for (int i = 0; i < 8; i++) {
            memcpy(&word, data + at + 8 * i, 8);
            lane[i] = mixed(lane[i], word);
        }
    for (; at < size; at++) sum = mixed(sum, data[at]);
    for (int i = 0; i < 8; i++) sum = mixed(sum, lane[i]);
    return sum;
}

static void sum_blocks(void* argument, int thread) {
    Sum* s = (Sum*)argument;
    int64_t count = (s->bytes + CHECKSUM_BLOCK - 1) / CHECKSUM_BLOCK;
    uint64_t total = 0;
    for (int64_t block = count * thread / s->threads; block < count * (thread + 1) / s->threads; block++) {
        int64_t at = block * CHECKSUM_BLOCK, left = s->bytes - at;
        total += mixed(block_sum(s->data + at, left < CHECKSUM_BLOCK ? left : CHECKSUM_BLOCK), (uint64_t)block);
    }
    __atomic_fetch_add(&s->total, total, __ATOMIC_RELAXED);
}

uint64_t tgen_checksum(Model* model, const uint8_t* data, int64_t bytes) {
    Sum s = {data, bytes, pool_team(model->pool), (uint64_t)bytes};
    pool_run(model->pool, sum_blocks, &s);
    return s.total;
}
