// The transpose of matrices of numbers of any size.

#include "transpose.h"

using namespace longconv;

namespace {

template <typename Element>
int32_t launch_transpose(const TransposeCall& call, int32_t device, void* stream) {
    const Transpose<Element> kernel{call};
    DeviceScope scope;
    if (const int32_t status = scope.enter(device)) return status;
    return launch(kernel, kernel.tiles(), kernel.kMostWarps, kernel.shared_bytes(), stream);
}

}  // namespace

int32_t longconv_cuda_transpose(void* out, const void* in, int64_t batch, int64_t rows, int64_t cols,
                                int64_t out_batch_stride, int64_t out_row_stride, int64_t in_batch_stride,
                                int64_t in_row_stride, int32_t element_size, int32_t device, void* stream) {
    if (batch < 0 || rows < 0 || cols < 0) return LONGCONV_BAD_SIZE;
    const TransposeCall call{out,          in, batch, rows, cols, out_batch_stride, out_row_stride, in_batch_stride,
                             in_row_stride};
    switch (element_size) {
        case 1:
            return launch_transpose<uint8_t>(call, device, stream);
        case 2:
            return launch_transpose<uint16_t>(call, device, stream);
        case 4:
            return launch_transpose<uint32_t>(call, device, stream);
        case 8:
            return launch_transpose<Vector<uint32_t, 2>>(call, device, stream);
        case 16:
            return launch_transpose<Vector<uint32_t, 4>>(call, device, stream);
    }
    return LONGCONV_BAD_ELEMENT;
}
