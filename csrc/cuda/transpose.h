// Tiled transpose through shared memory: both the reads and the writes of a warp are contiguous.

#ifndef LONGCONV_CUDA_TRANSPOSE_H
#define LONGCONV_CUDA_TRANSPOSE_H

#include "longconv.h"
#include "tile.h"

namespace longconv {

struct TransposeCall {
    void* out;
    const void* in;
    int64_t batch, rows, cols, out_batch_stride, out_row_stride, in_batch_stride, in_row_stride;
};

template <typename Element>
struct Transpose {
    static constexpr int kMostWarps = 8, kTile = 32, kStride = kTile + 1;  // no bank conflicts down a column
    TransposeCall call;

    LONGCONV_BOTH int shared_bytes() const { return kTile * kStride * static_cast<int>(sizeof(Element)); }
    LONGCONV_BOTH int64_t row_tiles() const { return (call.rows + kTile - 1) / kTile; }
    LONGCONV_BOTH int64_t col_tiles() const { return (call.cols + kTile - 1) / kTile; }
    LONGCONV_BOTH int64_t tiles() const { return call.batch * row_tiles() * col_tiles(); }

    LONGCONV_DEVICE void operator()(Block& block) const {
        const Shared<Element> tile(0, kTile * kStride);
        for (int64_t i = block.index(); i < tiles(); i += block.count()) {
            const int64_t c = i % col_tiles() * kTile, r = i / col_tiles() % row_tiles() * kTile,
                          b = i / col_tiles() / row_tiles();
            const Global<const Element> in(static_cast<const Element*>(call.in) + b * call.in_batch_stride,
                                           (call.rows - 1) * call.in_row_stride + call.cols);
            const Global<Element> out(static_cast<Element*>(call.out) + b * call.out_batch_stride,
                                      (call.cols - 1) * call.out_row_stride + call.rows);
            each_place(block, [&](int k, int lane) {
                if (r + k < call.rows && c + lane < call.cols)
                    tile.set(k * kStride + lane, in.get((r + k) * call.in_row_stride + c + lane));
            });
            each_place(block, [&](int k, int lane) {
                if (c + k < call.cols && r + lane < call.rows)
                    out.set((c + k) * call.out_row_stride + r + lane, tile.get(lane * kStride + k));
            });
        }
    }

  private:
    // Phase: f(k, lane) for the rows k of a tile.
    template <typename F>
    static LONGCONV_DEVICE void each_place(Block& block, const F& f) {
        block.phase([&](int warp) {
            for (int k = warp; k < kTile; k += kMostWarps) each_lane([&](int lane) { f(k, lane); });
        });
    }
};

}  // namespace longconv

#endif
