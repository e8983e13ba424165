// The part of a transform that a mask of the spectrum keeps, in the ring of polynomials modulo X^n + i:
//   T(x)[f] = sum_m x[m] exp(-2 pi i m (f + 1/4) / n),   n = N1 N2,   m = N2 m1 + m2,   f = f1 + N1 f2,
// for those rows f1 and columns f2 that have a frequency which is kept:
//   A[f1, m2] = exp(-2 pi i m2 (f1 + 1/4) / n) sum_m1 exp(-2 pi i m1 (f1 + 1/4) / N1) x[m1, m2]
//   T[f1, f2] = sum_m2 A[f1, m2] exp(-2 pi i m2 f2 / N2)
// and the same steps back. Both sums are products of matrices, of any sizes, which zeros fill up to multiples of 16.
// Rows and columns without a frequency that is kept are in no table, no product, no spectrum and no shared memory.

#ifndef LONGCONV_CUDA_SPARSE_TRANSFORM_H
#define LONGCONV_CUDA_SPARSE_TRANSFORM_H

#include "sequence.h"

namespace longconv {

constexpr int kMostWarpsOfSparse = 8;

// Where tables and shared memory lie. A stripe is 16 rows that are kept, a chunk 16 such columns.
template <typename Math_>
struct SparseLayout {
    using Math = Math_;
    using Number = typename Math::Number;
    static constexpr int kSide = 16 / static_cast<int>(sizeof(Number));  // numbers in 16 bytes
    int n1, n2, kept_rows, kept_columns;

    static LONGCONV_BOTH int sixteens(int count) { return (count + 15) / 16; }
    LONGCONV_BOTH int tall() const { return sixteens(n1); }
    LONGCONV_BOTH int wide() const { return sixteens(n2); }
    LONGCONV_BOTH int stripes() const { return sixteens(kept_rows); }
    LONGCONV_BOTH int chunks() const { return sixteens(kept_columns); }
    // So that rows of shared memory begin in different banks.
    LONGCONV_BOTH int stride() const { return 16 * wide() + kSide; }
    LONGCONV_BOTH int64_t spectrum() const { return 256LL * stripes() * chunks(); }

    // Tables: operands a of the products over m1 and back, operands b of those over m2 and back; then the roots.
    LONGCONV_BOTH int64_t forth(int stripe, int k) const { return (static_cast<int64_t>(stripe) * tall() + k) * 512; }
    LONGCONV_BOTH int64_t back(int m, int k) const {
        return (static_cast<int64_t>(stripes()) * (tall() + m) + k) * 512;
    }
    LONGCONV_BOTH int64_t leaf(int chunk, int k) const {
        return (2LL * stripes() * tall() + static_cast<int64_t>(chunk) * wide() + k) * 512;
    }
    LONGCONV_BOTH int64_t leaf_back(int a, int k) const {
        return (2LL * stripes() * tall() + static_cast<int64_t>(chunks()) * (wide() + a) + k) * 512;
    }
    LONGCONV_BOTH int64_t operands() const {
        return 2LL * stripes() * tall() + 2LL * static_cast<int64_t>(wide()) * chunks();
    }
    LONGCONV_BOTH int64_t chunk_root(int row, int a) const { return static_cast<int64_t>(row) * wide() + a; }
    LONGCONV_BOTH int64_t column_root(int row, int b) const { return 16LL * (stripes() * wide() + row) + b; }
    LONGCONV_BOTH int64_t roots() const { return 16LL * stripes() * (wide() + 16); }
    LONGCONV_BOTH int64_t table_bytes() const {
        return 512 * operands() * static_cast<int64_t>(sizeof(Number)) +
               roots() * static_cast<int64_t>(sizeof(Complex));
    }

    // Shared memory: in front the sequence, and in its place later products of spectra, as operands; of each stripe
    // A, as operands, and in its place later the result before the last product, real and imaginary part; maxima.
    LONGCONV_BOTH int64_t front() const {
        const int64_t sequence = 16LL * tall() * stride(), products = 512LL * chunks();
        return sequence > products ? sequence : products;
    }
    LONGCONV_BOTH int64_t planes() const { return 32LL * stripes() * stride(); }
    LONGCONV_BOTH int64_t shared_bytes() const {
        return (front() + planes()) * static_cast<int64_t>(sizeof(Number)) + 2 * kMostWarpsOfSparse * 4;
    }
    // The stripes whose products of spectra are in shared memory at a time.
    LONGCONV_BOTH int group() const {
        const int64_t fit = front() / (512LL * chunks());
        return fit < stripes() ? static_cast<int>(fit) : stripes();
    }
};

// A number at (row, column) of a tile of 16 x 16 and the next one: f(place in 256 numbers, half, lane, i).
template <typename F>
LONGCONV_DEVICE void each_pair_of_sixteen(const F& f) {
    LONGCONV_UNROLL
    for (int half = 0; half < 2; ++half)
        each_lane([&](int lane) {
            LONGCONV_UNROLL
            for (int i = 0; i < 4; i += 2) f((2 * half + i / 2) * 64 + 2 * lane, half, lane, i);
        });
}

// The steps of the transform of a block's sequence.
template <typename L>
class SparseTransform {
  public:
    using Math = typename L::Math;
    using Number = typename L::Number;
    static constexpr int kTogether = 2;  // chunks of columns that share an operand a

    LONGCONV_DEVICE SparseTransform(const L& layout, const void* tables)
        : layout_(layout),
          numbers_(static_cast<const Number*>(tables), 512 * layout.operands()),
          roots_(reinterpret_cast<const Complex*>(static_cast<const Number*>(tables) + 512 * layout.operands()),
                 layout.roots()) {}

    // Phases: A of the numbers before `end` of a sequence. Returns what it was divided by, a power of two.
    LONGCONV_DEVICE float forward(Block& block, const Sequence& x, int64_t end) const {
        const int rows = filled(end);
        float scale = 1;
        if constexpr (Math::kNarrow) {
            block.phase([&](int warp) {
                Registers<float, 1> most;
                clear(most);
                each_eight(block, warp, rows, x, end, [&](int lane, int, const float (&v)[8]) {
                    LONGCONV_UNROLL
                    for (int j = 0; j < 8; ++j) most(lane, 0) = larger(most(lane, 0), magnitude(v[j]));
                });
                set_maximum(0, warp, most);
            });
        }
        block.phase([&](int warp) {
            if constexpr (Math::kNarrow) scale = power_below(maximum(block, 0));
            each_eight(block, warp, rows, x, end, [&](int, int place, const float (&v)[8]) {
                LONGCONV_UNROLL
                for (int j = 0; j < 8; j += L::kSide) {
                    Vector<Number, L::kSide> side;
                    LONGCONV_UNROLL
                    for (int k = 0; k < L::kSide; ++k) side.v[k] = Math::number(v[j + k] * (1 / scale));
                    front().template set_vector<L::kSide>(place + j, side);
                }
            });
        });
        block.phase([&](int warp) {
            each_job(block, warp, layout_.stripes(), [&](int stripe, int a) { multiply_rows(stripe, a, rows); });
        });
        return scale;
    }

    // 16 x 16 numbers of T times sqrt(1 / N1).
    LONGCONV_DEVICE void spectrum(Tile (&re)[2], Tile (&im)[2], int stripe, int chunk) const {
        multiply_complex(re, im, planes(), stripe * 32 * layout_.stride(), layout_.leaf(chunk, 0), layout_.wide());
    }

    // Phases: from 16 x 16 numbers of a spectrum each, which f(stripe, chunk, re, im) tells, back to what finish needs.
    template <typename F>
    LONGCONV_DEVICE void backward(Block& block, const F& f) const {
        const int chunks = layout_.chunks(), group = layout_.group();
        for (int first = 0; first < layout_.stripes(); first += group) {
            const int here = first + group < layout_.stripes() ? group : layout_.stripes() - first;
            block.phase([&](int warp) {
                for (int job = warp; job < here * chunks; job += block.warps()) {
                    Tile re[2], im[2];
                    f(first + job / chunks, job % chunks, re, im);
                    store(front(), job * 512, re, im);
                }
            });
            block.phase([&](int warp) {
                for (int job = warp; job < here * layout_.wide(); job += block.warps())
                    invert_columns(first + job / layout_.wide(), job / layout_.wide(), job % layout_.wide());
            });
        }
    }

    // The last phase: y[t], t < length, = scale times the real part of the result.
    LONGCONV_DEVICE void finish(Block& block, const Sequence& y, int64_t length, const Factor& scale) const {
        block.phase([&](int warp) {
            each_job(block, warp, layout_.sixteens(static_cast<int>((length + layout_.n2 - 1) / layout_.n2)),
                     [&](int m, int a) { invert_rows(m, a, y, scale); });
        });
    }

    // The greatest of what set_maximum was told of in a phase before.
    LONGCONV_DEVICE float maximum(const Block& block, int which) const {
        float most = 0;
        for (int warp = 0; warp < block.warps(); ++warp)
            most = larger(most, maxima().get(which * kMostWarpsOfSparse + warp));
        return most;
    }
    LONGCONV_DEVICE void set_maximum(int which, int warp, const Registers<float, 1>& most) const {
        const float all_lanes = greatest(most);
        each_lane([&](int lane) {
            if (lane == 0) maxima().set(which * kMostWarpsOfSparse + warp, all_lanes);
        });
    }

  private:
    LONGCONV_DEVICE Shared<Number> front() const { return {0, static_cast<int>(layout_.front())}; }
    LONGCONV_DEVICE Shared<Number> planes() const {
        return {static_cast<int>(layout_.front() * sizeof(Number)), static_cast<int>(layout_.planes())};
    }
    LONGCONV_DEVICE Shared<float> maxima() const {
        return {static_cast<int>((layout_.front() + layout_.planes()) * sizeof(Number)), 2 * kMostWarpsOfSparse};
    }

    // The rows, in sixteens, where numbers before `end` are.
    LONGCONV_DEVICE int filled(int64_t end) const {
        return layout_.sixteens(static_cast<int>((end + layout_.n2 - 1) / layout_.n2));
    }

    // f(lane, place, v) for all eights of the first sixteens of rows, with 0 where there is no number.
    template <typename F>
    LONGCONV_DEVICE void each_eight(const Block& block, int warp, int rows, const Sequence& x, int64_t end,
                                    const F& f) const {
        const int eights = 2 * layout_.wide();
        each_lane([&](int lane) {
            for (int i = 32 * warp + lane; i < 16 * rows * eights; i += 32 * block.warps()) {
                const int row = i / eights, column = i % eights * 8;
                const int64_t t = static_cast<int64_t>(row) * layout_.n2 + column;
                float v[8];
                if (layout_.n2 % 8 == 0) {
                    x.read_eight(t, column < layout_.n2 ? end : 0, v);
                } else {
                    LONGCONV_UNROLL
                    for (int j = 0; j < 8; ++j) v[j] = x.read(t + j, column + j < layout_.n2 ? end : 0);
                }
                f(lane, row * layout_.stride() + column, v);
            }
        });
    }

    // f(stripe, first chunk) for kTogether chunks of all m2.
    template <typename F>
    LONGCONV_DEVICE void each_job(const Block& block, int warp, int stripes, const F& f) const {
        const int pieces = (layout_.wide() + kTogether - 1) / kTogether;
        for (int job = warp; job < stripes * pieces; job += block.warps()) f(job / pieces, job % pieces * kTogether);
    }

    LONGCONV_DEVICE void multiply_rows(int stripe, int a, int rows) const {
        Tile re[kTogether][2], im[kTogether][2];
        clear_all(re);
        clear_all(im);
        for (int k = 0; k < rows; ++k) {
            const int64_t at = layout_.forth(stripe, k);
            const typename Math::A f_re = Math::load_a(numbers_, at), f_im = Math::load_a(numbers_, at + 256);
            LONGCONV_UNROLL
            for (int j = 0; j < kTogether; ++j) {
                if (a + j >= layout_.wide()) continue;
                typename Math::B b[2];
                Math::load_pair(b, front(), 16 * (k * layout_.stride() + a + j), layout_.stride());
                LONGCONV_UNROLL
                for (int half = 0; half < 2; ++half) {
                    Math::multiply_add(re[j][half], f_re, b[half]);
                    Math::multiply_add(im[j][half], f_im, b[half]);
                }
            }
        }
        LONGCONV_UNROLL
        for (int j = 0; j < kTogether; ++j) {
            if (a + j >= layout_.wide()) continue;
            twist(re[j], im[j], stripe, a + j, layout_.n1, false);
            store(planes(), stripe * 32 * layout_.stride() + (a + j) * 512, re[j], im[j]);
        }
    }

    // Chunk a of the columns m2, from group member `slot` of the products.
    LONGCONV_DEVICE void invert_columns(int stripe, int slot, int a) const {
        Tile re[2], im[2];
        multiply_complex(re, im, front(), slot * layout_.chunks() * 512, layout_.leaf_back(a, 0), layout_.chunks());
        twist(re, im, stripe, a, layout_.n2, true);
        each_pair_of_sixteen([&](int, int half, int lane, int i) {
            const int to =
                (32 * stripe + tile_row(lane, i)) * layout_.stride() + 16 * a + 8 * half + tile_column(lane, i);
            planes().template set_vector<2>(to, {Math::number(re[half](lane, i)), Math::number(re[half](lane, i + 1))});
            planes().template set_vector<2>(to + 16 * layout_.stride(),
                                            {Math::number(im[half](lane, i)), Math::number(im[half](lane, i + 1))});
        });
    }

    LONGCONV_DEVICE void invert_rows(int m, int a, const Sequence& y, const Factor& scale) const {
        Tile sums[kTogether][2];
        clear_all(sums);
        for (int k = 0; k < layout_.stripes(); ++k) {
            const int64_t at = layout_.back(m, k);
            const typename Math::A f_re = Math::load_a(numbers_, at), f_im = Math::load_a(numbers_, at + 256);
            LONGCONV_UNROLL
            for (int j = 0; j < kTogether; ++j) {
                if (a + j >= layout_.wide()) continue;
                typename Math::B re[2], im[2];
                const int from = 32 * k * layout_.stride() + 16 * (a + j);
                Math::load_pair(re, planes(), from, layout_.stride());
                Math::load_pair(im, planes(), from + 16 * layout_.stride(), layout_.stride());
                LONGCONV_UNROLL
                for (int half = 0; half < 2; ++half) {
                    Math::multiply_add(sums[j][half], f_re, re[half]);
                    Math::multiply_add(sums[j][half], f_im, im[half]);
                }
            }
        }
        LONGCONV_UNROLL
        for (int j = 0; j < kTogether; ++j)
            each_pair_of_sixteen([&](int, int half, int lane, int i) {
                const int column = 16 * (a + j) + 8 * half + tile_column(lane, i);
                const int64_t t = static_cast<int64_t>(16 * m + tile_row(lane, i)) * layout_.n2 + column;
                const float v = sums[j][half](lane, i) * scale, w = sums[j][half](lane, i + 1) * scale;
                if (column + 1 < layout_.n2 && t % 2 == 0) return y.write_two(t, v, w);
                if (column < layout_.n2) y.write(t, v);
                if (column + 1 < layout_.n2) y.write(t + 1, w);
            });
    }

    // re + i im = the product of `count` operands from `first` on and those of a table.
    LONGCONV_DEVICE void multiply_complex(Tile (&re)[2], Tile (&im)[2], const Shared<Number>& from, int first,
                                          int64_t table, int count) const {
        LONGCONV_UNROLL
        for (int half = 0; half < 2; ++half) clear(re[half]), clear(im[half]);
        for (int k = 0; k < count; ++k) {
            const typename Math::A x = Math::load_a(from, first + 512 * k),
                                   y = Math::load_a(from, first + 512 * k + 256);
            const typename Math::A minus = Math::negative(y);
            LONGCONV_UNROLL
            for (int half = 0; half < 2; ++half) {
                const int64_t at = table + 512 * k + 256 * half;
                const typename Math::B w_re = Math::load_b(numbers_, at), w_im = Math::load_b(numbers_, at + 128);
                Math::multiply_add(re[half], x, w_re);
                Math::multiply_add(re[half], minus, w_im);
                Math::multiply_add(im[half], y, w_re);
                Math::multiply_add(im[half], x, w_im);
            }
        }
    }

    // Times the roots between the two products, or their conjugates, and 1 / sqrt(size).
    LONGCONV_DEVICE void twist(Tile (&re)[2], Tile (&im)[2], int stripe, int a, int size, bool inverse) const {
        const float scale = 1 / sqrtf(static_cast<float>(size)), sign = inverse ? -scale : scale;
        LONGCONV_UNROLL
        for (int half = 0; half < 2; ++half)
            each_lane([&](int lane) {
                LONGCONV_UNROLL
                for (int i = 0; i < 4; ++i) {
                    const int row = 16 * stripe + tile_row(lane, i), b = 8 * half + tile_column(lane, i);
                    const Complex w = roots_.get(layout_.chunk_root(row, a)) * roots_.get(layout_.column_root(row, b));
                    const Complex v =
                        Complex{re[half](lane, i), im[half](lane, i)} * Complex{scale * w.re, sign * w.im};
                    re[half](lane, i) = v.re, im[half](lane, i) = v.im;
                }
            });
    }

    static LONGCONV_DEVICE void store(const Shared<Number>& to, int first, const Tile (&re)[2], const Tile (&im)[2]) {
        store_operand(to, first, re);
        store_operand(to, first + 256, im);
    }
    static LONGCONV_DEVICE void store_operand(const Shared<Number>& to, int first, const Tile (&x)[2]) {
        each_lane([&](int lane) {
            LONGCONV_UNROLL
            for (int i = 0; i < kOperandA; i += L::kSide) {
                Vector<Number, L::kSide> side;
                LONGCONV_UNROLL
                for (int k = 0; k < L::kSide; ++k) side.v[k] = Math::number(x[(i + k) / 4](lane, Math::in_tile(i + k)));
                to.template set_vector<L::kSide>(first + kOperandA * lane + i, side);
            }
        });
    }
    static LONGCONV_DEVICE void clear_all(Tile (&x)[kTogether][2]) {
        LONGCONV_UNROLL
        for (int j = 0; j < kTogether; ++j) clear(x[j][0]), clear(x[j][1]);
    }

    L layout_;
    Global<const Number> numbers_;
    Global<const Complex> roots_;
};

}  // namespace longconv

#endif
