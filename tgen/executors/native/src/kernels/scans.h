// Passes over the logits of one row for the sampler, which reads a vocabulary of 150,000 a few times in each step.
#pragma once

#include <algorithm>  // only templates that call nothing: std::sort of numbers without a comparison would need the C++ library

#include "lanes.h"

namespace TGEN_KERNEL {

// The largest number; NaN if one is infinite or NaN.
float finite_highest(const float* logits, int64_t count) {
    Floats highest16 = all(-INFINITY), strange16 = all(0.0f);  // a difference of a number and itself is 0, unless it is infinite or NaN
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const Floats numbers = load(logits + i);
        highest16 = max(highest16, numbers);
        strange16 = add(strange16, sub(numbers, numbers));
    }
    float highest = largest(highest16), strange = sum(strange16);
    for (; i < count; i++) {
        highest = logits[i] > highest ? logits[i] : highest;
        strange += logits[i] - logits[i];
    }
    return strange == 0 ? highest : NAN;
}

// The largest number of each column of the numbers as a matrix [rows, groups]. Numbers after the last whole row belong to no group.
void group_maxima(const float* logits, int64_t count, int64_t groups, float* maxima) {
    memcpy(maxima, logits, 4 * (size_t)groups);
    for (int64_t row = 1; row < count / groups; row++) {
        const float* numbers = logits + row * groups;
        for (int64_t i = 0; i < groups; i++) maxima[i] = numbers[i] > maxima[i] ? numbers[i] : maxima[i];
    }
}

// Puts the places of numbers from `border` upwards into `places`, until there are more than `most` of them; `places` has room for
// `most` + 16. Returns how many it found.
int64_t places_from(const float* logits, int64_t count, float border, int64_t most, int64_t* places) {
    int64_t found = 0, i = 0;
    for (; i + 16 <= count && found <= most; i += 16)
        for (uint32_t bits = within(load(logits + i), border, INFINITY); bits; bits &= bits - 1) places[found++] = i + __builtin_ctz(bits);
    for (; i < count && found <= most; i++)
        if (logits[i] >= border) places[found++] = i;
    return found;
}

// The numbers where `kept` is 1; -infinity elsewhere.
void keep_some(const float* logits, const uint8_t* kept, int64_t count, float* result) {
    for (int64_t i = 0; i < count; i++) result[i] = kept[i] ? logits[i] : -INFINITY;
}

// For each block of numbers, the sum of exp((number - highest) * factor), in float32 but for the sum of the lanes.
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

// How many of the last 16 bits are 1. The compiler's own function is in a library on processors that have no instruction for it.
INLINE int64_t bits_set(uint32_t bits) {
    bits -= bits >> 1 & 0x5555;
    bits = (bits & 0x3333) + (bits >> 2 & 0x3333);
    bits = (bits + (bits >> 4)) & 0x0f0f;
    return (bits + (bits >> 8)) & 0x1f;
}

// A number's weight is exp(x), x = (number - highest) * factor, in double. `ranges` are an inner and an outer one, [lowest, highest].
// Writes into `sums`, for each block, the sum of the weights in the inner range; into `whole`, the sums of weight and of weight * x of all
// numbers, how many numbers the inner range has, and the highest of these; into `kept`, the numbers of the inner range, -infinity in the
// place of the others; into `places`, which has room for all, the places of those in the outer range alone. Returns how many places.
int64_t exact_sums(const float* logits, int64_t count, int64_t block, double highest, double factor, const float* ranges, double* sums,
                   double* whole, float* kept, int64_t* places) {
    const float inner_low = ranges[0], inner_high = ranges[1], outer_low = ranges[2], outer_high = ranges[3];
    const Doubles top = doubles(highest), scale = doubles(factor * 0x1.71547652b82fep+0), least = doubles(-1000.0);  // powers of 2
    Doubles total = doubles(0.0), moment = total;
    double lanes[8];
    Floats highest16 = all(-INFINITY);
    int64_t found = 0, inside = 0;
    for (int64_t first = 0; first < count; first += block, sums++) {
        const int64_t end = first + block < count ? first + block : count;
        Doubles inner = doubles(0.0);
        for (int64_t i = first; i < end; i += 16) {
            float last[16];
            const bool whole16 = i + 16 <= end;
            if (!whole16)
                for (int j = 0; j < 16; j++) last[j] = i + j < end ? logits[i + j] : -INFINITY;
            const float* numbers = whole16 ? logits + i : last;
            const Floats loaded = load(numbers);
            const uint32_t bits = within(loaded, inner_low, inner_high);
            inside += bits_set(bits);
            for (int half = 0; half < 16; half += 8) {
                Doubles x = max(mul(sub(widened(numbers + half), top), scale), least), weight = power_of_two(x);
                total = add(total, weight);
                moment = fma(weight, x, moment);
                inner = add_some(inner, weight, bits >> half);
            }
            for (uint32_t near = within(loaded, outer_low, outer_high) & ~bits; near; near &= near - 1)
                places[found++] = i + __builtin_ctz(near);
            const Floats inner16 = keep_within(loaded, inner_low, inner_high);
            highest16 = max(highest16, inner16);
            store(whole16 ? kept + i : last, inner16);
            if (!whole16) memcpy(kept + i, last, 4 * (size_t)(end - i));
        }
        store(lanes, inner);
        *sums = 0;
        for (double lane : lanes) *sums += lane;
    }
    whole[0] = whole[1] = 0;
    store(lanes, total);
    for (double lane : lanes) whole[0] += lane;
    store(lanes, moment);
    for (double lane : lanes) whole[1] += lane * 0x1.62e42fefa39efp-1;
    whole[2] = (double)inside;
    whole[3] = largest(highest16);
    return found;
}

// Numbers counted in ranges of equal width, from the highest number down; the last range has all lower ones, too.
struct Counted {
    static constexpr int RANGES = 2048;
    const double highest, factor;
    double width;
    int32_t counts[RANGES];
    double masses[RANGES];  // for each range, how many numbers it has times the weight in its middle
    double total = 0;
    double step, most_wrong, error;  // the width in exponents; the largest relative error of a mass, and the likely one of a sum of masses

    Counted(const float* logits, int64_t count, double highest, double factor) : highest(highest), factor(factor) {
        // The lowest number of a sample is low enough, and weights below exp(-40) are nothing beside the highest one.
        float lowest = (float)highest;
        for (int64_t i = 0; i < count; i += 64) lowest = logits[i] < lowest ? logits[i] : lowest;
        width = std::min(highest - lowest, 40 / factor) / RANGES;
        if (width == 0) width = 1e-30;  // all are equal
        int32_t other[RANGES] = {};  // neighbours are often in one range, where one addition would wait for the other
        memset(counts, 0, sizeof counts);
        const float top = (float)highest, scale = (float)(1 / width), last = RANGES - 1;
        for (int64_t first = 0; first < count; first += 512) {
            const int64_t size = std::min<int64_t>(512, count - first);
            int32_t range[512];
            for (int64_t i = 0; i < size; i++) {
                float place = (top - logits[first + i]) * scale;
                range[i] = (int32_t)(place < last ? place : last);
            }
            int64_t i = 0;
            for (; i + 2 <= size; i += 2) counts[range[i]]++, other[range[i + 1]]++;
            for (; i < size; i++) counts[range[i]]++;
        }
        step = width * factor;
        const double ratio = exp(-step);
        double weight = exp(-step / 2), squares = 0;
        for (int i = 0; i < RANGES; i++, weight *= ratio) {
            counts[i] += other[i];
            masses[i] = counts[i] * weight;
            total += masses[i];
            squares += masses[i] * weight;
        }
        // A number is at most half a range from the middle, and a little more because the ends of ranges are rounded. The errors of
        // many numbers nearly cancel one another: the root, divided by the total, is 1 / sqrt(how many of them matter).
        most_wrong = expm1(0.51 * step);
        error = std::min(step * (1.5 * sqrt(squares) / total + step), most_wrong);
    }

    // The float next to the number at which a range begins (counted from above), in a direction.
    float edge(int range, float toward) const {
        return range <= 0 ? INFINITY : range >= RANGES ? -FLT_MAX : nextafterf((float)(highest - range * width), toward);
    }

    // The ends, [lowest, highest], of the numbers whose exponents are within a distance of the mean; none of them is below a range.
    void around(double mean, double distance, int range, float* ends) const {
        ends[0] = ends[1] = INFINITY;
        if (distance <= 0) return;
        ends[0] = std::max((float)std::max(highest + (mean - distance) / factor, -(double)FLT_MAX), edge(range, -INFINITY));
        if (mean + distance < 0) ends[1] = (float)(highest + (mean + distance) / factor);
    }

    // The first and the last of the masses with which their running sum may reach the share.
    void borders(const double* masses, double share, int* first, int* last) const {
        double running = 0;
        *first = -1;
        for (*last = 0; *last < RANGES - 1; ++*last) {
            running += masses[*last];
            if (*first < 0 && running >= share * total * (1 - error)) *first = *last;
            if (running >= share * total * (1 + error)) break;
        }
        if (*first < 0) *first = *last;
    }
};

// A candidate near a border: those with the lowest keys come first, and among equals those with the lowest places.
struct Near {
    double key, weight;
    int64_t place;
    bool operator<(const Near& other) const { return key < other.key || (key == other.key && place < other.place); }
};

// Candidates near a border, of which the first ones are taken until their weights sum to what is missing.
struct Border {
    Near* near;
    int64_t size = 0, taken = 0;
    double sum = 0;
    double slack = 0;  // how far the missing sum may move before others are taken; at most 0 if there are too few
    bool ordered = true;

    void add(double key, double x, int64_t place, bool again) {
        near[size] = {key, again ? near[size - 1].weight : exp(x), place};
        sum += near[size].weight;
        ordered &= size == 0 || near[size - 1] < near[size];
        size++;
    }

    void take(double missing, bool at_least_one) {
        int64_t end = size;
        double before = 0;
        while (!ordered && end - taken > 32) {  // halves the part in which the sum reaches what is missing
            const int64_t middle = taken + (end - taken) / 2;
            std::nth_element(near + taken, near + middle, near + end);
            double running = before;
            for (int64_t i = taken; i < middle; i++) running += near[i].weight;
            if (running < missing) taken = middle, before = running;
            else end = middle;
        }
        if (!ordered) std::sort(near + taken, near + end);
        double running = before;
        while (taken < size && (running < missing || (at_least_one && taken == 0))) before = running, running += near[taken++].weight;
        if (taken) slack = at_least_one && taken == 1 ? running - missing : std::min(running - missing, missing - before);
    }
};

// Finds the fewest numbers whose weights exp((number - highest) * factor) together have a share of the weights of all: the highest ones, or,
// if they shall be `typical`, those whose exponents are nearest to the mean exponent; among equals those that come first. Returns how many
// they are, or -1 if rounding might change them. If they are at most `few`, puts their places into `places`, in ascending order. Else puts
// them into `kept`, with -infinity in the place of the others, the sum of their weights in each block into `sums`, and the lowest and the
// highest into `ends`; the lowest typical one counts as -infinity. `places` and `room` have room for all numbers.
int64_t fewest(const float* logits, int64_t count, int64_t block, double highest, double factor, double share, int32_t typical, int64_t few,
               double* sums, float* kept, double* ends, int64_t* places, void* room) {
    const double exact = 1e-11, alike = 1e-10;  // more than the relative error of sums, and that of a distance
    if (!(factor > 1e-28 && factor < 1e28)) return -1;  // float has no room for the width of a range
    const Counted counted(logits, count, highest, factor);
    float ranges[4] = {INFINITY, INFINITY, INFINITY, INFINITY};
    int first, last;
    if (!typical) {
        counted.borders(counted.masses, share, &first, &last);
        ranges[0] = counted.edge(first, INFINITY);
        ranges[2] = counted.edge(last + 1, -INFINITY);
        // If only a few numbers may be in the result, the sum of the others need not be exact.
        int64_t possible = 0;
        double tail = 0, least = exp(-(last + 1) * counted.step);
        for (int i = 0; i < Counted::RANGES; i++) (i <= last ? (void)(possible += counted.counts[i]) : (void)(tail += counted.masses[i]));
        if (possible <= few && share * tail * counted.most_wrong < least) {
            Border border = {(Near*)room};
            const int64_t found = places_from(logits, count, ranges[2], 2 * few, places);
            for (int64_t i = 0; i < found; i++) border.add(-(double)logits[places[i]], (logits[places[i]] - highest) * factor, places[i], false);
            border.take(share * (border.sum + tail), true);
            const double error = tail * counted.most_wrong + 2 * least * (double)llabs(found - possible);
            if (border.taken <= few && border.slack > share * error + exact * counted.total) {
                for (int64_t i = 0; i < border.taken; i++) places[i] = border.near[i].place;
                std::sort(places, places + border.taken, [](int64_t one, int64_t other) { return one < other; });
                return border.taken;
            }
        }
    } else {
        double mean = 0, spread = 0, folded[Counted::RANGES] = {};
        for (int i = 0; i < Counted::RANGES; i++) mean -= counted.masses[i] * (i + 0.5) * counted.step / counted.total;
        const int middle = std::min((int)(-mean / counted.step), Counted::RANGES - 1);  // the range of the mean; the others by their distance
        for (int i = 0; i < Counted::RANGES; i++) {
            folded[abs(i - middle)] += counted.masses[i];
            spread += counted.masses[i] * abs(i - middle) * counted.step / counted.total;
        }
        counted.borders(folded, share, &first, &last);
        // By how many ranges the mean and a distance may be wrong: a distance by one and a half, because it counts in whole ranges.
        const double margin = 1.5 + (1 + spread) * counted.error / counted.most_wrong;
        counted.around(mean, (first - margin) * counted.step, Counted::RANGES - 1, ranges);
        counted.around(mean, (last + margin) * counted.step, Counted::RANGES, ranges + 2);
    }
    double whole[4];
    const int64_t found = exact_sums(logits, count, block, highest, factor, ranges, sums, whole, kept, places);
    const double mean = whole[1] / whole[0];
    double missing = share * whole[0];
    for (int64_t i = 0; i * block < count; i++) missing -= sums[i];
    Border border = {(Near*)room};
    for (int64_t i = 0; i < found; i++) {
        const double number = logits[places[i]], x = (number - highest) * factor;
        border.add(typical ? fabs(x - mean) : -number, x, places[i], i && number == logits[places[i - 1]]);
    }
    border.take(missing, whole[2] == 0);
    if (!(border.slack > exact * whole[0])) return -1;
    const float last_taken = logits[border.near[border.taken - 1].place];
    if (typical) {
        // All in the inner range have to be nearer to the mean than the last one, and all beyond the outer range farther. No other
        // number may be so near to its distance that rounding might exchange the two.
        const double distance = border.near[border.taken - 1].key;
        for (int end = 0; end < 4; end++) {
            const double other = fabs((ranges[end] - highest) * factor - mean);
            const bool nowhere = ranges[end] == INFINITY || ranges[end] == -FLT_MAX;
            if (!nowhere && (end < 2 ? other + alike >= distance : other - alike <= distance)) return -1;
        }
        for (int64_t i = 0; i < found; i++)
            if (fabs(border.near[i].key - distance) < alike && logits[border.near[i].place] != last_taken) return -1;
    }
    ends[0] = typical ? -INFINITY : last_taken;
    ends[1] = whole[3];
    for (int64_t i = 0; i < border.taken; i++) {
        const Near& near = border.near[i];
        kept[near.place] = logits[near.place];
        sums[near.place / block] += near.weight;
        ends[1] = std::max(ends[1], (double)logits[near.place]);
    }
    const int64_t size = (int64_t)whole[2] + border.taken;
    if (size <= few) places_from(kept, count, -FLT_MAX, size, places);
    return size;
}

}  // namespace TGEN_KERNEL
