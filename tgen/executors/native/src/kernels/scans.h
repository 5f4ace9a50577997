// Passes over the logits of one row for the sampler, which reads a vocabulary of 150,000 a few times in each step.
#pragma once

#include "lanes.h"

namespace TGEN_KERNEL {

int32_t all_finite(const float* logits, int64_t count) {
    uint32_t bad = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, logits + i, 4);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

// The largest number of each column of the numbers as a matrix [rows, groups]. Numbers after the last whole row belong to no group.
void group_maxima(const float* logits, int64_t count, int64_t groups, float* maxima) {
    memcpy(maxima, logits, 4 * (size_t)groups);
    for (int64_t row = 1; row < count / groups; row++) {
        const float* numbers = logits + row * groups;
        for (int64_t i = 0; i < groups; i++) maxima[i] = numbers[i] > maxima[i] ? numbers[i] : maxima[i];
    }
}

// Writes the indices of the numbers that are at least `border` to `places`, and returns how many there are. `places` has room for all.
int64_t places_from(const float* logits, int64_t count, float border, int64_t* places) {
    int64_t found = 0;
    for (int64_t first = 0; first < count; first += 64) {
        const int64_t end = first + 64 < count ? first + 64 : count;
        int32_t some = 0;
        for (int64_t i = first; i < end; i++) some |= logits[i] >= border;
        if (!some) continue;
        for (int64_t i = first; i < end; i++) {
            places[found] = i;
            found += logits[i] >= border;
        }
    }
    return found;
}

// For each block of numbers, the sum of exp((number - highest) * factor). Each lane adds in float32, and the lanes are added in double.
void rough_sums(const float* logits, int64_t count, int64_t block, float highest, float factor, double* sums) {
    const Floats top = all(highest), scale = all(factor);
    for (int64_t first = 0; first < count; first += block, sums++) {
        const int64_t end = first + block < count ? first + block : count;
        Floats total = all(0.0f);
        int64_t i = first;
        for (; i + 16 <= end; i += 16) total = add(total, exponential(mul(sub(load(logits + i), top), scale)));
        float lanes[16];
        store(lanes, total);
        *sums = 0;
        for (float lane : lanes) *sums += lane;
        for (; i < end; i++) *sums += exponential((logits[i] - highest) * factor);
    }
}

}  // namespace TGEN_KERNEL
