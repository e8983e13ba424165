// Kernels of the filter's gradient: the correlation of two sequences in the spectrum, summed over tiles and samples.

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
        const int64_t steps = (tiles() + call.parts - 1) / call.parts;
        for (int64_t first = block.index() * layout.group; first < rows(); first += block.count() * layout.group)
            for (int64_t step = 0; step < steps; ++step) {
                load(block, first, step, false);
                block.phase([&](int warp) { spectra(block, warp, first, step, false, tables); });
                load(block, first, step, true);
                block.phase([&](int warp) { spectra(block, warp, first, step, true, tables); });
            }
    }

  private:
    LONGCONV_DEVICE int64_t rows() const { return call.channels * call.parts; }
    LONGCONV_DEVICE int64_t tiles() const { return call.batch * call.tiles.tiles; }
    // The tile of a row in a step, or the number of all where it has none left.
    LONGCONV_DEVICE int64_t tile(int64_t row, int64_t step) const {
        const int64_t part = row % call.parts, i = part * tiles() / call.parts + step;
        return i < (part + 1) * tiles() / call.parts ? i : tiles();
    }

    // Of x all that the tiles reach, of g what they give.
    LONGCONV_DEVICE void load(Block& block, int64_t first, int64_t step, bool of_g) const {
        load_sequences(block, layout, [&](int i, int t, float (&v)[8]) {
            const int64_t row = first + i, of = row < rows() ? tile(row, step) : tiles();
            const int64_t sample = of / call.tiles.tiles;
            const int64_t end = of < tiles() && (!of_g || gives(call.tiles, t)) ? end_of(call, sample) : 0;
            read_around(of_g ? call.g : call.x, of_g ? call.g_gate : call.x_gate, call.element, call.length, sample,
                        row / call.parts, begin_of(call.tiles, of) + t, end, !of_g && call.tiles.around, v);
        });
    }

    // Of x the conjugate spectrum goes to the scratch; that of g is multiplied by it and added to the products.
    LONGCONV_DEVICE void spectra(const Block& block, int warp, int64_t first, int64_t step, bool multiply,
                                 const Tables<L>& tables) const {
        const Leaf<L> leaf(tables, layout);
        for (int job = warp; job < layout.group * layout.stripes; job += block.warps()) {
            const int i = job / layout.stripes, stripe = job % layout.stripes;
            const int64_t row = first + i;
            if (row >= rows() || tile(row, step) == tiles()) continue;
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
