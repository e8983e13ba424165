// Sums of powers of nodes.

#include "vandermonde.h"

using namespace longconv;

namespace {

template <typename Kernel>
int32_t sum(const LongconvCudaVandermonde& call, int32_t device, void* stream) {
    DeviceScope scope;
    if (const int32_t status = scope.enter(device)) return status;
    const Kernel kernel{call};
    const int64_t jobs = kernel.jobs();
    const int warps = static_cast<int>(jobs < Kernel::kMostWarps ? jobs : Kernel::kMostWarps);
    return launch(kernel, (jobs + warps - 1) / warps, warps, 0, stream);
}

}  // namespace

int32_t longconv_cuda_vandermonde(const LongconvCudaVandermonde* call, int32_t device, void* stream) {
    if (call->sets < 0 || call->rows < 0 || call->modes < 0 || call->length < 0) return LONGCONV_BAD_SIZE;
    if (call->lanes < 1 || call->lanes > 32 || 32 % call->lanes || call->splits < 1) return LONGCONV_BAD_SIZE;
    if (!call->sets || !call->rows || !call->modes || !call->length) return LONGCONV_OK;
    switch (call->y.element) {
        case LONGCONV_FLOAT32:
            return call->backward ? sum<VandermondeSums<float>>(*call, device, stream)
                                  : sum<Vandermonde<float>>(*call, device, stream);
        case LONGCONV_COMPLEX64:
            return call->backward ? sum<VandermondeSums<Complex>>(*call, device, stream)
                                  : sum<Vandermonde<Complex>>(*call, device, stream);
    }
    return LONGCONV_BAD_ELEMENT;
}
