// Sums of simple poles.

#include "cauchy.h"

using namespace longconv;

namespace {

template <typename Kernel>
int32_t sum(const Kernel& kernel, int32_t device, void* stream) {
    DeviceScope scope;
    if (const int32_t status = scope.enter(device)) return status;
    const int64_t jobs = kernel.jobs();
    const int warps = static_cast<int>(jobs < Kernel::kMostWarps ? jobs : Kernel::kMostWarps);
    return launch(kernel, (jobs + warps - 1) / warps, warps, 0, stream);
}

template <typename D, typename S>
int32_t choose(const LongconvCudaCauchy& call, int32_t device, void* stream) {
    if (call.first.data) return sum(CauchyPoles<D, S>{{call}}, device, stream);
    return sum(CauchyPoints<D, S>{{call}}, device, stream);
}

}  // namespace

int32_t longconv_cuda_cauchy(const LongconvCudaCauchy* call, int32_t device, void* stream) {
    if (call->sets < 0 || call->rows < 0 || call->modes < 0 || call->length < 0) return LONGCONV_BAD_SIZE;
    if (call->lanes < 1 || call->lanes > 32 || 32 % call->lanes || call->splits < 1) return LONGCONV_BAD_SIZE;
    if (!call->sets || !call->rows || !call->modes || !call->length) return LONGCONV_OK;
    switch (call->element) {
        case LONGCONV_FLOAT32:
            return call->wide ? choose<double, float>(*call, device, stream)
                              : choose<float, float>(*call, device, stream);
        case LONGCONV_FLOAT64:
            return choose<double, double>(*call, device, stream);
    }
    return LONGCONV_BAD_ELEMENT;
}
