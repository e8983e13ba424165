// The FFT convolution: every row by one complex transform of its own length, see fft_worker.h and fft.h.

#include "direct_conv.h"
#include "fft_plan.h"
#include "kernels.h"

namespace longconv {
namespace LONGCONV_ISA {

// In fft_rows_*.cpp: all rows in vectors of W, the width of the plan.
template <typename T, int W>
int32_t fft_rows(const LongconvFftConv& p, const Plan<T>& plan, int64_t* memory);

namespace {

template <typename T, int W = kMostLanes<T>>
int32_t run(const LongconvFftConv& p, const Plan<T>& plan, int64_t* memory) {
    if constexpr (W > kLeastLanes<T>)
        if (plan.width < W) return run<T, W / 2>(p, plan, memory);
    return fft_rows<T, W>(p, plan, memory);
}

template <typename T>
int32_t run(const LongconvFftConv& p, int64_t* memory) {
    if (!p.plan) return direct_conv<T>(p, memory);
    return run<T>(p, make_plan<T>(p.length, p.circular && !p.lengths, static_cast<const T*>(p.plan)), memory);
}

}  // namespace

int32_t fft_conv(const LongconvFftConv& p, int64_t* memory) {
    switch (p.element) {
        case LONGCONV_FLOAT32:
        case LONGCONV_BFLOAT16:
        case LONGCONV_FLOAT16:
            return run<float>(p, memory);
        case LONGCONV_FLOAT64:
            return run<double>(p, memory);
    }
    return LONGCONV_BAD_ELEMENT;
}

}  // namespace LONGCONV_ISA
}  // namespace longconv
