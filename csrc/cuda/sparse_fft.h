// Kernels of the frequency-sparse convolution; a block works on one sequence at a time, in one pass over memory.

#ifndef LONGCONV_CUDA_SPARSE_FFT_H
#define LONGCONV_CUDA_SPARSE_FFT_H

#include "sparse_transform.h"

namespace longconv {

// What the kernels share: rows of a call are channels, then samples or parts.
template <typename L>
struct SparseCall {
    static constexpr int kMostWarps = kMostWarpsOfSparse;
    using Call = LongconvCudaSparse;
    L layout;
    Call call;

  protected:
    LONGCONV_DEVICE Global<Complex> numbers(void* data, int64_t row) const {
        return {static_cast<Complex*>(data) + row * layout.spectrum(), layout.spectrum()};
    }
    LONGCONV_DEVICE int64_t place(int stripe, int chunk) const { return 256LL * (stripe * layout.chunks() + chunk); }
    LONGCONV_DEVICE Sequence sequence(const LongconvRows& rows, int64_t channel, int64_t sample) const {
        return {rows, call.element, call.length, sample, channel};
    }
    // The factor that transforms of rows lack.
    LONGCONV_DEVICE float root_n1() const { return sqrtf(static_cast<float>(layout.n1)); }
    // f(stripe, chunk) for all 16 x 16 numbers of a spectrum.
    template <typename F>
    LONGCONV_DEVICE void each_sixteen(const Block& block, int warp, const F& f) const {
        for (int job = warp; job < layout.stripes() * layout.chunks(); job += block.warps())
            f(job / layout.chunks(), job % layout.chunks());
    }
};

// The tables, a warp an operand.
template <typename L>
struct SparseTables : SparseCall<L> {
    using SparseCall<L>::layout;
    using SparseCall<L>::call;

    LONGCONV_DEVICE void operator()(Block& block) const {
        using Number = typename L::Number;
        Number* data = static_cast<Number*>(const_cast<void*>(call.tables));
        const Global<Number> numbers(data, 512 * layout.operands());
        const Global<Complex> roots(reinterpret_cast<Complex*>(data + 512 * layout.operands()), layout.roots());
        block.phase([&](int warp) {
            const int64_t first = block.index() * block.warps() + warp, step = block.count() * block.warps();
            for (int64_t i = first; i < layout.operands(); i += step) fill(numbers, static_cast<int>(i));
            each_lane([&](int lane) {
                for (int64_t i = first * 32 + lane; i < layout.roots(); i += step * 32) {
                    const int64_t of_chunks = 16LL * layout.stripes() * layout.wide(), j = i - of_chunks;
                    const int64_t row = j < 0 ? i / layout.wide() : j / 16,
                                  m2 = j < 0 ? i % layout.wide() * 16 : j % 16;
                    roots.set(i, root(m2 * (4 * kept(row) + 1), 4LL * layout.n1 * layout.n2));
                }
            });
        });
    }

  private:
    LONGCONV_DEVICE int64_t kept(int64_t i) const {
        return Global<const int32_t>(call.kept, layout.kept_rows + layout.kept_columns)
            .get(i < layout.kept_rows ? i : 0);
    }
    // exp(-2 pi i m1 (f1 + 1/4) / N1), or exp(-2 pi i m2 f2 / N2); 0 where there is no such row or column.
    LONGCONV_DEVICE Complex entry(bool of_rows, int64_t f, int64_t m) const {
        if (f >= (of_rows ? layout.kept_rows : layout.kept_columns) || m >= (of_rows ? layout.n1 : layout.n2))
            return {0, 0};
        if (of_rows) return root(m * (4 * kept(f) + 1), 4LL * layout.n1);
        const Global<const int32_t> columns(call.kept + layout.kept_rows, layout.kept_columns);
        return root(m * columns.get(f), layout.n2);
    }

    LONGCONV_DEVICE void fill(const Global<typename L::Number>& numbers, int i) const {
        const int of_rows = layout.stripes() * layout.tall(), of_columns = layout.wide() * layout.chunks();
        const bool rows = i < 2 * of_rows;
        const int j = rows ? i : i - 2 * of_rows, half_of_all = rows ? of_rows : of_columns;
        const bool back = j >= half_of_all;
        // Operands lie as products take them: those with one 16 of results side by side.
        const int inner = rows ? (back ? layout.stripes() : layout.tall()) : (back ? layout.chunks() : layout.wide());
        const int of_result = j % half_of_all / inner * 16, of_sum = j % half_of_all % inner * 16;
        each_lane([&](int lane) {
            for (int k = 0; k < 256 / 32; ++k) {
                const int half = k / kOperandB, number = k % kOperandB;
                const Place place = rows ? L::Math::a_place(lane, k) : L::Math::b_place(lane, number);
                const int result = of_result + (rows ? place.row : 8 * half + place.column);
                const int summed = of_sum + (rows ? place.column : place.row);
                Complex w = entry(rows, back ? summed : result, back ? result : summed);
                if (!rows && back) w = conjugate(w);
                const int64_t to = 512LL * i + (rows ? kOperandA * lane + k : 256 * half + kOperandB * lane + number);
                numbers.set(to, L::Math::number(w.re));
                numbers.set(to + (rows ? 256 : 128), L::Math::number(w.im));
            }
        });
    }
};

template <typename L>
struct SparseSpectrum : SparseCall<L> {
    using SparseCall<L>::layout;
    using SparseCall<L>::call;

    LONGCONV_BOTH int64_t rows() const { return call.channels * call.batch; }

    LONGCONV_DEVICE void operator()(Block& block) const {
        const SparseTransform<L> transform(layout, call.tables);
        for (int64_t row = block.index(); row < rows(); row += block.count()) {
            const Sequence x = this->sequence(call.x, row / call.batch, row % call.batch);
            const float scale = transform.forward(block, x, call.taps);
            block.phase([&](int warp) {
                Registers<float, 1> most;
                clear(most);
                this->each_sixteen(block, warp, [&](int stripe, int chunk) {
                    Tile re[2], im[2];
                    transform.spectrum(re, im, stripe, chunk);
                    keep(row, stripe, chunk, re, im, scale, most);
                });
                transform.set_maximum(1, warp, most);
            });
            block.phase([&](int warp) {
                const float most = transform.maximum(block, 1);
                each_lane([&](int lane) {
                    if (warp == 0 && lane == 0) Global<float>(call.norms, rows()).set(row, most);
                });
            });
        }
    }

  private:
    LONGCONV_DEVICE void keep(int64_t row, int stripe, int chunk, const Tile (&re)[2], const Tile (&im)[2], float scale,
                              Registers<float, 1>& most) const {
        const Global<Complex> out = this->numbers(call.spectrum, row);
        const Global<const uint8_t> alive(call.alive, layout.spectrum());
        const int64_t first = this->place(stripe, chunk);
        const float root = this->root_n1();
        each_pair_of_sixteen([&](int place, int half, int lane, int i) {
            Vector<Complex, 2> pair;
            LONGCONV_UNROLL
            for (int k = 0; k < 2; ++k) {
                const bool is_kept = alive.get(first + place + k) != 0;
                pair.v[k] = {is_kept ? re[half](lane, i + k) * root * scale : 0,
                             is_kept ? im[half](lane, i + k) * root * scale : 0};
                most(lane, 0) = larger(most(lane, 0), pair.v[k]);
            }
            out.template set_vector<2>(first + place, pair);
        });
    }
};

template <typename L>
struct SparseFilter : SparseCall<L> {
    using SparseCall<L>::layout;
    using SparseCall<L>::call;

    LONGCONV_BOTH int64_t rows() const { return call.channels * call.batch; }

    LONGCONV_DEVICE void operator()(Block& block) const {
        const SparseTransform<L> transform(layout, call.tables);
        // Those of a channel, which share a spectrum, are done at about the same time.
        for (int64_t row = block.index(); row < rows(); row += block.count()) {
            const int64_t sample = row % call.batch, channel = row / call.batch;
            const int64_t filter = call.per_sample ? row : channel, filters = call.per_sample ? rows() : call.channels;
            const float norm = power_below(Global<const float>(call.norms, filters).get(filter));
            const float scale = transform.forward(block, this->sequence(call.x, channel, sample), call.length);
            transform.backward(block, [&](int stripe, int chunk, Tile(&re)[2], Tile(&im)[2]) {
                transform.spectrum(re, im, stripe, chunk);
                multiply(filter, stripe, chunk, re, im, 1 / sqrtf(static_cast<float>(layout.n2)) / norm);
            });
            transform.finish(block, this->sequence(call.y, channel, sample), call.length,
                             product_of_powers(scale, norm, 1 / this->root_n1()));
        }
    }

  private:
    LONGCONV_DEVICE void multiply(int64_t filter, int stripe, int chunk, Tile (&re)[2], Tile (&im)[2],
                                  float scale) const {
        const Global<Complex> spectrum = this->numbers(call.spectrum, filter);
        const int64_t first = this->place(stripe, chunk);
        const float sign = call.conjugate ? -scale : scale;
        each_pair_of_sixteen([&](int place, int half, int lane, int i) {
            const auto pair = spectrum.template vector<2>(first + place);
            LONGCONV_UNROLL
            for (int k = 0; k < 2; ++k) {
                const Complex w = {scale * pair.v[k].re, sign * pair.v[k].im};
                const Complex v = Complex{re[half](lane, i + k), im[half](lane, i + k)} * w;
                re[half](lane, i + k) = v.re, im[half](lane, i + k) = v.im;
            }
        });
    }
};

template <typename L>
struct SparseCorrelation : SparseCall<L> {
    using SparseCall<L>::layout;
    using SparseCall<L>::call;

    LONGCONV_BOTH int64_t rows() const { return call.channels * call.parts; }

    LONGCONV_DEVICE void operator()(Block& block) const {
        const SparseTransform<L> transform(layout, call.tables);
        for (int64_t row = block.index(); row < rows(); row += block.count()) {
            const int64_t channel = row / call.parts, part = row % call.parts, first = part * call.batch / call.parts;
            for (int64_t b = first; b < (part + 1) * call.batch / call.parts; ++b)
                for (int of_y = 0; of_y < 2; ++of_y) {
                    const Sequence from = this->sequence(of_y ? call.y : call.x, channel, b);
                    const float scale = transform.forward(block, from, call.length);
                    block.phase([&](int warp) {
                        this->each_sixteen(block, warp, [&](int stripe, int chunk) {
                            Tile re[2], im[2];
                            transform.spectrum(re, im, stripe, chunk);
                            put(row, stripe, chunk, re, im, scale, of_y, b > first);
                        });
                    });
                }
        }
    }

  private:
    // Of x the conjugate spectrum goes to the scratch; that of y is multiplied by it and added to the products.
    LONGCONV_DEVICE void put(int64_t row, int stripe, int chunk, const Tile (&re)[2], const Tile (&im)[2], float scale,
                             bool of_y, bool add) const {
        const Global<Complex> scratch = this->numbers(call.scratch, row), products = this->numbers(call.spectrum, row);
        const int64_t first = this->place(stripe, chunk);
        const float root = this->root_n1();
        each_pair_of_sixteen([&](int place, int half, int lane, int i) {
            Vector<Complex, 2> pair = {}, sum = {};
            if (of_y) pair = scratch.template vector<2>(first + place);
            if (of_y && add) sum = products.template vector<2>(first + place);
            LONGCONV_UNROLL
            for (int k = 0; k < 2; ++k) {
                const Complex v = {root * re[half](lane, i + k) * scale, root * im[half](lane, i + k) * scale};
                pair.v[k] = of_y ? plus_product(sum.v[k], pair.v[k], v) : conjugate(v);
            }
            (of_y ? products : scratch).template set_vector<2>(first + place, pair);
        });
    }
};

// The gradients of taps.
template <typename L>
struct SparseTaps : SparseCall<L> {
    using SparseCall<L>::layout;
    using SparseCall<L>::call;

    LONGCONV_BOTH int64_t rows() const { return call.channels * call.batch; }

    LONGCONV_DEVICE void operator()(Block& block) const {
        const SparseTransform<L> transform(layout, call.tables);
        for (int64_t row = block.index(); row < rows(); row += block.count()) {
            float norm = 1;
            if constexpr (L::Math::kNarrow) {
                block.phase([&](int warp) {
                    Registers<float, 1> most;
                    clear(most);
                    this->each_sixteen(block, warp, [&](int stripe, int chunk) {
                        Tile re[2], im[2];
                        sum(row, stripe, chunk, re, im, 1);
                        enlarge(most, re, im);
                    });
                    transform.set_maximum(0, warp, most);
                });
                block.phase([&](int) { norm = power_below(transform.maximum(block, 0)) / kLargeSparse; });
            }
            transform.backward(block, [&](int stripe, int chunk, Tile(&re)[2], Tile(&im)[2]) {
                sum(row, stripe, chunk, re, im, 1 / norm);
            });
            const int64_t points = static_cast<int64_t>(layout.n1) * layout.n2;
            transform.finish(block, this->sequence(call.y, row / call.batch, row % call.batch), call.taps,
                             norm * (sqrtf(static_cast<float>(layout.n2)) / static_cast<float>(points)));
        }
    }

  private:
    // Numbers of this size go through the inverse transform in half precision: its sums stay below 32768.
    static constexpr float kLargeSparse = 64;

    // scale times the sums over parts.
    LONGCONV_DEVICE void sum(int64_t row, int stripe, int chunk, Tile (&re)[2], Tile (&im)[2], float scale) const {
        const Global<const uint8_t> alive(call.alive, layout.spectrum());
        const int64_t first = this->place(stripe, chunk);
        each_pair_of_sixteen([&](int place, int half, int lane, int i) {
            Vector<Complex, 2> all = {};
            for (int64_t part = 0; part < call.parts; ++part) {
                const auto pair =
                    this->numbers(call.spectrum, row * call.parts + part).template vector<2>(first + place);
                LONGCONV_UNROLL
                for (int k = 0; k < 2; ++k) all.v[k] = all.v[k] + pair.v[k];
            }
            LONGCONV_UNROLL
            for (int k = 0; k < 2; ++k) {
                const bool is_kept = alive.get(first + place + k) != 0;  // what is not may be beyond the range
                re[half](lane, i + k) = is_kept ? all.v[k].re * scale : 0;
                im[half](lane, i + k) = is_kept ? all.v[k].im * scale : 0;
            }
        });
    }
};

}  // namespace longconv

#endif
