// The correlations of sequences in tiles, for the gradient of their filters.

#include "fft_gradient.h"
#include "fft_launch.h"

using namespace longconv;

int32_t longconv_cuda_fft_correlate(const LongconvCudaCorrelation* call, int32_t device, void* stream) {
    return with_layout(call->tiles.points, call->arithmetic, [&](auto layout) {
        return launch_rows<Correlation<decltype(layout)>>(layout, *call, call->channels * call->parts, device, stream);
    });
}
