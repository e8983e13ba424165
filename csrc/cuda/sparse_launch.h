// The launch of a kernel of the frequency-sparse convolution in its arithmetic.

#ifndef LONGCONV_CUDA_SPARSE_LAUNCH_H
#define LONGCONV_CUDA_SPARSE_LAUNCH_H

#include "sparse_fft.h"

namespace longconv {

// f(layout) with the layout of a call.
template <typename F>
int32_t with_sparse_layout(const LongconvCudaSparse& call, const F& f) {
    if (call.n1 < 1 || call.n2 < 1 || call.rows < 1 || call.columns < 1 || call.rows > call.n1 ||
        call.columns > call.n2 || call.length > static_cast<int64_t>(call.n1) * call.n2)
        return LONGCONV_BAD_SIZE;
    switch (call.arithmetic) {
        case LONGCONV_HALF:
            return f(SparseLayout<Half>{call.n1, call.n2, call.rows, call.columns});
        case LONGCONV_TF32:
            return f(SparseLayout<Tf32>{call.n1, call.n2, call.rows, call.columns});
        case LONGCONV_TF32X3:
            return f(SparseLayout<Tf32x3>{call.n1, call.n2, call.rows, call.columns});
    }
    return LONGCONV_BAD_ELEMENT;
}

// Queues a kernel with a block for each row.
template <typename Kernel, typename L>
int32_t launch_sparse(const L& layout, const LongconvCudaSparse& call, int32_t device, void* stream) {
    Kernel kernel;
    kernel.layout = layout;
    kernel.call = call;
    DeviceScope scope;
    if (const int32_t status = scope.enter(device)) return status;
    int most = 0;
    if (const int32_t status = most_shared_memory(device, &most)) return status;
    if (layout.shared_bytes() > most) return LONGCONV_BAD_SIZE;
    const int64_t jobs = static_cast<int64_t>(layout.tall() > layout.stripes() ? layout.tall() : layout.stripes()) *
                         ((layout.wide() + 1) / 2);
    const int warps = jobs < kMostWarpsOfSparse ? static_cast<int>(jobs) : kMostWarpsOfSparse;
    return launch(kernel, kernel.rows(), warps, static_cast<int>(layout.shared_bytes()), stream);
}

}  // namespace longconv

#endif
