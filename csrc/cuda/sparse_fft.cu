// The frequency-sparse convolution of sequences that a block holds, and the gradients of its filters.

#include "sparse_launch.h"

using namespace longconv;

namespace {

template <template <typename> class Kernel>
int32_t launch_call(const LongconvCudaSparse& call, int32_t device, void* stream) {
    return with_sparse_layout(
        call, [&](auto layout) { return launch_sparse<Kernel<decltype(layout)>>(layout, call, device, stream); });
}

}  // namespace

int32_t longconv_cuda_sparse_filter(const LongconvCudaSparse* call, int32_t device, void* stream) {
    return launch_call<SparseFilter>(*call, device, stream);
}

int32_t longconv_cuda_sparse_correlate(const LongconvCudaSparse* call, int32_t device, void* stream) {
    return launch_call<SparseCorrelation>(*call, device, stream);
}

int32_t longconv_cuda_sparse_taps(const LongconvCudaSparse* call, int32_t device, void* stream) {
    return launch_call<SparseTaps>(*call, device, stream);
}
