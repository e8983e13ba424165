// Sums of simple poles.

#include "cauchy.h"

using namespace longconv;

namespace {

template <typename D, typename S>
int32_t choose(const LongconvCudaCauchy& call, int32_t device, void* stream) {
    if (call.first.data) return launch_jobs(CauchyPoles<D, S>{{call}}, device, stream);
    return launch_jobs(CauchyPoints<D, S>{{call}}, device, stream);
}

}  // namespace

int32_t longconv_cuda_cauchy(const LongconvCudaCauchy* call, int32_t device, void* stream) {
    if (call->sets < 0 || call->rows < 0 || call->modes < 0 || call->length < 0) return LONGCONV_BAD_SIZE;
    if (!divides_warp(call->lanes) || call->splits < 1) return LONGCONV_BAD_SIZE;
    if (!call->sets || !call->rows || !call->length) return LONGCONV_OK;
    switch (call->element) {
        case LONGCONV_FLOAT32:
            return call->wide ? choose<double, float>(*call, device, stream)
                              : choose<float, float>(*call, device, stream);
        case LONGCONV_FLOAT64:
            return choose<double, double>(*call, device, stream);
    }
    return LONGCONV_BAD_ELEMENT;
}
