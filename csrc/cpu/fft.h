// The transform of csrc/cpu/fft_conv.cpp: residues of a polynomial modulo X - (each root of X^N = c), and back.
//
// The ring of polynomials modulo X^m - c, with c = exp(2 pi i t), splits R ways: with r = exp(2 pi i t / R),
//
//     X^m - c = prod_j (X^(m/R) - r w^j),    w = exp(2 pi i / R)
//     a = sum_p a_p X^(p m/R)   has the residues   b_j = sum_p (a_p r^p) w^(j p)
//
// so a pass is a DFT of R blocks with R - 1 twiddles for the whole block, and each b_j is a polynomial in a ring of the
// same kind, with t_j = (t + j) / R. Back: a_p = r^-p / R sum_j b_j w^(-j p). With c = i the product of two real
// polynomials has the linear convolution as its real part, and as its imaginary part the tail beyond N; with c = 1 it
// is the circular one.
//
// Blocks of W W coefficients are leaves, W vectors of W lanes: a pass of radix W over the vectors leaves a ring a
// vector, a transposition makes it a ring a lane, and a second pass of radix W, with twiddles a lane, ends at points.
// What follows (a product, the way back) is done on the registers. The order of the points is that of the splitting.
//
// Complex numbers lie as W real parts, then W imaginary parts.

#ifndef LONGCONV_CPU_FFT_H
#define LONGCONV_CPU_FFT_H

#include "fft_codelets.h"
#include "fft_plan.h"

namespace longconv {
namespace LONGCONV_ISA {

template <typename T, int W>
struct Fft {
    using C = Complex<T, W>;
    using V = typename C::V;
    static constexpr int64_t kComplex = 2 * W;      // numbers in a vector of complex numbers
    static constexpr int64_t kLeaf = kComplex * W;  // numbers in a leaf
    static constexpr int kTwiddles = 2 * (W - 1);   // numbers that the first pass of a leaf needs
    static constexpr int kLanes = kTwiddles * W;    // and the second

    const Plan<T>& plan;

    // ---- passes over `columns` vectors a block; the twiddles are pairs (re, im) of r, r^2, ...

    template <int R>
    static void down(T* data, int64_t columns, const T* twiddles) {
        for (int64_t v = 0; v < columns; ++v, data += kComplex) {
            C x[R];
            unroll<R>([&](auto p) __attribute__((always_inline)) {
                x[p] = C::load(data + p * columns * kComplex);
                if constexpr (int(decltype(p){}) > 0) x[p] = x[p].times(twiddles[2 * p - 2], twiddles[2 * p - 1]);
            });
            Dft<R>::run(x);
            unroll<R>([&](auto j) __attribute__((always_inline)) { x[j].store(data + j * columns * kComplex); });
        }
    }

    template <int R>
    static void up(T* data, int64_t columns, const T* twiddles) {
        for (int64_t v = 0; v < columns; ++v, data += kComplex) {
            C x[R];
            unroll<R>([&](auto j) __attribute__((always_inline)) { x[j] = C::load(data + j * columns * kComplex); });
            inverse_dft<R>(x);
            unroll<R>([&](auto p) __attribute__((always_inline)) {
                if constexpr (int(decltype(p){}) > 0)
                    x[p] = x[p].times_conjugate(twiddles[2 * p - 2], twiddles[2 * p - 1]);
                x[p].store(data + p * columns * kComplex);
            });
        }
    }

    // The first pass, of real coefficients: in(n) is the vector of those from n on.
    template <int R, typename In>
    static void first(T* data, const In& in, int64_t columns, const T* twiddles) {
        for (int64_t v = 0; v < columns; ++v, data += kComplex) {
            C x[R];
            unroll<R>([&](auto p) __attribute__((always_inline)) {
                const V real = in((p * columns + v) * W);
                if constexpr (int(decltype(p){}) == 0)
                    x[p] = {real, V{}};
                else
                    x[p] = {real * twiddles[2 * p - 2], real * twiddles[2 * p - 1]};
            });
            Dft<R>::run(x);
            unroll<R>([&](auto j) __attribute__((always_inline)) { x[j].store(data + j * columns * kComplex); });
        }
    }

    // The last pass, for the real parts alone: out(n, vector) takes them.
    template <int R, typename Out>
    static void last(const Out& out, const T* data, int64_t columns, const T* twiddles) {
        for (int64_t v = 0; v < columns; ++v, data += kComplex) {
            C x[R];
            unroll<R>([&](auto j) __attribute__((always_inline)) { x[j] = C::load(data + j * columns * kComplex); });
            inverse_dft<R>(x);
            unroll<R>([&](auto p) __attribute__((always_inline)) {
                V real = x[p].re;
                if constexpr (int(decltype(p){}) > 0) real = real * twiddles[2 * p - 2] + x[p].im * twiddles[2 * p - 1];
                out((p * columns + v) * W, real);
            });
        }
    }

    // run.operator()<R>() for the radix of a level.
    template <typename F>
    static LONGCONV_INLINE void with_radix(int radix, const F& run) {
        switch (radix) {
            case 1:
                return run(Index<1>{});
            case 2:
                return run(Index<2>{});
            case 3:
                return run(Index<3>{});
            case 4:
                return run(Index<4>{});
            case 5:
                return run(Index<5>{});
            case 8:
                return run(Index<8>{});
        }
    }

    void descend(int level, int64_t block, T* data) const {
        with_radix(plan.radix[level], [&](auto R) {
            down<decltype(R){}>(data, plan.columns[level], plan.twiddles[level] + 2 * (R - 1) * block);
        });
    }

    void ascend(int level, int64_t block, T* data) const {
        with_radix(plan.radix[level], [&](auto R) {
            up<decltype(R){}>(data, plan.columns[level], plan.twiddles[level] + 2 * (R - 1) * block);
        });
    }

    // Level 0 from, and to, real numbers.
    template <typename In>
    void descend_real(T* data, const In& in) const {
        with_radix(plan.radix[0], [&](auto R) { first<decltype(R){}>(data, in, plan.columns[0], plan.twiddles[0]); });
    }

    template <typename Out>
    void ascend_real(const Out& out, const T* data) const {
        with_radix(plan.radix[0], [&](auto R) { last<decltype(R){}>(out, data, plan.columns[0], plan.twiddles[0]); });
    }

    // ---- leaves

    static LONGCONV_INLINE void transpose(C* x) {
        V re[W], im[W];
        unroll<W>([&](auto i) __attribute__((always_inline)) { re[i] = x[i].re; });
        transpose_square<T, W>(re);
        unroll<W>([&](auto i) __attribute__((always_inline)) { im[i] = x[i].im; });
        transpose_square<T, W>(im);
        unroll<W>([&](auto i) __attribute__((always_inline)) { x[i] = {re[i], im[i]}; });
    }

    // The values of a leaf at its W W points.
    LONGCONV_INLINE void evaluate(C* x, const T* data, int64_t leaf) const {
        const T *scalars = plan.leaves + kTwiddles * leaf, *lanes = plan.lanes + kLanes * leaf;
        unroll<W>([&](auto p) __attribute__((always_inline)) {
            x[p] = C::load(data + p * kComplex);
            if constexpr (int(decltype(p){}) > 0) x[p] = x[p].times(scalars[2 * p - 2], scalars[2 * p - 1]);
        });
        Dft<W>::run(x);
        transpose(x);
        unroll<W - 1>([&](auto p) __attribute__((always_inline)) {
            const C t = C::load(lanes + p * kComplex);
            x[p + 1] = x[p + 1].times(t.re, t.im);
        });
        Dft<W>::run(x);
    }

    // The coefficients of a leaf, times W W, from the values at its points.
    LONGCONV_INLINE void interpolate(T* data, C* x, int64_t leaf) const {
        const T *scalars = plan.leaves + kTwiddles * leaf, *lanes = plan.lanes + kLanes * leaf;
        inverse_dft<W>(x);
        unroll<W - 1>([&](auto p) __attribute__((always_inline)) {
            const C t = C::load(lanes + p * kComplex);
            x[p + 1] = x[p + 1].times_conjugate(t.re, t.im);
        });
        transpose(x);
        inverse_dft<W>(x);
        unroll<W>([&](auto p) __attribute__((always_inline)) {
            if constexpr (int(decltype(p){}) > 0) x[p] = x[p].times_conjugate(scalars[2 * p - 2], scalars[2 * p - 1]);
            x[p].store(data + p * kComplex);
        });
    }

    // ---- the levels below the first, depth first, so that a block stays in the cache on its way down and up

    // Buffers that come with their level 0 done: those of `falling` go down to the leaves, where at_leaf(leaf, offset)
    // is called, and those of `rising` come up again; NULL for none.
    struct Buffers {
        T* falling[3];
        T* rising[3];
    };

    template <typename F>
    void walk(const Buffers& buffers, const F& at_leaf, int level = 0, int64_t block = 0, int64_t offset = 0) const {
        if (level == plan.levels) return at_leaf(block, offset);
        if (level > 0)
            for (T* buffer : buffers.falling)
                if (buffer) descend(level, block, buffer + offset);
        for (int j = 0; j < plan.radix[level]; ++j)
            walk(buffers, at_leaf, level + 1, plan.radix[level] * block + j,
                 offset + j * plan.columns[level] * kComplex);
        if (level > 0)
            for (T* buffer : buffers.rising)
                if (buffer) ascend(level, block, buffer + offset);
    }
};

}  // namespace LONGCONV_ISA
}  // namespace longconv

#endif
