// The convolution of all rows with their filters.

#include "fft_filter.h"
#include "fft_launch.h"

using namespace longconv;

int32_t longconv_cuda_fft_filter(const LongconvCudaFilter* call, int32_t device, void* stream) {
    return with_layout(call->length, call->arithmetic, [&](auto layout) {
        return launch_rows<Filter<decltype(layout)>>(layout, *call, call->batch * call->channels, device, stream);
    });
}
