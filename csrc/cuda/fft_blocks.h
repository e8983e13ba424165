// Kernels of sequences that are longer than a block holds: they are cut into blocks, whose spectra lie in memory, and
// every pair of a block of the sequence and one of the filter is a product there. In the ring X^n - i the tail of such
// a product, which the next block must add, is its imaginary part: it comes with the spectrum of the filter for the
// price of a factor -i, see LongconvCudaSpectrum, and nothing is padded. A filter of few blocks takes few products.

#ifndef LONGCONV_CUDA_FFT_BLOCKS_H
#define LONGCONV_CUDA_FFT_BLOCKS_H

#include "fft_filter.h"

namespace longconv {

// From factor * sum(place, of it and the next), a spectrum, back as far as a stripe alone goes.
template <typename L, typename Sum>
LONGCONV_DEVICE void invert(const L& layout, const Tables<L>& tables, const Leaf<L>& leaf, int i, int stripe,
                            float factor, const Sum& sum) {
    Stripe<L> x;
    LONGCONV_UNROLL
    for (int c = 0; c < L::R; ++c) {
        Tile re[2], im[2];
        each_pair<L>(stripe, c, [&](int place, int half, int lane, int j) {
            const Vector<Complex, 2> pair = sum(place);
            LONGCONV_UNROLL
            for (int k = 0; k < 2; ++k) {
                re[half](lane, j + k) = factor * pair.v[k].re;
                im[half](lane, j + k) = factor * pair.v[k].im;
            }
        });
        leaf.product(x.re[c], x.im[c], re, im, true);
        forget();
    }
    x.backward(layout, tables, stripe);
    x.store(stripe, layout.result_alone(i, false), layout.result_alone(i, true));
}

// Numbers of at most this size go through the inverse transform in half precision: its sums are 181 times as large.
constexpr float kLarge = 128;

template <typename L>
struct Blocks {
    static constexpr int kMostWarps = kMostWarpsOfBlock;
    using Call = LongconvCudaBlocks;
    L layout;
    Call call;

    LONGCONV_BOTH int shared_bytes() const { return layout.result_bytes() + layout.group * 4; }
    LONGCONV_BOTH int64_t rows() const { return call.batch * call.channels * call.blocks; }

    LONGCONV_DEVICE void operator()(Block& block) const {
        const Tables<L> tables(call.tables, layout);
        for (int64_t first = block.index() * layout.group; first < rows(); first += block.count() * layout.group) {
            block.phase([&](int warp) {
                for (int i = warp; i < layout.group; i += block.warps())
                    if (first + i < rows()) set_bound(i, first + i);
            });
            block.phase([&](int warp) {
                const Leaf<L> leaf(tables, layout);
                for (int job = warp; job < layout.group * layout.stripes; job += block.warps()) {
                    const int i = job / layout.stripes;
                    if (first + i >= rows()) continue;
                    const int64_t row = first + i;
                    invert(layout, tables, leaf, i, job % layout.stripes, kLarge / bounds().get(i),
                           [&](int place) { return sum(row, place); });
                }
            });
            block.phase([&](int warp) {
                for (int job = warp; job < layout.group * layout.stripes; job += block.warps()) {
                    const int i = job / layout.stripes, stripe = job % layout.stripes;
                    if (first + i >= rows()) continue;
                    const int64_t row = first + i, of_all = row / call.blocks;
                    Tile c[L::R][2];
                    finish(c, layout, tables, stripe, layout.result_alone(i, false), layout.result_alone(i, true));
                    write_gated<L>(call, c, bounds().get(i) / kLarge / layout.points(), stripe, of_all % call.batch,
                                   of_all / call.batch,
                                   [&](int place) { return row % call.blocks * layout.points() + place; });
                }
            });
        }
    }

  private:
    // f(place of the block's spectrum, that of the filter) for all pairs that a row takes part in.
    template <typename F>
    LONGCONV_DEVICE void each_product(int64_t row, const F& f) const {
        const int64_t of_all = row / call.blocks, i = row % call.blocks;
        const int64_t filter = call.per_sample ? of_all : of_all / call.batch;
        for (int64_t m = 0; m < call.filter_blocks; ++m) {
            const int64_t j = call.conjugate ? i + (call.first + m) : i - (call.first + m);
            if (j >= 0 && j < call.blocks) f(of_all * call.blocks + j, filter * call.filter_blocks + m);
        }
    }
    LONGCONV_DEVICE int64_t filters() const {
        return call.channels * (call.per_sample ? call.batch : 1) * call.filter_blocks;
    }

    // Of each row of the group a power of two that no part of the sum is above.
    LONGCONV_DEVICE Shared<float> bounds() const { return {layout.result_bytes(), layout.group}; }
    LONGCONV_DEVICE void set_bound(int i, int64_t row) const {
        float all = 0;
        each_product(row, [&](int64_t x, int64_t filter) {
            all += Global<const float>(call.norms, rows()).get(x) *
                   Global<const float>(call.filter_norms, filters()).get(filter);
        });
        each_lane([&](int lane) {
            if (lane == 0) bounds().set(i, power_below(4 * all));
        });
    }

    LONGCONV_DEVICE Vector<Complex, 2> sum(int64_t row, int place) const {
        const int n = layout.points();
        const Global<const Complex> spectra(static_cast<const Complex*>(call.spectra), rows() * n),
            of_filters(static_cast<const Complex*>(call.filters), filters() * n);
        Vector<Complex, 2> all = {};
        each_product(row, [&](int64_t x, int64_t filter) {
            const auto a = spectra.template vector<2>(x * n + place),
                       b = of_filters.template vector<2>(filter * n + place);
            LONGCONV_UNROLL
            for (int k = 0; k < 2; ++k)
                all.v[k] = plus_product(all.v[k], a.v[k], call.conjugate ? conjugate(b.v[k]) : b.v[k]);
        });
        return all;
    }
};

// The products of two sequences' spectra, summed; a lane has two numbers.
struct Products {
    static constexpr int kMostWarps = kMostWarpsOfBlock;
    using Call = LongconvCudaProducts;
    Call call;

    LONGCONV_DEVICE void operator()(Block& block) const {
        const int64_t pieces = call.channels * call.parts * call.filter_blocks * (call.points / 64);
        block.phase([&](int warp) {
            const int64_t step = block.count() * block.warps();
            for (int64_t piece = block.index() * block.warps() + warp; piece < pieces; piece += step)
                each_lane(
                    [&](int lane) { add_up(piece / (call.points / 64), piece % (call.points / 64) * 64 + 2 * lane); });
        });
    }

  private:
    LONGCONV_DEVICE void add_up(int64_t row, int64_t place) const {
        const int64_t m = call.first + row % call.filter_blocks, part = row / call.filter_blocks % call.parts,
                      channel = row / call.filter_blocks / call.parts, n = call.points,
                      count = call.channels * call.batch * call.blocks * n;
        const Global<const Complex> of_x(static_cast<const Complex*>(call.x), count),
            of_g(static_cast<const Complex*>(call.g), count);
        Vector<Complex, 2> all = {};
        for (int64_t b = part * call.batch / call.parts; b < (part + 1) * call.batch / call.parts; ++b)
            for (int64_t i = m > 0 ? m : 0; i < call.blocks && i - m < call.blocks; ++i) {
                const int64_t sample = (channel * call.batch + b) * call.blocks;
                const auto x = of_x.template vector<2>((sample + i - m) * n + place),
                           g = of_g.template vector<2>((sample + i) * n + place);
                LONGCONV_UNROLL
                for (int k = 0; k < 2; ++k) all.v[k] = plus_product(all.v[k], conjugate(x.v[k]), g.v[k]);
            }
        const int64_t rows = call.channels * call.parts * call.filter_blocks;
        Global<Complex>(static_cast<Complex*>(call.products), rows * n).template set_vector<2>(row * n + place, all);
    }
};

// The gradients of taps. Block m of a filter is in the spectra m and (times -i) m + 1.
template <typename L>
struct Taps {
    static constexpr int kMostWarps = kMostWarpsOfBlock;
    using Call = LongconvCudaTaps;
    L layout;
    Call call;

    LONGCONV_BOTH int shared_bytes() const { return layout.result_bytes() + layout.group * layout.stripes * 4; }
    LONGCONV_BOTH int64_t rows() const { return call.batch * call.channels * (call.filter_blocks + 1); }

    LONGCONV_DEVICE void operator()(Block& block) const {
        const Tables<L> tables(call.tables, layout);
        for (int64_t first = block.index() * layout.group; first < rows(); first += block.count() * layout.group) {
            const auto each_job = [&](const auto& f) {
                block.phase([&](int warp) {
                    for (int job = warp; job < layout.group * layout.stripes; job += block.warps())
                        if (first + job / layout.stripes < rows() && is_wanted(first + job / layout.stripes)) f(job);
                });
            };
            if constexpr (L::Math::kNarrow) each_job([&](int job) { measure(job, first); });
            each_job([&](int job) {
                const int64_t row = first + job / layout.stripes;
                const Leaf<L> leaf(tables, layout);
                invert(layout, tables, leaf, job / layout.stripes, job % layout.stripes,
                       1 / scale(job / layout.stripes), [&](int place) { return sum(row, place); });
            });
            each_job([&](int job) { write(job, first, tables); });
        }
    }

  private:
    LONGCONV_DEVICE int64_t block_of(int64_t row) const { return call.first - 1 + row % (call.filter_blocks + 1); }
    LONGCONV_DEVICE bool is_wanted(int64_t row) const {
        const int64_t begin = block_of(row) * layout.points();
        return begin >= 0 ? call.dk.data && begin < call.taps
                          : call.dback.data && -begin - layout.points() < call.back_taps;
    }

    // The products at a place and the next, over the parts, of spectrum m plus i times those of spectrum m + 1.
    LONGCONV_DEVICE Vector<Complex, 2> sum(int64_t row, int place) const {
        const int64_t of_all = row / (call.filter_blocks + 1), m = row % (call.filter_blocks + 1) - 1;
        const int64_t step = call.filter_blocks * layout.points(), count = call.parts * step;
        const Global<const Complex> products(static_cast<const Complex*>(call.products) + of_all * count, count);
        Vector<Complex, 2> all = {};
        for (int64_t part = 0; part < call.parts; ++part)
            for (int next = m < 0; next < (m + 1 < call.filter_blocks ? 2 : 1); ++next) {
                const auto pair = products.template vector<2>(part * step + (m + next) * layout.points() + place);
                LONGCONV_UNROLL
                for (int k = 0; k < 2; ++k)
                    all.v[k] = all.v[k] + (next ? Complex{-pair.v[k].im, pair.v[k].re} : pair.v[k]);
            }
        return all;
    }

    // The greatest magnitude of the sums in a stripe.
    LONGCONV_DEVICE void measure(int job, int64_t first) const {
        Registers<float, 1> most;
        clear(most);
        for (int c = 0; c < L::R; ++c)
            each_pair<L>(job % layout.stripes, c, [&](int place, int, int lane, int) {
                const auto pair = sum(first + job / layout.stripes, place);
                LONGCONV_UNROLL
                for (int k = 0; k < 2; ++k) most(lane, 0) = larger(most(lane, 0), pair.v[k]);
            });
        const float all_lanes = greatest(most);
        each_lane([&](int lane) {
            if (lane == 0) maxima().set(job, all_lanes);
        });
    }
    LONGCONV_DEVICE Shared<float> maxima() const { return {layout.result_bytes(), layout.group * layout.stripes}; }
    // What the sums of row i are divided by, a power of two.
    LONGCONV_DEVICE float scale(int i) const {
        if constexpr (!L::Math::kNarrow) return 1;
        float most = 0;
        for (int stripe = 0; stripe < layout.stripes; ++stripe)
            most = larger(most, maxima().get(i * layout.stripes + stripe));
        return power_below(most) / (kLarge / 2);
    }

    LONGCONV_DEVICE void write(int job, int64_t first, const Tables<L>& tables) const {
        const int i = job / layout.stripes, stripe = job % layout.stripes;
        const int64_t row = first + i, of_all = row / (call.filter_blocks + 1), sample = of_all % call.batch,
                      channel = of_all / call.batch, begin = block_of(row) * layout.points();
        const bool back = begin < 0;
        const LongconvRows& to = back ? call.dback : call.dk;
        const Global<float> out(static_cast<float*>(to.data) + sample * to.batch + channel * to.channel,
                                back ? call.back_taps : call.taps);
        const float factor = scale(i) * call.scale;
        Tile z[L::R][2];
        finish(z, layout, tables, stripe, layout.result_alone(i, false), layout.result_alone(i, true));
        LONGCONV_UNROLL
        for (int a = 0; a < L::R; ++a)
            each_pair<L>(stripe, a, [&](int place, int half, int lane, int j) {
                LONGCONV_UNROLL
                for (int k = 0; k < 2; ++k) {
                    const int64_t lag = begin + place + k, tap = back ? -1 - lag : lag;
                    if (tap < (back ? call.back_taps : call.taps)) out.set(tap, z[a][half](lane, j + k) * factor);
                }
            });
    }
};

}  // namespace longconv

#endif
