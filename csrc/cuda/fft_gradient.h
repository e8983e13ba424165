// Kernels of the filter's gradient: the correlation of two sequences in the spectrum, summed over samples, and its
// taps.

#ifndef LONGCONV_CUDA_FFT_GRADIENT_H
#define LONGCONV_CUDA_FFT_GRADIENT_H

#include "monarch.h"
#include "sequence.h"

namespace longconv {

template <typename L>
struct Correlation {
    static constexpr int kMostWarps = kMostWarpsOfBlock;
    using Call = LongconvCudaCorrelation;
    L layout;
    Call call;

    LONGCONV_BOTH int shared_bytes() const { return layout.load_bytes(); }

    LONGCONV_DEVICE void operator()(Block& block) const {
        const Tables<L> tables(call.tables, layout);
        const int64_t steps = (call.batch + call.parts - 1) / call.parts;
        for (int64_t first = block.index() * layout.group; first < rows(); first += block.count() * layout.group)
            for (int64_t step = 0; step < steps; ++step) {
                load(block, first, step, call.x, call.x_gate);
                block.phase([&](int warp) { spectra(block, warp, first, step, false, tables); });
                load(block, first, step, call.g, call.g_gate);
                block.phase([&](int warp) { spectra(block, warp, first, step, true, tables); });
            }
    }

  private:
    LONGCONV_DEVICE int64_t rows() const { return call.channels * call.parts; }
    // The sample of a row in a step, or the batch where it has none left.
    LONGCONV_DEVICE int64_t sample(int64_t row, int64_t step) const {
        const int64_t part = row % call.parts, b = part * call.batch / call.parts + step;
        return b < (part + 1) * call.batch / call.parts ? b : call.batch;
    }

    LONGCONV_DEVICE void load(Block& block, int64_t first, int64_t step, const LongconvRows& rows_of,
                              const LongconvRows& gate) const {
        load_sequences(block, layout, [&](int i, int t, float (&v)[8]) {
            const int64_t row = first + i, b = row < rows() ? sample(row, step) : call.batch;
            int64_t end = 0;
            if (b < call.batch)
                end = call.lengths ? Global<const int64_t>(call.lengths, call.batch).get(b) : call.length;
            read_gated(rows_of, gate, call.element, call.length, b, row / call.parts, t, end, v);
        });
    }

    // Of x the conjugate spectrum goes to the scratch; that of g is multiplied by it and added to the products.
    LONGCONV_DEVICE void spectra(const Block& block, int warp, int64_t first, int64_t step, bool multiply,
                                 const Tables<L>& tables) const {
        const Leaf<L> leaf(tables, layout);
        for (int job = warp; job < layout.group * layout.stripes; job += block.warps()) {
            const int i = job / layout.stripes, stripe = job % layout.stripes;
            const int64_t row = first + i;
            if (row >= rows() || sample(row, step) == call.batch) continue;
            const Global<Complex> scratch(static_cast<Complex*>(call.scratch) + row * layout.points(), layout.points()),
                products(static_cast<Complex*>(call.products) + row * layout.points(), layout.points());
            const float scale = scale_of(layout, i);
            Stripe<L> x;
            x.forward(layout, tables, stripe, layout.sequence(i));
            LONGCONV_UNROLL
            for (int c = 0; c < L::R; ++c) {
                Tile re[2], im[2];
                leaf.product(re, im, x.re[c], x.im[c], false);
                each_pair<L>(stripe, c, [&](int place, int half, int lane, int j) {
                    Vector<Complex, 2> pair = {};
                    if (multiply) pair = scratch.template vector<2>(place);
                    LONGCONV_UNROLL
                    for (int k = 0; k < 2; ++k) {
                        const Complex v = {scale * re[half](lane, j + k), scale * im[half](lane, j + k)};
                        pair.v[k] = multiply ? pair.v[k] * v : conjugate(v);
                    }
                    if (multiply && step) {
                        const auto sum = products.template vector<2>(place);
                        LONGCONV_UNROLL
                        for (int k = 0; k < 2; ++k) pair.v[k] = pair.v[k] + sum.v[k];
                    }
                    (multiply ? products : scratch).template set_vector<2>(place, pair);
                });
                forget();
            }
        }
    }
};

}  // namespace longconv

#endif
