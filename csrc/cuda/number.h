// Numbers of the kernels: conversions between the formats, complex numbers, roots of unity.

#ifndef LONGCONV_CUDA_NUMBER_H
#define LONGCONV_CUDA_NUMBER_H

#include <stdint.h>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define LONGCONV_DEVICE __device__ __forceinline__
#define LONGCONV_BOTH __host__ __device__ inline
#define LONGCONV_UNROLL _Pragma("unroll")
#else
#include <cmath>
#include <cstring>
#define LONGCONV_DEVICE inline
#define LONGCONV_BOTH inline
#define LONGCONV_UNROLL
#endif

namespace longconv {

#ifdef __CUDACC__

LONGCONV_DEVICE uint32_t bits_of(float x) {
    return __float_as_uint(x);
}
LONGCONV_DEVICE float float_of(uint32_t bits) {
    return __uint_as_float(bits);
}
LONGCONV_DEVICE float from_half(uint16_t bits) {
    return __half2float(__ushort_as_half(bits));
}
LONGCONV_DEVICE float from_bfloat(uint16_t bits) {
    return float_of(static_cast<uint32_t>(bits) << 16);
}
LONGCONV_DEVICE uint16_t to_half(float x) {
    return __half_as_ushort(__float2half_rn(x));
}
LONGCONV_DEVICE uint16_t to_bfloat(float x) {
    return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
LONGCONV_DEVICE uint32_t half_pair(float low, float high) {
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
}
LONGCONV_DEVICE float to_tf32(float x) {
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return float_of(bits);
}
LONGCONV_DEVICE void sine_cosine(double half_turns, double* sine, double* cosine) {
    sincospi(half_turns, sine, cosine);
}
LONGCONV_DEVICE void sine_cosine_of(double angle, double* sine, double* cosine) {
    sincos(angle, sine, cosine);
}
LONGCONV_DEVICE double exponential(double x) {
    return exp(x);
}

#else

LONGCONV_DEVICE uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof(bits));
    return bits;
}
LONGCONV_DEVICE float float_of(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof(x));
    return x;
}
LONGCONV_DEVICE float from_half(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
    const float sign = bits & 0x8000 ? -1.f : 1.f;
    if (exponent == 31) return fraction ? NAN : sign * INFINITY;
    return sign *
           std::ldexp(static_cast<float>(exponent ? fraction | 0x400 : fraction), (exponent ? exponent : 1) - 25);
}
LONGCONV_DEVICE float from_bfloat(uint16_t bits) {
    return float_of(static_cast<uint32_t>(bits) << 16);
}
// To nearest, ties to even.
LONGCONV_DEVICE uint16_t to_half(float x) {
    const uint16_t sign = static_cast<uint16_t>(bits_of(x) >> 16 & 0x8000);
    const float size = std::fabs(x);
    if (!(size == size)) return 0x7fff;
    if (size >= 65520.f) return sign | 0x7c00;
    int exponent = 0;
    std::frexp(size, &exponent);
    if (exponent < -13 || size == 0) exponent = -13;  // denormals have the step of the least normal numbers
    const long steps = std::lrint(std::ldexp(size, 11 - exponent));
    return static_cast<uint16_t>(sign | (((exponent + 13) << 10) + steps));
}
LONGCONV_DEVICE uint16_t to_bfloat(float x) {
    const uint32_t bits = bits_of(x);
    if (!(x == x)) return 0x7fff;
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
LONGCONV_DEVICE uint32_t half_pair(float low, float high) {
    return to_half(low) | static_cast<uint32_t>(to_half(high)) << 16;
}
// To nearest with ties away from zero, 10 bits after the point.
LONGCONV_DEVICE float to_tf32(float x) {
    return std::isfinite(x) ? float_of((bits_of(x) + 0x1000) & ~0x1fffu) : x;
}
LONGCONV_DEVICE void sine_cosine(double half_turns, double* sine, double* cosine) {
    *sine = std::sin(half_turns * 3.14159265358979323846);
    *cosine = std::cos(half_turns * 3.14159265358979323846);
}
LONGCONV_DEVICE void sine_cosine_of(double angle, double* sine, double* cosine) {
    *sine = std::sin(angle);
    *cosine = std::cos(angle);
}
LONGCONV_DEVICE double exponential(double x) {
    return std::exp(x);
}

#endif

template <typename T>
struct ComplexOf {
    T re, im;
};
using Complex = ComplexOf<float>;

template <typename T>
LONGCONV_DEVICE ComplexOf<T> operator+(ComplexOf<T> a, ComplexOf<T> b) {
    return {a.re + b.re, a.im + b.im};
}
template <typename T>
LONGCONV_DEVICE ComplexOf<T> operator-(ComplexOf<T> a, ComplexOf<T> b) {
    return {a.re - b.re, a.im - b.im};
}
template <typename T>
LONGCONV_DEVICE ComplexOf<T> operator*(ComplexOf<T> a, ComplexOf<T> b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
template <typename T>
LONGCONV_DEVICE ComplexOf<T> conjugate(ComplexOf<T> a) {
    return {a.re, -a.im};
}

// s + a b, by multiply-adds alone; of complex factors the real part if s is real.
template <typename T>
LONGCONV_DEVICE T plus_product(T s, T a, T b) {
    return s + a * b;
}
template <typename T>
LONGCONV_DEVICE T plus_product(T s, ComplexOf<T> a, ComplexOf<T> b) {
    return (s + a.re * b.re) - a.im * b.im;
}
template <typename T>
LONGCONV_DEVICE ComplexOf<T> plus_product(ComplexOf<T> s, T a, ComplexOf<T> b) {
    return {s.re + a * b.re, s.im + a * b.im};
}
template <typename T>
LONGCONV_DEVICE ComplexOf<T> plus_product(ComplexOf<T> s, ComplexOf<T> a, ComplexOf<T> b) {
    return {(s.re + a.re * b.re) - a.im * b.im, (s.im + a.re * b.im) + a.im * b.re};
}

// What code for real and for complex numbers V asks of them.
template <typename V>
struct Parts {
    using Real = V;
    static constexpr int kCount = 1;
};
template <typename T>
struct Parts<ComplexOf<T>> {
    using Real = T;
    static constexpr int kCount = 2;
};
template <typename V>
using RealOf = typename Parts<V>::Real;

template <typename T>
LONGCONV_DEVICE T real_part(T a) {
    return a;
}
template <typename T>
LONGCONV_DEVICE T real_part(ComplexOf<T> a) {
    return a.re;
}
template <typename T>
LONGCONV_DEVICE T imaginary_part(T) {
    return 0;
}
template <typename T>
LONGCONV_DEVICE T imaginary_part(ComplexOf<T> a) {
    return a.im;
}
template <typename V>
LONGCONV_DEVICE bool is_finite(V a) {
    return real_part(a) - real_part(a) == 0 && imaginary_part(a) - imaginary_part(a) == 0;
}
// A number V; of a real one only the real part counts.
template <typename V, typename T>
LONGCONV_DEVICE V number(T re, T im) {
    using Real = RealOf<V>;
    if constexpr (Parts<V>::kCount == 2)
        return {static_cast<Real>(re), static_cast<Real>(im)};
    else
        return static_cast<Real>(re);
}
// The same number in another precision, or as a complex one.
template <typename V, typename W>
LONGCONV_DEVICE V converted(W a) {
    return number<V>(real_part(a), imaginary_part(a));
}

// exp(-2 pi i numerator / denominator), reduced exactly before it is taken in double precision.
LONGCONV_DEVICE Complex root(int64_t numerator, int64_t denominator, double scale = 1) {
    const int64_t rest = numerator % denominator;
    double sine, cosine;
    sine_cosine(2.0 * static_cast<double>(rest) / static_cast<double>(denominator), &sine, &cosine);
    return {static_cast<float>(scale * cosine), static_cast<float>(-scale * sine)};
}

// The power of two at or below a magnitude, from 2^-119 on; 1 for zero. Its inverse is exact, and 128 times that
// finite. Spectra that go to memory aren't divided by it: they and products of two of them are to be floats.
LONGCONV_DEVICE float power_below(float magnitude) {
    int exponent = static_cast<int>(bits_of(magnitude) >> 23 & 255);
    if (magnitude == 0) return 1;
    exponent = exponent < 8 ? 8 : exponent > 254 ? 254 : exponent;
    return float_of(static_cast<uint32_t>(exponent) << 23);
}

// A factor that may be beyond the range of floats, of which numbers take one part and then the other.
struct Factor {
    float first, second;

    LONGCONV_DEVICE Factor(float all) : first(all), second(1) {}
    LONGCONV_DEVICE Factor(float one, float other) : first(one), second(other) {}
    friend LONGCONV_DEVICE float operator*(float v, const Factor& by) { return v * by.first * by.second; }
};

// The product of two numbers of power_below, times `by`: powers of two of about its root, both at most or at least
// 1, so that no number leaves the range on its way to one that is within.
LONGCONV_DEVICE Factor product_of_powers(float a, float b, float by) {
    const uint32_t exponents = (bits_of(a) >> 23) + (bits_of(b) >> 23), half = exponents / 2;
    return {by * float_of(half << 23), float_of((exponents - half) << 23)};
}

// Times exp(-2 pi i eighths / 8), or its conjugate.
template <bool kInverse>
LONGCONV_DEVICE Complex rotate(Complex v, int eighths) {
    constexpr float kHalfRoot = 0.70710678118654752f, s = kInverse ? -1.f : 1.f;
    switch (eighths) {
        case 1:
            return {kHalfRoot * (v.re + s * v.im), kHalfRoot * (v.im - s * v.re)};
        case 2:
            return {s * v.im, -s * v.re};
        case 3:
            return {kHalfRoot * (s * v.im - v.re), kHalfRoot * (-s * v.re - v.im)};
    }
    return v;
}

// The transform of R <= 8 points, in order.
template <bool kInverse, int R>
LONGCONV_DEVICE void transform_in_lane(Complex (&v)[R]) {
    if constexpr (R > 1) {
        Complex even[R / 2], odd[R / 2];
        LONGCONV_UNROLL
        for (int j = 0; j < R / 2; ++j) even[j] = v[2 * j], odd[j] = v[2 * j + 1];
        transform_in_lane<kInverse>(even);
        transform_in_lane<kInverse>(odd);
        LONGCONV_UNROLL
        for (int j = 0; j < R / 2; ++j) {
            const Complex other = rotate<kInverse>(odd[j], j * 8 / R);
            v[j] = even[j] + other, v[j + R / 2] = even[j] - other;
        }
    }
}

}  // namespace longconv

#endif
