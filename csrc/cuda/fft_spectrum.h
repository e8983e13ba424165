// Kernels that come before a convolution: the tables of the transform, and spectra.

#ifndef LONGCONV_CUDA_FFT_SPECTRUM_H
#define LONGCONV_CUDA_FFT_SPECTRUM_H

#include "monarch.h"
#include "sequence.h"

namespace longconv {

// Fills the tables, a warp an operand.
template <typename L>
struct FillTables {
    static constexpr int kMostWarps = kMostWarpsOfBlock;
    L layout;
    void* tables;

    LONGCONV_DEVICE void operator()(Block& block) const {
        using Number = typename L::Number;
        const Global<Number> numbers(static_cast<Number*>(tables), layout.numbers());
        const Global<Complex> roots(reinterpret_cast<Complex*>(static_cast<Number*>(tables) + layout.numbers()),
                                    layout.roots());
        const int s = layout.stripes, rows = 16 * s;
        block.phase([&](int warp) {
            const int64_t first = block.index() * block.warps() + warp, step = block.count() * block.warps();
            for (int64_t i = first; i < 2 * s * s; i += step) fill_operand(numbers, i);
            if (first == 0) fill_leaf(numbers);
            each_lane([&](int lane) {
                for (int64_t i = first * 32 + lane; i < rows * L::R; i += step * 32)
                    roots.set(i, quarter_root(i / L::R, 16 * (i % L::R), layout.points()));
                for (int64_t i = first * 32 + lane; i < rows * 16; i += step * 32)
                    roots.set(layout.row_root(0, 0) + i, quarter_root(i / 16, i % 16, layout.points()));
                for (int64_t i = first * 32 + lane; i < L::R * 16; i += step * 32)
                    roots.set(layout.column_root(0, 0) + i, root(i / 16 * (i % 16), L::kColumns));
            });
        });
    }

  private:
    // exp(-2 pi i m (f - 1/4) / n)
    static LONGCONV_DEVICE Complex quarter_root(int64_t f, int64_t m, int64_t n) {
        return root(m * (4 * f - 1), 4 * n);
    }

    LONGCONV_DEVICE void fill_operand(const Global<typename L::Number>& numbers, int64_t i) const {
        const int s = layout.stripes, k = static_cast<int>(i) % s, stripe = static_cast<int>(i) / s % s;
        const bool last = i >= s * s;
        each_lane([&](int lane) {
            for (int j = 0; j < kOperandA; ++j) {
                const Place place = L::Math::a_place(lane, j);
                const int row = 16 * stripe + place.row, column = 16 * k + place.column;
                const Complex w = quarter_root(last ? column : row, last ? row : column, 16 * s);
                const int64_t to = layout.operand(last, stripe, k, false) + kOperandA * lane + j;
                numbers.set(to, L::Math::number(w.re));
                numbers.set(to + 256, L::Math::number(w.im));
            }
        });
    }
    LONGCONV_DEVICE void fill_leaf(const Global<typename L::Number>& numbers) const {
        each_lane([&](int lane) {
            for (int half = 0; half < 2; ++half)
                for (int j = 0; j < kOperandB; ++j) {
                    const Place place = L::Math::b_place(lane, j);
                    const Complex w = root(place.row * (8 * half + place.column), 16);
                    const int64_t to = layout.leaf(half, false) + kOperandB * lane + j;
                    numbers.set(to, L::Math::number(w.re));
                    numbers.set(to + 128, L::Math::number(w.im));
                }
        });
    }
};

// v[j] = the number at the lag at + j of a sequence that reaches to both sides, see LongconvCudaSpectrum; at is a
// multiple of 8.
template <typename Call>
LONGCONV_DEVICE void read_lags(const Call& call, int64_t sample, int64_t channel, int64_t at, float (&v)[8]) {
    const int64_t period = call.lengths ? Global<const int64_t>(call.lengths, call.batch).get(sample) : call.period;
    const int64_t end = call.taps < period ? call.taps : period;
    if (at >= 0) return read_gated(call.k, call.k_gate, call.element, call.taps, sample, channel, at, end, v);
    const Sequence from(call.circular ? call.k : call.k_reverse, call.circular ? call.element : call.reverse_element,
                        call.circular ? call.taps : call.reverse_taps, sample, channel);
    LONGCONV_UNROLL
    for (int j = 0; j < 8; ++j) {
        const int64_t tap = call.circular ? period + at + j : -1 - at - j;
        v[j] = tap >= (call.circular ? 1 : 0) ? from.read(tap, call.circular ? end : call.reverse_taps) : 0;
    }
}

template <typename L>
struct Spectrum {
    static constexpr int kMostWarps = kMostWarpsOfBlock;
    using Call = LongconvCudaSpectrum;
    L layout;
    Call call;

    LONGCONV_BOTH int shared_bytes() const { return layout.load_bytes() + layout.group * layout.stripes * 4; }
    LONGCONV_BOTH int64_t rows() const { return call.batch * call.channels * call.blocks; }

    LONGCONV_DEVICE void operator()(Block& block) const {
        for (int64_t first = block.index() * layout.group; first < rows(); first += block.count() * layout.group) {
            pass(block, first, false);
            if (!call.alone) pass(block, first, true);
            block.phase([&](int warp) {
                each_lane([&](int lane) {
                    const int i = warp * 32 + lane;
                    if (i >= layout.group || first + i >= rows()) return;
                    float most = 0;
                    for (int q = 0; q < layout.stripes; ++q) most = larger(most, maxima().get(i * layout.stripes + q));
                    Global<float>(call.norms, rows()).set(first + i, most);
                });
            });
        }
    }

  private:
    LONGCONV_DEVICE Shared<float> maxima() const { return {layout.load_bytes(), layout.group * layout.stripes}; }
    LONGCONV_DEVICE int64_t channel(int64_t row) const { return row / call.blocks / call.batch; }
    LONGCONV_DEVICE int64_t block_of(int64_t row) const { return call.first + row % call.blocks; }

    LONGCONV_DEVICE void pass(Block& block, int64_t first, bool before) const {
        const Tables<L> tables(call.tables, layout);
        load_sequences(block, layout, [&](int i, int t, float (&v)[8]) {
            const int64_t row = first + i;
            if (row < rows())
                return read_lags(call, row / call.blocks % call.batch, channel(row),
                                 (block_of(row) - before) * layout.points() + t, v);
            LONGCONV_UNROLL
            for (int j = 0; j < 8; ++j) v[j] = 0;
        });
        block.phase([&](int warp) {
            const Leaf<L> leaf(tables, layout);
            for (int job = warp; job < layout.group * layout.stripes; job += block.warps())
                if (first + job / layout.stripes < rows())
                    transform(job, first + job / layout.stripes, before, tables, leaf);
        });
    }

    LONGCONV_DEVICE void transform(int job, int64_t row, bool before, const Tables<L>& tables,
                                   const Leaf<L>& leaf) const {
        const int stripe = job % layout.stripes;
        const float scale = scale_of(layout, job / layout.stripes),
                    root = sqrtf(static_cast<float>(layout.points())) / 4;
        const bool with_skip = call.skip && !before && block_of(row) == 0;
        const float skip = with_skip ? Global<const float>(call.skip, call.channels).get(channel(row)) : 0;
        const Global<Complex> out(static_cast<Complex*>(call.spectrum) + row * layout.points(), layout.points());
        Stripe<L> x;
        x.forward(layout, tables, stripe, layout.sequence(job / layout.stripes));
        Registers<float, 1> most;
        clear(most);
        LONGCONV_UNROLL
        for (int c = 0; c < L::R; ++c) {
            Tile re[2], im[2];
            leaf.product(re, im, x.re[c], x.im[c], false);
            each_pair<L>(stripe, c, [&](int place, int half, int lane, int i) {
                Vector<Complex, 2> pair;
                if (before) pair = out.template vector<2>(place);
                LONGCONV_UNROLL
                for (int j = 0; j < 2; ++j) {
                    Complex v = {re[half](lane, i + j) * root * scale + skip, im[half](lane, i + j) * root * scale};
                    if (before) v = pair.v[j] + Complex{v.im, -v.re};
                    pair.v[j] = v;
                    most(lane, 0) = larger(most(lane, 0), v);
                }
                out.template set_vector<2>(place, pair);
            });
            forget();
        }
        const float all_lanes = greatest(most);
        each_lane([&](int lane) {
            if (lane == 0) maxima().set(job, all_lanes);
        });
    }
};

}  // namespace longconv

#endif
