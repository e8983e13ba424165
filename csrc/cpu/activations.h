// The activations that an op can end with, and their derivatives, on vectors: included by the ISA sources alone.
//
// All are made of e^x = 2^n (1 + p), p = e^r - 1 at r = x - n log 2, which is told apart so that e^x - 1 is exact near
// 0. The normal distribution's tail is e^(-t t / 2) R(t), R being smooth: a polynomial in (t - 4) / (t + 4), over t
// + 4.

#ifndef LONGCONV_CPU_ACTIVATIONS_H
#define LONGCONV_CPU_ACTIVATIONS_H

#include "longconv.h"
#include "vector.h"

namespace longconv {
namespace LONGCONV_ISA {

template <typename T>
struct Constants;

template <>
struct Constants<float> {
    using Integer = int32_t;
    static constexpr int kMantissa = 23, kBias = 127;
    static constexpr float kLeast = -105, kMost = 90;  // beyond them e^x is 0 and infinite
    static constexpr float kRound = 12582912;          // 1.5 2^23: added, it leaves a whole number in the low bits
    static constexpr float kLogHigh = 0.693359375f, kLogLow = -2.12194440e-4f;
    static constexpr float kExp[] = {0.5000000013f,   0.1666666668f,   0.04166646501f,
                                     0.008333310934f, 0.001393364103f, 0.0001989098087f};  // (e^r - 1 - r) / r^2
    static constexpr float kTail[] = {0.7552851383f,    -0.6078966183f,   0.3871366841f,  -0.1865226849f,
                                      0.06040668873f,   -0.007529250703f, -0.0035261837f, 0.001572317879f,
                                      0.0002012617303f, -0.0001201844011f};
};

template <>
struct Constants<double> {
    using Integer = int64_t;
    static constexpr int kMantissa = 52, kBias = 1023;
    static constexpr double kLeast = -746, kMost = 710;
    static constexpr double kRound = 6755399441055744;  // 1.5 2^52
    static constexpr double kLogHigh = 6.93145751953125e-1, kLogLow = 1.42860682030941723212e-6;
    static constexpr double kExp[] = {
        0.5,
        0.16666666666666671,
        0.0416666666666666698,
        0.00833333333332614088,
        0.00138888888888837524,
        0.00019841269874800492,
        0.0000248015873255333638,
        2.75572554257464343e-6,
        2.75572736613486362e-7,
        2.51052063739570111e-8,
        2.09146793765839351e-9,
    };
    static constexpr double kTail[] = {
        0.755285130415751263,   -0.607896641971888423,    0.387137400742275516,    -0.186521857960003611,
        0.0603965748882231068,  -0.00754018895734168225,  -0.00347969231943364361, 0.00163081834327003592,
        0.00013334387008093189, -0.000231094186184901957, -1.90584172625740883e-6, 0.0000351418188409274504,
        7.08331832245757946e-7, -5.9135917841880871e-6,   -6.11081242080093595e-7, 1.0127911412131875e-6,
        2.44999746792789301e-7, -1.49267813017952552e-7,  -6.14980045234887023e-8, 1.31732329005202318e-8,
        7.68396622746562168e-9,
    };
};

template <typename T, int N>
struct Activations {
    using V = Vector<T, N>;
    using C = Constants<T>;
    using I = Vector<typename C::Integer, N>;

    template <int kCount>
    static inline V polynomial(const T (&coefficients)[kCount], V x) {
        V sum = V{} + coefficients[kCount - 1];
#pragma GCC unroll 32
        for (int i = kCount - 2; i >= 0; --i) sum = sum * x + coefficients[i];
        return sum;
    }

    struct Power {
        V p, half, rest;  // e^x = (1 + p) half rest: two factors, for 2^n alone may be no number

        V value() const { return (p * half + half) * rest; }
        V minus_one() const { return p * (half * rest) + (half * rest - T(1)); }
    };

    static inline V two_to(I n) { return reinterpret_cast<V>((n + C::kBias) << C::kMantissa); }

    // NaN stays NaN: every comparison with it is false.
    static inline Power exp(V x) {
        x = x < C::kLeast ? V{} + C::kLeast : x;
        x = x > C::kMost ? V{} + C::kMost : x;
        const V shifted = x * T(1.442695040888963407) + C::kRound;
        const V n = shifted - C::kRound;
        const I whole = reinterpret_cast<I>(shifted) - reinterpret_cast<I>(V{} + C::kRound);
        const V r = (x - n * C::kLogHigh) - n * C::kLogLow;
        const I half = whole >> 1;
        return {r + r * r * polynomial(C::kExp, r), two_to(half), two_to(whole - half)};
    }

    static inline V sigmoid(V z) { return T(1) / (exp(-z).value() + T(1)); }

    static inline V tanh(V z) {
        V size = z < 0 ? -z : z;
        size = size > T(20) ? V{} + T(20) : size;
        const V e = exp(size + size).minus_one();
        const V y = e / (e + T(2));
        return z < 0 ? -y : y;
    }

    struct Normal {
        V distribution, density;
    };
    static inline Normal normal(V z) {
        V t = z < 0 ? -z : z;
        t = t > T(40) ? V{} + T(40) : t;
        const V e = exp(t * t * T(-0.5)).value(), over = T(1) / (t + T(4));
        const V tail = e * over * polynomial(C::kTail, (t - T(4)) * over);
        return {z < 0 ? tail : T(1) - tail, e * T(0.39894228040143267794)};
    }

    template <int kActivation>
    static inline V value(V z) {
        if constexpr (kActivation == LONGCONV_SILU)
            return z * sigmoid(z);
        else if constexpr (kActivation == LONGCONV_GELU)
            return z * normal(z).distribution;
        else if constexpr (kActivation == LONGCONV_RELU)
            return z < 0 ? V{} : z;
        else if constexpr (kActivation == LONGCONV_TANH)
            return tanh(z);
        else if constexpr (kActivation == LONGCONV_SIGMOID)
            return sigmoid(z);
        else
            return z;
    }

    template <int kActivation>
    static inline V slope(V z) {
        if constexpr (kActivation == LONGCONV_SILU) {
            const V s = sigmoid(z);
            return s + z * s * (T(1) - s);
        } else if constexpr (kActivation == LONGCONV_GELU) {
            const Normal n = normal(z);
            return n.distribution + z * n.density;
        } else if constexpr (kActivation == LONGCONV_RELU) {
            return z > 0 ? V{} + T(1) : V{};
        } else if constexpr (kActivation == LONGCONV_TANH) {
            const V y = tanh(z);
            return (T(1) - y) * (T(1) + y);
        } else if constexpr (kActivation == LONGCONV_SIGMOID) {
            const V s = sigmoid(z);
            return s * (T(1) - s);
        } else {
            return V{} + T(1);
        }
    }
};

// run(activation), the activation a constant.
template <int kActivation>
struct ActivationIndex {
    constexpr operator int() const { return kActivation; }
};
template <typename F>
inline void with_activation(int activation, const F& run) {
    switch (activation) {
        case LONGCONV_NONE:
            return run(ActivationIndex<LONGCONV_NONE>{});
        case LONGCONV_SILU:
            return run(ActivationIndex<LONGCONV_SILU>{});
        case LONGCONV_GELU:
            return run(ActivationIndex<LONGCONV_GELU>{});
        case LONGCONV_RELU:
            return run(ActivationIndex<LONGCONV_RELU>{});
        case LONGCONV_TANH:
            return run(ActivationIndex<LONGCONV_TANH>{});
        case LONGCONV_SIGMOID:
            return run(ActivationIndex<LONGCONV_SIGMOID>{});
    }
}

}  // namespace LONGCONV_ISA
}  // namespace longconv

#endif
