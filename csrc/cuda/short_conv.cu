// Causal convolutions with few taps.

#include "short_conv.h"

using namespace longconv;

namespace {

template <typename Kernel>
int32_t convolve(const typename Kernel::Call& call, int32_t device, void* stream) {
    if (call.batch < 0 || call.channels < 0 || call.length < 0 || call.taps < 1 || !divides_warp(call.lanes))
        return LONGCONV_BAD_SIZE;
    return launch_jobs(Kernel{call}, device, stream);
}

}  // namespace

int32_t longconv_cuda_short_conv(const LongconvCudaShortConv* call, int32_t device, void* stream) {
    switch (call->element) {
        case LONGCONV_FLOAT32:
            return convolve<ShortConv<float>>(*call, device, stream);
        case LONGCONV_FLOAT64:
            return convolve<ShortConv<double>>(*call, device, stream);
    }
    return LONGCONV_BAD_ELEMENT;
}

int32_t longconv_cuda_short_conv_sums(const LongconvCudaShortConvSums* call, int32_t device, void* stream) {
    if (call->splits < 1) return LONGCONV_BAD_SIZE;
    switch (call->element) {
        case LONGCONV_FLOAT32:
            return convolve<ShortConvSums<float>>(*call, device, stream);
        case LONGCONV_FLOAT64:
            return convolve<ShortConvSums<double>>(*call, device, stream);
    }
    return LONGCONV_BAD_ELEMENT;
}
