// Tiled transpose through shared memory: both the reads and the writes of a warp are contiguous.

#include "status.h"

namespace {

constexpr int kTile = 32;
constexpr int kThreadRows = 8;

struct Problem {
    int64_t batch, rows, cols;
    int64_t out_batch_stride, out_row_stride, in_batch_stride, in_row_stride;
    int64_t row_tiles, col_tiles;
};

template <typename Element>
__global__ void __launch_bounds__(kTile* kThreadRows)
    transpose(Element* __restrict__ out, const Element* __restrict__ in, const Problem p) {
    __shared__ Element tile[kTile][kTile + 1];  // one more column: no bank conflicts down a column
    const int64_t tiles = p.batch * p.row_tiles * p.col_tiles;
    for (int64_t i = blockIdx.x; i < tiles; i += gridDim.x) {
        const int64_t c0 = i % p.col_tiles * kTile;
        const int64_t r0 = i / p.col_tiles % p.row_tiles * kTile;
        const int64_t b = i / p.col_tiles / p.row_tiles;
        for (int k = threadIdx.y; k < kTile; k += kThreadRows)
            if (r0 + k < p.rows && c0 + threadIdx.x < p.cols)
                tile[k][threadIdx.x] = in[b * p.in_batch_stride + (r0 + k) * p.in_row_stride + c0 + threadIdx.x];
        __syncthreads();
        for (int k = threadIdx.y; k < kTile; k += kThreadRows)
            if (c0 + k < p.cols && r0 + threadIdx.x < p.rows)
                out[b * p.out_batch_stride + (c0 + k) * p.out_row_stride + r0 + threadIdx.x] = tile[threadIdx.x][k];
        __syncthreads();
    }
}

template <typename Element>
int32_t launch(void* out, const void* in, const Problem& p, cudaStream_t stream) {
    const int64_t tiles = p.batch * p.row_tiles * p.col_tiles;
    if (tiles == 0) return LONGCONV_OK;
    const int64_t most = 0x7fffffff;
    transpose<Element><<<static_cast<unsigned>(tiles < most ? tiles : most), dim3(kTile, kThreadRows), 0, stream>>>(
        static_cast<Element*>(out), static_cast<const Element*>(in), p);
    LONGCONV_CHECK(cudaGetLastError());
    return LONGCONV_OK;
}

}  // namespace

int32_t longconv_cuda_transpose(void* out, const void* in, int64_t batch, int64_t rows, int64_t cols,
                                int64_t out_batch_stride, int64_t out_row_stride, int64_t in_batch_stride,
                                int64_t in_row_stride, int32_t element_size, int32_t device, void* stream) {
    if (batch < 0 || rows < 0 || cols < 0) return LONGCONV_BAD_SIZE;
    longconv::DeviceScope scope;
    if (const int32_t status = scope.enter(device)) return status;
    const Problem p{batch,
                    rows,
                    cols,
                    out_batch_stride,
                    out_row_stride,
                    in_batch_stride,
                    in_row_stride,
                    (rows + kTile - 1) / kTile,
                    (cols + kTile - 1) / kTile};
    const cudaStream_t queue = static_cast<cudaStream_t>(stream);
    switch (element_size) {
        case 1:
            return launch<uint8_t>(out, in, p, queue);
        case 2:
            return launch<uint16_t>(out, in, p, queue);
        case 4:
            return launch<uint32_t>(out, in, p, queue);
        case 8:
            return launch<uint2>(out, in, p, queue);
        case 16:
            return launch<uint4>(out, in, p, queue);
    }
    return LONGCONV_BAD_ELEMENT;
}
