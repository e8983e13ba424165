// The convolution of each row of an outer transform with that of its filter, complex numbers in the ring X^n - i: what
// a block does with a sequence, from memory and back to its place there.

#ifndef LONGCONV_CUDA_FFT_INNER_H
#define LONGCONV_CUDA_FFT_INNER_H

#include "fft_outer.h"

namespace longconv {

// The bytes of shared memory of fft_rows: the planes of rows before and after, the peaks of their tiles, and those of
// their spectra.
template <typename L>
LONGCONV_BOTH int inner_bytes(const L& layout) {
    return 2 * layout.result_bytes() + layout.peak_bytes(16 + 1);
}

template <typename L>
struct InnerRows {
    static constexpr int kMostWarps = kMostWarpsOfBlock;
    using Call = LongconvCudaInner;
    L layout;
    Call call;

    LONGCONV_BOTH int shared_bytes() const { return inner_bytes(layout); }
    LONGCONV_BOTH OuterShape shape() const { return {call.rows, call.columns}; }
    LONGCONV_BOTH int64_t rows() const { return call.batch * call.channels * call.rows; }

    LONGCONV_DEVICE void operator()(Block& block) const {
        for (int64_t first = block.index() * layout.group; first < rows(); first += block.count() * layout.group) {
            const auto each_job = [&](const auto& f) {
                block.phase([&](int warp) {
                    for (int job = warp; job < layout.group * layout.stripes; job += block.warps())
                        if (first + job / layout.stripes < rows()) f(job, first + job / layout.stripes);
                });
            };
            if constexpr (L::Math::kNarrow)
                load_peaks(block, layout, peaks(), all(),
                           [&](int i, int j) { return first + i < rows() ? peak(first + i, j) : 0; });
            if (call.forward)
                load_planes(
                    block, layout,
                    [&](int i, int t, float by, float (&re)[8], float (&im)[8]) {
                        if (first + i < rows()) read(i, first + i, t, by, re, im);
                    },
                    [&](int i) { return 1 / scale(i); });
            each_job([&](int job, int64_t unit) { transform(job, unit); });
            if (call.inverse) each_job([&](int job, int64_t unit) { write(job, unit); });
        }
    }

  private:
    // Units are samples first, so that those of a row, which share a spectrum, are done at about the same time.
    LONGCONV_DEVICE int64_t row(int64_t unit) const { return unit / call.batch % call.rows; }
    LONGCONV_DEVICE int64_t sequence(int64_t unit) const {
        return unit / call.batch / call.rows * call.batch + unit % call.batch;
    }
    LONGCONV_DEVICE int64_t filter(int64_t unit) const {
        return call.per_sample ? sequence(unit) : unit / call.batch / call.rows;
    }
    LONGCONV_DEVICE RowOfWork numbers(int64_t unit) const {
        return {call.work, call.half, shape(), sequence(unit), row(unit)};
    }
    LONGCONV_DEVICE int64_t all_peaks() const { return call.batch * call.channels * shape().peaks(); }

    // The peaks of the tiles of a row and, after them, of the parts of its spectrum.
    LONGCONV_DEVICE int tiles() const { return layout.rows(); }
    LONGCONV_DEVICE int all() const { return tiles() + layout.stripes; }
    LONGCONV_DEVICE Shared<float> peaks() const { return {2 * layout.result_bytes(), layout.group * all()}; }
    LONGCONV_DEVICE float peak(int64_t unit, int j) const {
        if (j < tiles())
            return Global<const float>(call.peaks, all_peaks())
                .get(shape().peak_of_tile(sequence(unit), row(unit) / 16, j));
        if (!call.spectrum) return 0;
        return Global<const float>(call.spectrum_peaks, all_peaks())
            .get(shape().peak_of_row(filter(unit), row(unit), j - tiles()));
    }
    LONGCONV_DEVICE float scale(int i) const { return power_of(i * all(), tiles()); }
    LONGCONV_DEVICE float norm(int i) const { return power_of(i * all() + tiles(), layout.stripes); }
    LONGCONV_DEVICE float power_of(int first, int count) const {
        if constexpr (!L::Math::kNarrow) return 1;
        return power_below(greatest_of(count, [&](int j) { return peaks().get(first + j); }));
    }
    LONGCONV_DEVICE void set_peak(int64_t unit, int stripe, float peak) const {
        each_lane([&](int lane) {
            if (lane == 0)
                Global<float>(call.new_peaks, all_peaks())
                    .set(shape().peak_of_row(sequence(unit), row(unit), stripe), peak);
        });
    }

    LONGCONV_DEVICE void read(int i, int64_t unit, int t, float by, float (&re)[8], float (&im)[8]) const {
        if (call.half) by *= power_below(peaks().get(i * all() + t / OuterShape::kTile));
        LONGCONV_UNROLL
        for (int j = 0; j < 8; j += 2) {
            const auto pair = numbers(unit).get(t + j);
            LONGCONV_UNROLL
            for (int k = 0; k < 2; ++k) re[j + k] = by * pair.v[k].re, im[j + k] = by * pair.v[k].im;
        }
    }

    // T of a stripe, which goes to its place or, times the spectrum, back as far as the stripe alone goes.
    LONGCONV_DEVICE void transform(int job, int64_t unit) const {
        const int i = job / layout.stripes, stripe = job % layout.stripes;
        const Tables<L> tables(call.tables, layout);
        const Leaf<L> leaf(tables, layout);
        const float root = sqrtf(static_cast<float>(layout.points())) / 4,
                    by = call.inverse ? 0.0625f / norm(i) : scale(i);
        const Global<const Complex> spectrum(
            static_cast<const Complex*>(call.spectrum) + shape().place(filter(unit), row(unit)), call.columns);
        Stripe<L> x;
        if (call.forward) {
            x.template begin<true>(layout, tables, stripe, layout.stripes, layout.result_alone(i, false),
                                   layout.result_alone(i, true));
            x.go_on(layout, tables, stripe);
        }
        Registers<float, 1> most;
        clear(most);
        LONGCONV_UNROLL
        for (int c = 0; c < L::R; ++c) {
            Tile re[2], im[2];
            if (call.forward) leaf.product(re, im, x.re[c], x.im[c], false);
            each_pair<L>(stripe, c, [&](int place, int half, int lane, int j) {
                Vector<Complex, 2> pair = {};
                if (!call.forward) pair = numbers(unit).get(place);
                if (call.spectrum) pair = spectrum.template vector<2>(place);
                LONGCONV_UNROLL
                for (int k = 0; k < 2; ++k) {
                    const Complex w = {by * pair.v[k].re, call.conjugate ? -by * pair.v[k].im : by * pair.v[k].im};
                    Complex v = w;
                    if (call.forward) v = {re[half](lane, j + k), im[half](lane, j + k)};
                    if (call.spectrum) v = v * w;
                    if (!call.inverse) v = {root * v.re * by, root * v.im * by};
                    re[half](lane, j + k) = v.re, im[half](lane, j + k) = v.im;
                    pair.v[k] = v;
                    most(lane, 0) = larger(most(lane, 0), v);
                }
                if (!call.inverse) numbers(unit).set(place, pair);
            });
            if (call.inverse) leaf.product(x.re[c], x.im[c], re, im, true);
            forget();
        }
        if (!call.inverse) {
            if constexpr (L::Math::kNarrow) set_peak(unit, stripe, greatest(most));
            return;
        }
        x.backward(layout, tables, stripe);
        x.store(stripe, layout.result_after(i, false), layout.result_after(i, true));
    }

    LONGCONV_DEVICE void write(int job, int64_t unit) const {
        const int i = job / layout.stripes, stripe = job % layout.stripes;
        const float n = static_cast<float>(layout.points());
        Factor by = product_of_powers(norm(i), scale(i), call.forward ? 4 / sqrtf(n) : 16 / n);
        Stripe<L> z;
        finish<true>(z.re, z.im, layout, Tables<L>(call.tables, layout), stripe, layout.result_after(i, false),
                     layout.result_after(i, true));
        if constexpr (L::Math::kNarrow) {
            const float peak = greatest_part(z.re, z.im) * by;
            set_peak(unit, stripe, peak);
            if (call.half) by.second /= power_below(peak);
        }
        LONGCONV_UNROLL
        for (int a = 0; a < L::R; ++a)
            each_pair<L>(stripe, a, [&](int place, int half, int lane, int j) {
                Vector<Complex, 2> pair;
                LONGCONV_UNROLL
                for (int k = 0; k < 2; ++k)
                    pair.v[k] = {z.re[a][half](lane, j + k) * by, z.im[a][half](lane, j + k) * by};
                numbers(unit).set(place, pair);
            });
    }
};

}  // namespace longconv

#endif
