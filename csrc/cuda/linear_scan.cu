// Linear recurrences along a sequence.

#include "jobs.h"
#include "linear_scan.h"

using namespace longconv;

namespace {

template <typename V>
int32_t scan(const LongconvCudaLinearScan& call, int32_t device, void* stream) {
    DeviceScope scope;
    if (const int32_t status = scope.enter(device)) return status;
    const LinearScan<V> kernel{call};
    return launch(kernel, kernel.groups() * kernel.chunks(), kernel.warps(), kernel.shared_bytes(), stream);
}

}  // namespace

int32_t longconv_cuda_linear_scan(const LongconvCudaLinearScan* call, int32_t device, void* stream) {
    if (call->sets < 0 || call->rows < 0 || call->length < 0 || call->chunk < 1) return LONGCONV_BAD_SIZE;
    if (!divides_warp(call->lanes)) return LONGCONV_BAD_SIZE;
    if (!call->sets || !call->rows || !call->length) return LONGCONV_OK;
    switch (call->element) {
        case LONGCONV_FLOAT32:
            return scan<float>(*call, device, stream);
        case LONGCONV_FLOAT64:
            return scan<double>(*call, device, stream);
        case LONGCONV_COMPLEX64:
            return scan<ComplexOf<float>>(*call, device, stream);
        case LONGCONV_COMPLEX128:
            return scan<ComplexOf<double>>(*call, device, stream);
    }
    return LONGCONV_BAD_ELEMENT;
}
