// The FFT convolution: every row by one complex transform of its own length, see fft_worker.h and fft.h.

#include "conv_job.h"
#include "direct_conv.h"
#include "fft_worker.h"

namespace longconv {
namespace LONGCONV_ISA {
namespace {

template <typename T, int W = kMostLanes<T>>
int32_t run(const LongconvFftConv& p, const Plan<T>& plan, int64_t* memory) {
    if constexpr (W > kLeastLanes<T>)
        if (plan.width < W) return run<T, W / 2>(p, plan, memory);
    const auto make = [&](T* work) { return Worker<T, W>{p, plan, work}; };
    return run_conv<T>(p, Worker<T, W>::numbers(plan, p.backward), plan.size, make, memory);
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
