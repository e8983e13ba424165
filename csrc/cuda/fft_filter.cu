// The convolution of all rows with their filters.

#include "fft_filter.h"
#include "fft_launch.h"

using namespace longconv;

int32_t longconv_cuda_fft_filter(const LongconvCudaFilter* call, int32_t device, void* stream) {
    return with_layout(call->tiles.points, call->arithmetic, [&](auto layout) {
        const Filter<decltype(layout)> kernel{layout, *call};
        return launch_rows<Filter<decltype(layout)>>(layout, *call, kernel.rows(), device, stream);
    });
}
