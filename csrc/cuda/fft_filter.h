// The kernel of the FFT convolution of sequences that a block holds, in one pass over memory. With few taps a sequence
// is taken in tiles, whose transforms are as short as fits the filter: with the neighbouring samples that it reaches to
// a tile has all that its own outputs are made of, and what is wrong in the rest is not written (overlap-save).

#ifndef LONGCONV_CUDA_FFT_FILTER_H
#define LONGCONV_CUDA_FFT_FILTER_H

#include "monarch.h"
#include "sequence.h"

namespace longconv {

// y = y_gate c and z = z_gate c of a call at a stripe of which time(place) tells when a place is, if that is not before
// 0; c times scale.
template <typename L, typename Call, typename Time>
LONGCONV_DEVICE void write_gated(const Call& call, const Tile (&c)[L::R][2], const Factor& scale, int stripe,
                                 int64_t sample, int64_t channel, const Time& time) {
    const int64_t end = end_of(call, sample);
    const auto write = [&](const LongconvRows& to, const LongconvRows& gate, int64_t t, float v, float w) {
        if (!to.data) return;
        if (gate.data) {
            const Sequence of_gate(gate, call.element, call.length, sample, channel);
            v *= of_gate.read(t, end);
            w *= of_gate.read(t + 1, end);
        }
        Sequence(to, call.element, call.length, sample, channel).write_two(t, t < end ? v : 0, t + 1 < end ? w : 0);
    };
    LONGCONV_UNROLL
    for (int a = 0; a < L::R; ++a)
        each_pair<L>(stripe, a, [&](int place, int half, int lane, int j) {
            const int64_t t = time(place);
            if (t < 0 || t >= call.length) return;
            const float v = c[a][half](lane, j) * scale, w = c[a][half](lane, j + 1) * scale;
            write(call.y, call.y_gate, t, v, w);
            write(call.z, call.z_gate, t, v, w);
        });
}

template <typename L>
struct Filter {
    static constexpr int kMostWarps = kMostWarpsOfBlock;
    using Call = LongconvCudaFilter;
    L layout;
    Call call;

    LONGCONV_BOTH int shared_bytes() const { return layout.filter_bytes(); }
    LONGCONV_BOTH int64_t rows() const { return call.batch * call.channels * call.tiles.tiles; }

    LONGCONV_DEVICE void operator()(Block& block) const {
        const Tables<L> tables(call.tables, layout);
        for (int64_t first = block.index() * layout.group; first < rows(); first += block.count() * layout.group) {
            load_sequences(block, layout, [&](int i, int t, float (&v)[8]) { read(first + i, t, v); });
            block.phase([&](int warp) {
                const Leaf<L> leaf(tables, layout);
                for (int job = warp; job < layout.group * layout.stripes; job += block.warps())
                    if (first + job / layout.stripes < rows()) multiply(job, first, tables, leaf);
            });
            block.phase([&](int warp) {
                for (int job = warp; job < layout.group * layout.stripes; job += block.warps())
                    if (first + job / layout.stripes < rows()) write(job, first, tables);
            });
        }
    }

  private:
    // Rows are tiles first, then samples, so that those of a channel, which share a spectrum, are done at about the
    // same time.
    LONGCONV_DEVICE int64_t of_all(int64_t row) const { return row / call.tiles.tiles; }
    LONGCONV_DEVICE int64_t sample(int64_t row) const { return of_all(row) % call.batch; }
    LONGCONV_DEVICE int64_t channel(int64_t row) const { return of_all(row) / call.batch; }
    LONGCONV_DEVICE int64_t filter_row(int64_t row) const { return call.per_sample ? of_all(row) : channel(row); }
    LONGCONV_DEVICE int64_t filter_rows() const { return call.channels * (call.per_sample ? call.batch : 1); }
    LONGCONV_DEVICE float norm(int64_t row) const {
        return power_below(Global<const float>(call.norms, filter_rows()).get(filter_row(row)));
    }

    LONGCONV_DEVICE void read(int64_t row, int t, float (&v)[8]) const {
        read_around(call.x, call.x_gate, call.element, call.length, sample(row), channel(row),
                    begin_of(call.tiles, row) + t, row < rows() ? end_of(call, sample(row)) : 0, call.tiles.around, v);
    }

    // T of a stripe, times the spectrum, and back as far as the stripe alone goes.
    LONGCONV_DEVICE void multiply(int job, int64_t first, const Tables<L>& tables, const Leaf<L>& leaf) const {
        const int i = job / layout.stripes, stripe = job % layout.stripes;
        const Global<const Complex> spectrum(
            static_cast<const Complex*>(call.spectrum) + filter_row(first + i) * layout.points(), layout.points());
        const float scale = 0.0625f / norm(first + i), sign = call.conjugate ? -scale : scale;
        Stripe<L> x;
        x.forward(layout, tables, stripe, layout.sequence(i));
        LONGCONV_UNROLL
        for (int c = 0; c < L::R; ++c) {
            Tile re[2], im[2];
            leaf.product(re, im, x.re[c], x.im[c], false);
            each_pair<L>(stripe, c, [&](int place, int half, int lane, int j) {
                const auto pair = spectrum.template vector<2>(place);
                LONGCONV_UNROLL
                for (int k = 0; k < 2; ++k) {
                    const Complex w = {scale * pair.v[k].re, sign * pair.v[k].im};
                    const Complex v = Complex{re[half](lane, j + k), im[half](lane, j + k)} * w;
                    re[half](lane, j + k) = v.re, im[half](lane, j + k) = v.im;
                }
            });
            leaf.product(x.re[c], x.im[c], re, im, true);
            forget();
        }
        x.backward(layout, tables, stripe);
        x.store(stripe, layout.result(i, false), layout.result(i, true));
    }

    LONGCONV_DEVICE void write(int job, int64_t first, const Tables<L>& tables) const {
        const int i = job / layout.stripes, stripe = job % layout.stripes;
        const int64_t row = first + i, begin = begin_of(call.tiles, row), place = 16LL * stripe * L::kColumns;
        if (place + 16 * L::kColumns <= call.tiles.before || place >= call.tiles.before + call.tiles.step ||
            begin + place >= call.length)
            return;
        const Factor scale =
            product_of_powers(scale_of(layout, i), norm(row), 4 / sqrtf(static_cast<float>(layout.points())));
        Tile c[L::R][2];
        finish(c, layout, tables, stripe, layout.result(i, false), layout.result(i, true));
        write_gated<L>(call, c, scale, stripe, sample(row), channel(row),
                       [&](int at) { return gives(call.tiles, at) ? begin + at : -1; });
    }
};

}  // namespace longconv

#endif
