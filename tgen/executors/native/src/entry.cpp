#include "entry.h"

#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "threads.h"

namespace plain { int run_program(Model*, const Program*, const Batch*); }
#if defined(__x86_64__)
namespace avx512 { int run_program(Model*, const Program*, const Batch*); }
namespace avx2 { int run_program(Model*, const Program*, const Batch*); }
#elif defined(__aarch64__)
namespace neon { int run_program(Model*, const Program*, const Batch*); }
#endif

struct Kernel {
    const char* name;
    RunProgram run;
};

static const Kernel KERNELS[] = {
#if defined(__x86_64__)
    {"avx512", avx512::run_program}, {"avx2", avx2::run_program},
#elif defined(__aarch64__)
    {"neon", neon::run_program},
#endif
    {"plain", plain::run_program},
};
static const int32_t KERNEL_COUNT = sizeof KERNELS / sizeof *KERNELS;

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
static int32_t has_neon_dot() { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
#elif defined(__aarch64__)
static int32_t has_neon_dot() { return 1; }  // Apple's processors
#endif

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
    return KERNELS[kernel].run(model, program, batch);
}

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
    Check c = {format, data, count, pool_size(model->pool), 0};
    pool_run(model->pool, check, &c);
    return !c.bad;
}
