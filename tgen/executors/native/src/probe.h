// Reads memory as fast as all threads together can, which no step surpasses.
#pragma once

#include "kernels/lanes.h"
#include "model.h"
#include "threads.h"

namespace TGEN_KERNEL {

constexpr int64_t PROBE_BLOCK = 1 << 20;  // bytes that a thread takes at once: cores do not read equally fast

struct Probe {
    const uint8_t* data;
    int64_t blocks, taken;
    float found;
};

static void read_blocks(void* argument, int) {
    Probe* probe = (Probe*)argument;
    Floats most[4] = {all(0.0f), all(0.0f), all(0.0f), all(0.0f)};
    for (;;) {
        const int64_t block = __atomic_fetch_add(&probe->taken, 1, __ATOMIC_RELAXED);
        if (block >= probe->blocks) break;
        const uint8_t* data = probe->data + block * PROBE_BLOCK;
        for (int64_t at = 0; at < PROBE_BLOCK; at += 256)
            for (int i = 0; i < 4; i++) {
                __builtin_prefetch(data + at + i * 64 + 4096, 0, 2);
                most[i] = max(most[i], load((const float*)(data + at + i * 64)));
            }
    }
    float found = largest(max(max(most[0], most[1]), max(most[2], most[3])));
    if (found > 0) __atomic_store(&probe->found, &found, __ATOMIC_RELAXED);  // so that the compiler leaves nothing out
}

// Reads whole blocks of float32 numbers; returns the largest that some thread found.
float read_all(Pool* pool, const uint8_t* data, int64_t bytes) {
    Probe probe = {data, bytes / PROBE_BLOCK, 0, 0};
    pool_run(pool, read_blocks, &probe);
    return probe.found;
}

}  // namespace TGEN_KERNEL
