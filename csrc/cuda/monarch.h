// The transform of the kernels, in the ring of polynomials modulo X^n - i, where a causal convolution of n samples
// needs no padding: T(x)[f] = sum_m x[m] exp(-2 pi i m (f - 1/4) / n), n = 256 R s.
//
// A sequence is a matrix of 16 s rows and 16 R columns, m = 16 R m1 + m2 and f = f1 + 16 s f2. A warp owns stripes of
// 16 rows. Of its stripe it takes
//   the product with 16 rows of the DFT matrix over m1, whose entries hold the quarter:  A[f1, m2]
//   with m2 = 16 a + b, f2 = c + R d: a transform over a of R points in each lane, between two sets of roots:  V[f1, c,
//   b] the product with the DFT matrix of 16 points over b:  T[f1, c, d], in registers
// and, after the product of spectra, the same steps back. So shared memory is crossed but twice: the sequence on its
// way in, and A of the result, of which the last product over f1 takes all stripes. The spectrum's order is [f1][c][d].

#ifndef LONGCONV_CUDA_MONARCH_H
#define LONGCONV_CUDA_MONARCH_H

#include "tile.h"

namespace longconv {

constexpr int kMostWarpsOfBlock = 8;

// What is known of a transform at run time, and where its tables and its shared memory lie. A block works on `group`
// sequences at a time.
template <typename Math_, int R_>
struct Layout {
    using Math = Math_;
    using Number = typename Math::Number;
    static constexpr int R = R_, kColumns = 16 * R, kPad = 16 / static_cast<int>(sizeof(Number)),
                         kStride = kColumns + kPad;  // so that rows of shared memory begin in different banks
    int stripes, group;

    LONGCONV_BOTH int points() const { return 256 * R * stripes; }
    LONGCONV_BOTH int rows() const { return 16 * stripes; }
    LONGCONV_BOTH int plane() const { return rows() * kStride; }  // numbers of a sequence in shared memory

    // Tables: the operands a of the first and of the last product, the operand b of 16 points; then the roots.
    LONGCONV_BOTH int64_t operand(bool last, int stripe, int k, bool imaginary) const {
        return (((last ? stripes : 0) + stripe) * static_cast<int64_t>(stripes) + k) * 512 + (imaginary ? 256 : 0);
    }
    LONGCONV_BOTH int64_t leaf(int half, bool imaginary) const {
        return 1024LL * stripes * stripes + half * 256 + (imaginary ? 128 : 0);
    }
    LONGCONV_BOTH int64_t numbers() const { return 1024LL * stripes * stripes + 512; }
    LONGCONV_BOTH int64_t outer_root(int row, int a) const { return row * R + a; }
    LONGCONV_BOTH int64_t row_root(int row, int b) const { return 16LL * stripes * R + row * 16 + b; }
    LONGCONV_BOTH int64_t column_root(int c, int b) const { return 16LL * stripes * (R + 16) + c * 16 + b; }
    LONGCONV_BOTH int64_t roots() const { return 16LL * stripes * (R + 16) + 16 * R; }
    LONGCONV_BOTH int64_t table_bytes() const {
        return numbers() * static_cast<int64_t>(sizeof(Number)) + roots() * static_cast<int64_t>(sizeof(Complex));
    }

    // Shared memory, in bytes: the sequences, the real and imaginary planes of the results (before them the sequences
    // in float, where numbers need a scale), the greatest magnitudes of pieces of 256 samples.
    LONGCONV_BOTH int sequence_bytes() const { return group * plane() * static_cast<int>(sizeof(Number)); }
    LONGCONV_BOTH int maxima_bytes() const { return Math::kNarrow ? group * points() / 256 * 4 : 0; }
    LONGCONV_BOTH int filter_bytes() const { return 3 * sequence_bytes() + maxima_bytes(); }
    LONGCONV_BOTH int result_bytes() const { return 2 * sequence_bytes(); }
    LONGCONV_BOTH int peak_bytes(int a_stripe) const { return Math::kNarrow ? group * stripes * a_stripe * 4 : 0; }
    LONGCONV_BOTH int load_bytes() const { return (Math::kNarrow ? 3 : 1) * sequence_bytes() + maxima_bytes(); }

    LONGCONV_DEVICE Shared<Number> sequence(int i) const {
        return {i * plane() * static_cast<int>(sizeof(Number)), plane()};
    }
    LONGCONV_DEVICE Shared<Number> result(int i, bool imaginary) const {
        return result_from(sequence_bytes(), i, imaginary);
    }
    // The same where a kernel has no sequences before them, and where it has other complex numbers there.
    LONGCONV_DEVICE Shared<Number> result_alone(int i, bool imaginary) const { return result_from(0, i, imaginary); }
    LONGCONV_DEVICE Shared<Number> result_after(int i, bool imaginary) const {
        return result_from(result_bytes(), i, imaginary);
    }
    LONGCONV_DEVICE Shared<float> unscaled() const { return {sequence_bytes(), group * points()}; }
    LONGCONV_DEVICE Shared<float> maxima() const { return {3 * sequence_bytes(), group * points() / 256}; }

  private:
    LONGCONV_DEVICE Shared<Number> result_from(int first, int i, bool imaginary) const {
        return {first + (2 * i + imaginary) * plane() * static_cast<int>(sizeof(Number)), plane()};
    }
};

template <typename L>
struct Tables {
    Global<const typename L::Number> numbers;
    Global<const Complex> roots;

    LONGCONV_DEVICE Tables(const void* data, const L& layout)
        : numbers(static_cast<const typename L::Number*>(data), layout.numbers()),
          roots(reinterpret_cast<const Complex*>(static_cast<const typename L::Number*>(data) + layout.numbers()),
                layout.roots()) {}
};

// The greatest of f(j) >= 0, j < count; all lanes take part.
template <typename F>
LONGCONV_DEVICE float greatest_of(int count, const F& f) {
    Registers<float, 1> most;
    each_lane([&](int lane) {
        most(lane, 0) = 0;
        for (int j = lane; j < count; j += 32) most(lane, 0) = larger(most(lane, 0), f(j));
    });
    return greatest(most);
}

// What the numbers of sequence i were divided by, a power of two; all lanes take part.
template <typename L>
LONGCONV_DEVICE float scale_of(const L& layout, int i) {
    if constexpr (!L::Math::kNarrow) return 1;
    const Shared<float> maxima = layout.maxima();
    const int pieces = layout.points() / 256;
    return power_below(greatest_of(pieces, [&](int j) { return maxima.get(i * pieces + j); }));
}

template <typename L>
LONGCONV_DEVICE void set_eight(const Shared<typename L::Number>& to, int t, const float (&v)[8], float factor) {
    constexpr int kSide = L::kPad;  // 16 bytes
    const int first = t / L::kColumns * L::kStride + t % L::kColumns;
    LONGCONV_UNROLL
    for (int j = 0; j < 8; j += kSide) {
        Vector<typename L::Number, kSide> side;
        LONGCONV_UNROLL
        for (int k = 0; k < kSide; ++k) side.v[k] = L::Math::number(v[j + k] * factor);
        to.template set_vector<kSide>(first + j, side);
    }
}

// Phases: the group's sequences, of which source(i, t, v) tells eight samples from t on, come into shared memory.
template <typename L, typename Source>
LONGCONV_DEVICE void load_sequences(Block& block, const L& layout, const Source& source) {
    const int points = layout.points(), pieces = points / 256, all = layout.group * pieces;
    block.phase([&](int warp) {
        for (int piece = warp; piece < all; piece += block.warps()) {
            Registers<float, 1> most;
            each_lane([&](int lane) {
                const int i = piece / pieces, t = piece % pieces * 256 + lane * 8;
                float v[8];
                source(i, t, v);
                if constexpr (L::Math::kNarrow) {
                    most(lane, 0) = 0;
                    LONGCONV_UNROLL
                    for (int j = 0; j < 8; ++j) most(lane, 0) = larger(most(lane, 0), magnitude(v[j]));
                    LONGCONV_UNROLL
                    for (int j = 0; j < 8; j += 4)
                        layout.unscaled().template set_vector<4>(i * points + t + j,
                                                                 {v[j], v[j + 1], v[j + 2], v[j + 3]});
                } else {
                    set_eight<L>(layout.sequence(i), t, v, 1);
                }
            });
            if constexpr (L::Math::kNarrow) {
                const float all_lanes = greatest(most);
                each_lane([&](int lane) {
                    if (lane == 0) layout.maxima().set(piece, all_lanes);
                });
            }
        }
    });
    if constexpr (L::Math::kNarrow) {
        block.phase([&](int warp) {
            for (int piece = warp; piece < all; piece += block.warps()) {
                const float factor = 1 / scale_of(layout, piece / pieces);
                each_lane([&](int lane) {
                    const int i = piece / pieces, t = piece % pieces * 256 + lane * 8;
                    float v[8];
                    LONGCONV_UNROLL
                    for (int j = 0; j < 8; j += 4) {
                        const auto four = layout.unscaled().template vector<4>(i * points + t + j);
                        LONGCONV_UNROLL
                        for (int k = 0; k < 4; ++k) v[j + k] = four.v[k];
                    }
                    set_eight<L>(layout.sequence(i), t, v, factor);
                });
            }
        });
    }
}

// The operand of the transform of 16 points.
template <typename L>
struct Leaf {
    typename L::Math::B re[2], im[2];

    LONGCONV_DEVICE Leaf(const Tables<L>& tables, const L& layout) {
        LONGCONV_UNROLL
        for (int half = 0; half < 2; ++half) {
            re[half] = L::Math::load_b(tables.numbers, layout.leaf(half, false));
            im[half] = L::Math::load_b(tables.numbers, layout.leaf(half, true));
        }
    }

    // x = v times the matrix, or its conjugate; 16 x 16 numbers.
    LONGCONV_DEVICE void product(Tile (&x_re)[2], Tile (&x_im)[2], const Tile (&v_re)[2], const Tile (&v_im)[2],
                                 bool inverse) const {
        using Math = typename L::Math;
        const typename Math::A a = Math::a_of(v_re[0], v_re[1]), b = Math::a_of(v_im[0], v_im[1]);
        const typename Math::A minus = Math::negative(inverse ? a : b);
        LONGCONV_UNROLL
        for (int half = 0; half < 2; ++half) {
            clear(x_re[half]);
            clear(x_im[half]);
            Math::multiply_add(x_re[half], a, re[half]);
            Math::multiply_add(x_re[half], inverse ? b : minus, im[half]);
            Math::multiply_add(x_im[half], b, re[half]);
            Math::multiply_add(x_im[half], inverse ? minus : a, im[half]);
        }
    }
};

// 16 rows of a sequence in a warp's registers: [a or c][half of the 16 columns].
template <typename L>
struct Stripe {
    static constexpr int R = L::R;
    using Math = typename L::Math;
    Tile re[R][2], im[R][2];

    // All but the last step of T of a sequence, times sqrt(16 / n).
    LONGCONV_DEVICE void forward(const L& layout, const Tables<L>& tables, int stripe,
                                 const Shared<typename L::Number>& x) {
        begin<false>(layout, tables, stripe, layout.stripes, x, x);
        go_on(layout, tables, stripe);
    }

    // The first step: the product over m1, of the real numbers x or of the complex ones x + i y, in `filled` stripes.
    template <bool kComplex>
    LONGCONV_DEVICE void begin(const L& layout, const Tables<L>& tables, int stripe, int filled,
                               const Shared<typename L::Number>& x, const Shared<typename L::Number>& y) {
        LONGCONV_UNROLL
        for (int a = 0; a < R; ++a) {
            LONGCONV_UNROLL
            for (int half = 0; half < 2; ++half) clear(re[a][half]), clear(im[a][half]);
        }
        for (int k = 0; k < filled; ++k) {
            const typename Math::A f_re = Math::load_a(tables.numbers, layout.operand(false, stripe, k, false)),
                                   f_im = Math::load_a(tables.numbers, layout.operand(false, stripe, k, true));
            LONGCONV_UNROLL
            for (int a = 0; a < R; ++a) {
                typename Math::B b[2];
                Math::load_pair(b, x, 16 * k * L::kStride + 16 * a, L::kStride);
                LONGCONV_UNROLL
                for (int half = 0; half < 2; ++half) {
                    Math::multiply_add(re[a][half], f_re, b[half]);
                    Math::multiply_add(im[a][half], f_im, b[half]);
                }
                if constexpr (kComplex) {
                    Math::load_pair(b, y, 16 * k * L::kStride + 16 * a, L::kStride);
                    LONGCONV_UNROLL
                    for (int half = 0; half < 2; ++half) {
                        Math::multiply_add(re[a][half], Math::negative(f_im), b[half]);
                        Math::multiply_add(im[a][half], f_re, b[half]);
                    }
                }
            }
        }
    }

    // The steps after it but for the last one, times sqrt(16 / n).
    LONGCONV_DEVICE void go_on(const L& layout, const Tables<L>& tables, int stripe) {
        const float scale = 4 / sqrtf(static_cast<float>(layout.points()));
        each_number([&](int row, int b, Complex(&v)[R]) {
            row += 16 * stripe;
            LONGCONV_UNROLL
            for (int a = 1; a < R; ++a) v[a] = v[a] * tables.roots.get(layout.outer_root(row, a));
            transform_in_lane<false>(v);
            const Complex of_row = tables.roots.get(layout.row_root(row, b));
            LONGCONV_UNROLL
            for (int c = 0; c < R; ++c) {
                const Complex w = c ? of_row * tables.roots.get(layout.column_root(c, b)) : of_row;
                v[c] = v[c] * Complex{scale * w.re, scale * w.im};
            }
        });
    }

    // The same steps back, but for the product over f1, and without the scale.
    LONGCONV_DEVICE void backward(const L& layout, const Tables<L>& tables, int stripe) {
        each_number([&](int row, int b, Complex(&v)[R]) {
            row += 16 * stripe;
            const Complex of_row = tables.roots.get(layout.row_root(row, b));
            LONGCONV_UNROLL
            for (int c = 0; c < R; ++c) {
                const Complex w = c ? of_row * tables.roots.get(layout.column_root(c, b)) : of_row;
                v[c] = v[c] * conjugate(w);
            }
            transform_in_lane<true>(v);
            LONGCONV_UNROLL
            for (int a = 1; a < R; ++a) v[a] = v[a] * conjugate(tables.roots.get(layout.outer_root(row, a)));
        });
    }

    LONGCONV_DEVICE void store(int stripe, const Shared<typename L::Number>& to_re,
                               const Shared<typename L::Number>& to_im) const {
        LONGCONV_UNROLL
        for (int a = 0; a < R; ++a) {
            LONGCONV_UNROLL
            for (int half = 0; half < 2; ++half)
                each_lane([&](int lane) {
                    LONGCONV_UNROLL
                    for (int i = 0; i < 4; i += 2) {
                        const int to =
                            (16 * stripe + tile_row(lane, i)) * L::kStride + 16 * a + 8 * half + tile_column(lane, i);
                        const Tile &x = re[a][half], &y = im[a][half];
                        to_re.template set_vector<2>(to, {Math::number(x(lane, i)), Math::number(x(lane, i + 1))});
                        to_im.template set_vector<2>(to, {Math::number(y(lane, i)), Math::number(y(lane, i + 1))});
                    }
                });
        }
    }

  private:
    // f(row, column, v) with the R numbers at the same place of the tiles.
    template <typename F>
    LONGCONV_DEVICE void each_number(const F& f) {
        LONGCONV_UNROLL
        for (int half = 0; half < 2; ++half)
            each_lane([&](int lane) {
                LONGCONV_UNROLL
                for (int i = 0; i < 4; ++i) {
                    Complex v[R];
                    LONGCONV_UNROLL
                    for (int a = 0; a < R; ++a) v[a] = {re[a][half](lane, i), im[a][half](lane, i)};
                    f(tile_row(lane, i), 8 * half + tile_column(lane, i), v);
                    LONGCONV_UNROLL
                    for (int a = 0; a < R; ++a) re[a][half](lane, i) = v[a].re, im[a][half](lane, i) = v[a].im;
                    if (R > 4) forget();  // registers are short: roots are not kept for the next number
                }
            });
    }
};

// A row of a spectrum: f(place in it, i) for each pair of neighbours i, i + 1 in the tiles of c.
template <typename L, typename F>
LONGCONV_DEVICE void each_pair(int stripe, int c, const F& f) {
    LONGCONV_UNROLL
    for (int half = 0; half < 2; ++half)
        each_lane([&](int lane) {
            LONGCONV_UNROLL
            for (int i = 0; i < 4; i += 2)
                f((16 * stripe + tile_row(lane, i)) * L::kColumns + 16 * c + 8 * half + tile_column(lane, i), half,
                  lane, i);
        });
}

// The last product of the inverse, for 16 rows m1 and all columns: y[a][half] = the real part of the sum over f1 of the
// planes, and z[a][half], if wanted, the imaginary part.
template <bool kComplex, typename L>
LONGCONV_DEVICE void finish(Tile (&y)[L::R][2], Tile (&z)[L::R][2], const L& layout, const Tables<L>& tables,
                            int stripe, const Shared<typename L::Number>& re, const Shared<typename L::Number>& im) {
    using Math = typename L::Math;
    LONGCONV_UNROLL
    for (int a = 0; a < L::R; ++a) {
        LONGCONV_UNROLL
        for (int half = 0; half < 2; ++half) {
            clear(y[a][half]);
            if constexpr (kComplex) clear(z[a][half]);
        }
    }
    for (int k = 0; k < layout.stripes; ++k) {
        const typename Math::A f_re = Math::load_a(tables.numbers, layout.operand(true, stripe, k, false)),
                               f_im = Math::load_a(tables.numbers, layout.operand(true, stripe, k, true));
        LONGCONV_UNROLL
        for (int a = 0; a < L::R; ++a) {
            typename Math::B b[2], c[2];
            Math::load_pair(b, re, 16 * k * L::kStride + 16 * a, L::kStride);
            Math::load_pair(c, im, 16 * k * L::kStride + 16 * a, L::kStride);
            LONGCONV_UNROLL
            for (int half = 0; half < 2; ++half) {
                Math::multiply_add(y[a][half], f_re, b[half]);
                Math::multiply_add(y[a][half], f_im, c[half]);
                if constexpr (kComplex) {
                    Math::multiply_add(z[a][half], f_re, c[half]);
                    Math::multiply_add(z[a][half], Math::negative(f_im), b[half]);
                }
            }
        }
    }
}
template <typename L>
LONGCONV_DEVICE void finish(Tile (&y)[L::R][2], const L& layout, const Tables<L>& tables, int stripe,
                            const Shared<typename L::Number>& re, const Shared<typename L::Number>& im) {
    finish<false>(y, y, layout, tables, stripe, re, im);
}

}  // namespace longconv

#endif
