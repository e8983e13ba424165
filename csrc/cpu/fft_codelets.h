// Small discrete Fourier transforms on vectors, and the transposition of a square of vectors: included by the ISA
// sources alone. All loops are unrolled by templates, so that arrays of vectors become registers.

#ifndef LONGCONV_CPU_FFT_CODELETS_H
#define LONGCONV_CPU_FFT_CODELETS_H

#include "vector.h"

#define LONGCONV_INLINE inline __attribute__((always_inline))

namespace longconv {
namespace LONGCONV_ISA {

template <int I>
struct Index {
    constexpr operator int() const { return I; }
};
template <typename F, int... I>
LONGCONV_INLINE void unroll(const F& body, Indices<I...>) {
    (body(Index<I>{}), ...);
}
// body(i) for i = 0 .. N - 1, i a constant.
template <int N, typename F>
LONGCONV_INLINE void unroll(const F& body) {
    unroll(body, typename MakeIndices<N>::type{});
}

// A one that the compiler doesn't know.
template <typename T>
struct Hidden {
    static const T one;
};
extern template struct Hidden<float>;  // in fft_plan.cpp
extern template struct Hidden<double>;

// W complex numbers.
template <typename T, int W>
struct Complex {
    using V = Vector<T, W>;
    V re, im;

    static LONGCONV_INLINE Complex load(const T* from) {
        Complex x;
        __builtin_memcpy(&x.re, from, sizeof(V));  // one by one: GCC copies a pair through narrower registers
        __builtin_memcpy(&x.im, from + W, sizeof(V));
        return x;
    }
    LONGCONV_INLINE void store(T* to) const {
        __builtin_memcpy(to, &re, sizeof(V));
        __builtin_memcpy(to + W, &im, sizeof(V));
    }
    LONGCONV_INLINE Complex operator+(const Complex& o) const { return {re + o.re, im + o.im}; }
    LONGCONV_INLINE Complex operator-(const Complex& o) const { return {re - o.re, im - o.im}; }
#ifdef __FMA__
    // The difference as a fused multiply-add: it takes the multipliers, while sums take the adders.
    LONGCONV_INLINE Complex minus(const Complex& o) const {
        return {re - o.re * Hidden<T>::one, im - o.im * Hidden<T>::one};
    }
#else
    LONGCONV_INLINE Complex minus(const Complex& o) const { return *this - o; }
#endif
    LONGCONV_INLINE Complex swapped() const { return {im, re}; }
    // Times i.
    LONGCONV_INLINE Complex turned() const { return {-im, re}; }
    // Times (a + i b) and times its conjugate; a and b are vectors or scalars.
    template <typename S>
    LONGCONV_INLINE Complex times(const S& a, const S& b) const {
        return {re * a - im * b, im * a + re * b};
    }
    template <typename S>
    LONGCONV_INLINE Complex times_conjugate(const S& a, const S& b) const {
        return {re * a + im * b, im * a - re * b};
    }
};

// x[j] = sum_p x[p] exp(2 pi i j p / R), in place and in order.
template <int R>
struct Dft;

template <>
struct Dft<1> {
    template <typename C>
    static LONGCONV_INLINE void run(C*) {}
};

template <>
struct Dft<2> {
    template <typename C>
    static LONGCONV_INLINE void run(C* x) {
        const C a = x[0], b = x[1];
        x[0] = a + b, x[1] = a - b;
    }
};

template <>
struct Dft<3> {
    template <typename T, int W>
    static LONGCONV_INLINE void run(Complex<T, W>* x) {
        constexpr T h = T(0.5), s = T(0.866025403784438646763723170752936183);
        const auto sum = x[1] + x[2], turned = (x[1] - x[2]).turned(), a = x[0];
        const Complex<T, W> middle = {a.re - sum.re * h, a.im - sum.im * h};
        x[0] = a + sum;
        x[1] = {middle.re + turned.re * s, middle.im + turned.im * s};
        x[2] = {middle.re - turned.re * s, middle.im - turned.im * s};
    }
};

template <>
struct Dft<4> {
    template <typename C>
    static LONGCONV_INLINE void run(C* x) {
        const C even = x[0] + x[2], odd = x[1] + x[3], difference = x[0].minus(x[2]),
                turned = x[1].minus(x[3]).turned();
        x[0] = even + odd, x[1] = difference + turned, x[2] = even - odd, x[3] = difference - turned;
    }
};

template <>
struct Dft<5> {
    // x[1], x[4] = x[0] + c1 s1 + c2 s2 +- i (s1 d1 + s2 d2) and so on, with sums and differences of the pairs (1, 4),
    // (2, 3).
    template <typename T, int W>
    static LONGCONV_INLINE void run(Complex<T, W>* x) {
        using C = Complex<T, W>;
        constexpr T c1 = T(0.309016994374947424102293417182819059), c2 = T(-0.809016994374947424102293417182819059);
        constexpr T s1 = T(0.951056516295153572116439333379382143), s2 = T(0.587785252292473129168705954639072769);
        const C outer = x[1] + x[4], inner = x[2] + x[3], a = x[0];
        const C p = (x[1] - x[4]).turned(), q = (x[2] - x[3]).turned();
        const C even1 = {a.re + outer.re * c1 + inner.re * c2, a.im + outer.im * c1 + inner.im * c2};
        const C even2 = {a.re + outer.re * c2 + inner.re * c1, a.im + outer.im * c2 + inner.im * c1};
        const C odd1 = {p.re * s1 + q.re * s2, p.im * s1 + q.im * s2};
        const C odd2 = {p.re * s2 - q.re * s1, p.im * s2 - q.im * s1};
        x[0] = a + outer + inner;
        x[1] = even1 + odd1, x[4] = even1 - odd1;
        x[2] = even2 + odd2, x[3] = even2 - odd2;
    }
};

template <>
struct Dft<8> {
    template <typename T, int W>
    static LONGCONV_INLINE void run(Complex<T, W>* x) {
        using C = Complex<T, W>;
        constexpr T h = T(0.707106781186547524400844362104849039);
        C even[4] = {x[0], x[2], x[4], x[6]}, odd[4] = {x[1], x[3], x[5], x[7]};
        Dft<4>::run(even);
        Dft<4>::run(odd);
        const C one = {odd[1].re - odd[1].im, odd[1].im + odd[1].re};     // / h, times exp(i pi / 4)
        const C three = {-odd[3].re - odd[3].im, odd[3].re - odd[3].im};  // / h, times exp(3 i pi / 4)
        const C two = odd[2].turned();
        x[0] = even[0] + odd[0], x[4] = even[0].minus(odd[0]);
        x[1] = {even[1].re + one.re * h, even[1].im + one.im * h};
        x[5] = {even[1].re - one.re * h, even[1].im - one.im * h};
        x[2] = even[2] + two, x[6] = even[2].minus(two);
        x[3] = {even[3].re + three.re * h, even[3].im + three.im * h};
        x[7] = {even[3].re - three.re * h, even[3].im - three.im * h};
    }
};

template <>
struct Dft<16> {
    static constexpr double kCos[10] = {1.0,
                                        0.923879532511286756128183189396788287,
                                        0.707106781186547524400844362104849039,
                                        0.382683432365089771728459984030398867,
                                        0.0,
                                        -0.382683432365089771728459984030398867,
                                        -0.707106781186547524400844362104849039,
                                        -0.923879532511286756128183189396788287,
                                        -1.0,
                                        -0.923879532511286756128183189396788287};
    static constexpr double sine(int n) { return n >= 4 ? kCos[n - 4] : kCos[4 - n]; }

    // As 4 x 4: over p = q + 4 p', twiddles exp(2 pi i q j' / 16), over q; j = j' + 4 j''.
    template <typename T, int W>
    static LONGCONV_INLINE void run(Complex<T, W>* x) {
        using C = Complex<T, W>;
        C y[16];
        unroll<4>([&](auto q) __attribute__((always_inline)) {
            C column[4] = {x[q], x[q + 4], x[q + 8], x[q + 12]};
            Dft<4>::run(column);
            unroll<4>([&](auto j) __attribute__((always_inline)) {
                constexpr int n = int(decltype(q){}) * int(decltype(j){});
                if constexpr (n == 0)
                    y[4 * j + q] = column[j];
                else if constexpr (n == 4)
                    y[4 * j + q] = column[j].turned();
                else
                    y[4 * j + q] = column[j].times(T(kCos[n]), T(sine(n)));
            });
        });
        unroll<4>([&](auto j) __attribute__((always_inline)) {
            C* row = y + 4 * j;
            Dft<4>::run(row);
            unroll<4>([&](auto k) __attribute__((always_inline)) { x[j + 4 * k] = row[k]; });
        });
    }
};

// The inverse, without 1 / R: real and imaginary parts change places before and after.
template <int R, typename C>
LONGCONV_INLINE void inverse_dft(C* x) {
    unroll<R>([&](auto i) __attribute__((always_inline)) { x[i] = x[i].swapped(); });
    Dft<R>::run(x);
    unroll<R>([&](auto i) __attribute__((always_inline)) { x[i] = x[i].swapped(); });
}

// Exchange the halves of a and b that an index bit of D tells apart.
template <int D, typename T, int N, int... I>
LONGCONV_INLINE void exchange(Vector<T, N>& a, Vector<T, N>& b, Indices<I...>) {
    const Vector<T, N> first = a, second = b;
    a = __builtin_shufflevector(first, second, (I & D ? N + I - D : I)...);
    b = __builtin_shufflevector(first, second, (I & D ? N + I : I + D)...);
}

// Lanes that are D apart (and further, up to W / 2) change places with rows.
template <int D, typename T, int W>
LONGCONV_INLINE void transpose_lanes(Vector<T, W>* v) {
    if constexpr (D < W) {
        unroll<W>([&](auto i) __attribute__((always_inline)) {
            if constexpr ((int(decltype(i){}) & D) == 0)
                exchange<D, T, W>(v[i], v[i + D], typename MakeIndices<W>::type{});
        });
        transpose_lanes<2 * D, T, W>(v);
    }
}

// v[i][j] becomes v[j][i]: within lanes of 16 bytes by interleaving, then lanes as wholes.
template <typename T, int W>
LONGCONV_INLINE void transpose_square(Vector<T, W>* v) {
    constexpr int E = 16 / sizeof(T);
    using All = typename MakeIndices<W>::type;
    unroll<W / E>([&](auto group) __attribute__((always_inline)) {
        Vector<T, W>* r = v + E * group;
        if constexpr (E == 2) {
            interleave<E, 1, T, W>(r[0], r[1], Vector<T, W>(r[0]), Vector<T, W>(r[1]), All{});
        } else {
            Vector<T, W> a, b, c, d;
            interleave<E, 1, T, W>(a, b, r[0], r[1], All{});
            interleave<E, 1, T, W>(c, d, r[2], r[3], All{});
            interleave<E, 2, T, W>(r[0], r[1], a, c, All{});
            interleave<E, 2, T, W>(r[2], r[3], b, d, All{});
        }
    });
    transpose_lanes<E, T, W>(v);
}

}  // namespace LONGCONV_ISA
}  // namespace longconv

#endif
