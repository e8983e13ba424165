// The twiddles of a transform, in double precision and rounded once.

#include "fft_plan.h"

#include "fft_codelets.h"
#include "kernels.h"

namespace longconv {
namespace LONGCONV_ISA {

template <typename T>
const T Hidden<T>::one = 1;
template struct Hidden<float>;
template struct Hidden<double>;

namespace {

constexpr double kTurn = 6.283185307179586476925286766559005768;

// The table was given for writing.
template <typename T>
inline void put(const T* table, int64_t place, double value) {
    const_cast<T*>(table)[place] = static_cast<T>(value);
}

// A block of the ring modulo X^m - exp(2 pi i turns), and all below it.
template <typename T>
void fill(const Plan<T>& plan, int level, int64_t block, double turns) {
    if (level == plan.levels) {
        const int W = plan.width;
        for (int p = 1; p < W; ++p) {
            const int64_t pair = 2 * ((W - 1) * block + p - 1);
            put(plan.leaves, pair, __builtin_cos(kTurn * p * (turns / W)));
            put(plan.leaves, pair + 1, __builtin_sin(kTurn * p * (turns / W)));
            for (int j = 0; j < W; ++j) {
                const double angle = kTurn * p * ((turns + j) / W / W);
                put(plan.lanes, pair * W + j, __builtin_cos(angle));
                put(plan.lanes, (pair + 1) * W + j, __builtin_sin(angle));
            }
        }
        return;
    }
    const int R = plan.radix[level];
    for (int p = 1; p < R; ++p) {
        const int64_t pair = 2 * ((R - 1) * block + p - 1);
        put(plan.twiddles[level], pair, __builtin_cos(kTurn * p * (turns / R)));
        put(plan.twiddles[level], pair + 1, __builtin_sin(kTurn * p * (turns / R)));
    }
    for (int j = 0; j < R; ++j) fill(plan, level + 1, R * block + j, (turns + j) / R);
}

template <typename T>
int32_t run(void* tables, int64_t length, bool periodic, int64_t* bytes) {
    const Plan<T> plan = make_plan<T>(length, periodic, static_cast<const T*>(tables));
    if (bytes) *bytes = plan.numbers * static_cast<int64_t>(sizeof(T));
    if (tables) fill(plan, 0, 0, plan.own_ring ? 0.0 : 0.25);
    return LONGCONV_OK;
}

}  // namespace

int32_t fft_plan(void* tables, int64_t length, bool periodic, int32_t element, int64_t* bytes) {
    switch (element) {
        case LONGCONV_FLOAT32:
        case LONGCONV_BFLOAT16:
        case LONGCONV_FLOAT16:
            return run<float>(tables, length, periodic, bytes);
        case LONGCONV_FLOAT64:
            return run<double>(tables, length, periodic, bytes);
    }
    return LONGCONV_BAD_ELEMENT;
}

}  // namespace LONGCONV_ISA
}  // namespace longconv
