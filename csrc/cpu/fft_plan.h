// The splitting of a transform of csrc/cpu/fft.h and its twiddles: included by the ISA sources alone.

#ifndef LONGCONV_CPU_FFT_PLAN_H
#define LONGCONV_CPU_FFT_PLAN_H

#include <stdint.h>

#include "vector.h"

namespace longconv {
namespace LONGCONV_ISA {

constexpr int kMostLevels = 40;

// The widest vector of T in use, and the narrowest.
template <typename T>
constexpr int kMostLanes = kVectorBytes / sizeof(T);
template <typename T>
constexpr int kLeastLanes = 16 / sizeof(T);

// How a transform of `size` numbers is split; its tables lie behind one another from `twiddles[0]` on.
template <typename T>
struct Plan {
    int64_t size;
    bool own_ring;  // modulo X^size - 1, else modulo X^size - i
    int width;      // lanes; a leaf is width * width numbers
    int levels;     // above the leaves, at least 1; level 0 may have radix 1
    int radix[kMostLevels];
    int64_t columns[kMostLevels];    // vectors in a block after the level
    const T* twiddles[kMostLevels];  // of each block before the level: radix - 1 pairs
    const T* leaves;                 // of each leaf: width - 1 pairs
    const T* lanes;                  // of each leaf: width - 1 complex vectors
    int64_t numbers;                 // in all tables
};

// Numbers between the buffers of a worker, against addresses that are equal modulo a power of two.
constexpr int64_t kGap = 272;

// The least number >= n with no prime factor but 2, 3 and 5. (4 divides nothing that 2 has left.)
inline int64_t smooth(int64_t n) {
    for (;; ++n) {
        int64_t rest = n;
        for (int prime = 2; prime <= 5; ++prime)
            while (rest % prime == 0) rest /= prime;
        if (rest == 1) return n;
    }
}

// The cost of a number, by how many times narrower than the widest a vector is.
constexpr double kNarrow[] = {1.0, 1.3, 2.3, 4.6};

// And of a periodic sequence in a ring that is not that of its period, whose products are folded.
constexpr double kFolded = 1.8;

// The plan of the fastest size >= length; tables start at `tables`. The period of a ring of its own is `size`.
template <typename T>
Plan<T> make_plan(int64_t length, bool periodic, const T* tables) {
    Plan<T> plan = {};
    double best = 0;
    for (int width = kMostLanes<T>, i = 0; width >= kLeastLanes<T>; width /= 2, ++i) {
        const int64_t leaf = width * width, size = leaf * smooth((length + leaf - 1) / leaf);
        const bool own_ring = periodic && size == length;
        const double cost = kNarrow[i] * (periodic && !own_ring ? kFolded : 1.0) * static_cast<double>(size);
        if (plan.size == 0 || cost < best) plan.size = size, plan.own_ring = own_ring, plan.width = width, best = cost;
    }
    int64_t rest = plan.size / plan.width / plan.width;
    int twos = 0;
    for (int64_t n = rest; n % 2 == 0; n /= 2) ++twos;
    const auto take = [&](int radix) { plan.radix[plan.levels++] = radix, rest /= radix; };
    if (rest == 1) take(1);
    for (; twos == 2 || twos == 4 || twos % 3 == 2 || (twos % 3 == 1 && twos > 1); twos -= 2) take(4);
    for (; twos >= 3; twos -= 3) take(8);
    for (; twos > 0; --twos) take(2);
    while (rest % 5 == 0) take(5);
    while (rest % 3 == 0) take(3);
    int64_t blocks = 1, columns = plan.size / plan.width;
    const T* next = tables;
    for (int level = 0; level < plan.levels; ++level) {
        plan.twiddles[level] = next, next += 2 * (plan.radix[level] - 1) * blocks;
        blocks *= plan.radix[level], columns /= plan.radix[level];
        plan.columns[level] = columns;
    }
    const int64_t aligned = (next - tables + 15) / 16 * 16;  // the vectors of the leaves first
    const int64_t pairs = 2 * (plan.width - 1) * blocks;
    plan.lanes = tables + aligned;
    plan.leaves = plan.lanes + pairs * plan.width;
    plan.numbers = aligned + pairs * (plan.width + 1);
    return plan;
}

}  // namespace LONGCONV_ISA
}  // namespace longconv

#endif
