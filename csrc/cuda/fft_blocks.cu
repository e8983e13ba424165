// Sequences of several blocks, and the gradients of all filters.

#include "fft_blocks.h"
#include "fft_launch.h"

using namespace longconv;

int32_t longconv_cuda_fft_blocks(const LongconvCudaBlocks* call, int32_t device, void* stream) {
    return with_layout(call->points, call->arithmetic, [&](auto layout) {
        const Blocks<decltype(layout)> kernel{layout, *call};
        return launch_rows<Blocks<decltype(layout)>>(layout, *call, kernel.rows(), device, stream);
    });
}

int32_t longconv_cuda_fft_products(const LongconvCudaProducts* call, int32_t device, void* stream) {
    DeviceScope scope;
    if (const int32_t status = scope.enter(device)) return status;
    const int64_t blocks = call->channels * call->parts * call->filter_blocks * (call->points / 256);
    return launch(Products{*call}, blocks, 4, 0, stream);
}

int32_t longconv_cuda_fft_taps(const LongconvCudaTaps* call, int32_t device, void* stream) {
    return with_layout(call->length, call->arithmetic, [&](auto layout) {
        const Taps<decltype(layout)> kernel{layout, *call};
        return launch_rows<Taps<decltype(layout)>>(layout, *call, kernel.rows(), device, stream);
    });
}
