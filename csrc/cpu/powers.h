// Complex numbers in double precision, a vector of real parts and one of imaginary parts: exponentials, powers, and how
// they are read from tensors of any element type. Included by the ISA sources alone.

#ifndef LONGCONV_CPU_POWERS_H
#define LONGCONV_CPU_POWERS_H

#include "fft_codelets.h"
#include "longconv.h"

namespace longconv {
namespace LONGCONV_ISA {

constexpr int kDoubles = kVectorBytes / sizeof(double);
using Doubles = Vector<double, kDoubles>;
using Integers = Vector<int64_t, kDoubles>;
using Wide = Complex<double, kDoubles>;  // in memory: 2 kDoubles numbers

LONGCONV_INLINE Wide times(const Wide& a, const Wide& b) {
    return a.times(b.re, b.im);
}

inline bool is_complex(int32_t element) {
    return element == LONGCONV_COMPLEX64 || element == LONGCONV_COMPLEX128;
}

inline void get(const LongconvNumbers& from, int64_t at, double& re, double& im) {
    im = 0;
    switch (from.element) {
        case LONGCONV_FLOAT32:
            re = static_cast<const float*>(from.data)[at];
            return;
        case LONGCONV_FLOAT64:
            re = static_cast<const double*>(from.data)[at];
            return;
        case LONGCONV_COMPLEX64:
            re = static_cast<const float*>(from.data)[2 * at], im = static_cast<const float*>(from.data)[2 * at + 1];
            return;
        default:
            re = static_cast<const double*>(from.data)[2 * at], im = static_cast<const double*>(from.data)[2 * at + 1];
    }
}

template <typename T>
inline void get_contiguous(double* re, double* im, const T* from, int64_t count, bool pairs) {
    if (pairs)
        for (int64_t i = 0; i < count; ++i) re[i] = from[2 * i], im[i] = from[2 * i + 1];
    else
        for (int64_t i = 0; i < count; ++i) re[i] = from[i], im[i] = 0;
}

// `count` numbers from one on, a step apart.
inline void get_all(double* re, double* im, const LongconvNumbers& from, int64_t at, int64_t count) {
    const bool pairs = is_complex(from.element);
    if (from.step != 1)
        for (int64_t i = 0; i < count; ++i) get(from, at + i * from.step, re[i], im[i]);
    else if (from.element == LONGCONV_FLOAT32 || from.element == LONGCONV_COMPLEX64)
        get_contiguous(re, im, static_cast<const float*>(from.data) + (pairs ? 2 : 1) * at, count, pairs);
    else
        get_contiguous(re, im, static_cast<const double*>(from.data) + (pairs ? 2 : 1) * at, count, pairs);
}

// A real element takes the real part.
inline void put(const LongconvNumbers& to, int64_t at, double re, double im) {
    switch (to.element) {
        case LONGCONV_FLOAT32:
            static_cast<float*>(to.data)[at] = static_cast<float>(re);
            return;
        case LONGCONV_FLOAT64:
            static_cast<double*>(to.data)[at] = re;
            return;
        case LONGCONV_COMPLEX64:
            static_cast<float*>(to.data)[2 * at] = static_cast<float>(re);
            static_cast<float*>(to.data)[2 * at + 1] = static_cast<float>(im);
            return;
        default:
            static_cast<double*>(to.data)[2 * at] = re, static_cast<double*>(to.data)[2 * at + 1] = im;
    }
}

// ---- exponentials, to about an ulp; NaN and infinities as in <math.h>

constexpr double kRound = 6755399441055744.0;  // 1.5 2^52: a sum with it is rounded to an integer, its last bits

inline Doubles exponential(Doubles x) {
    constexpr double kLog2e = 1.4426950408889634074, kHigh = 6.93147180369123816490e-01;
    constexpr double kLow = 1.90821492927058770002e-10;
    constexpr double kTaylor[] = {
        1. / 6227020800, 1. / 479001600, 1. / 39916800, 1. / 3628800, 1. / 362880, 1. / 40320, 1. / 5040,
        1. / 720,        1. / 120,       1. / 24,       1. / 6,       1. / 2,      1.,         1.};
    x = x < -760.0 ? Doubles{} - 760.0 : x;
    x = x > 760.0 ? Doubles{} + 760.0 : x;
    const Doubles shifted = x * kLog2e + kRound, k = shifted - kRound;
    const Doubles r = (x - k * kHigh) - k * kLow;
    Doubles sum = Doubles{} + kTaylor[0];
    for (int i = 1; i < 14; ++i) sum = sum * r + kTaylor[i];
    const Integers power = (Integers)shifted - (Integers)(Doubles{} + kRound), half = power >> 1;
    return sum * (Doubles)((half + 1023) << 52) * (Doubles)((power - half + 1023) << 52);
}

// exp(i x): the angle less the nearest multiple of pi / 2, in three parts, and the polynomials of fdlibm.
inline Wide unit(const Doubles x) {
    constexpr double kFirst = 1.57079632673412561417e+00, kSecond = 6.07710050630396597660e-11;
    constexpr double kThird = 2.02226624871116645580e-21, kTwoOverPi = 6.36619772367581382433e-01;
    constexpr double S[] = {1.58969099521155010221e-10,  -2.50507602534068634195e-08, 2.75573137070700676789e-06,
                            -1.98412698298579493134e-04, 8.33333333332248946124e-03,  -1.66666666666666324348e-01};
    constexpr double C[] = {-1.13596475577881948265e-11, 2.08757232129817482790e-09,  -2.75573143513906633035e-07,
                            2.48015872894767294178e-05,  -1.38888888888741095749e-03, 4.16666666666666019037e-02};
    const Doubles shifted = x * kTwoOverPi + kRound, k = shifted - kRound;
    const Doubles r = ((x - k * kFirst) - k * kSecond) - k * kThird, z = r * r;
    Doubles s = Doubles{} + S[0], c = Doubles{} + C[0];
    for (int i = 1; i < 6; ++i) s = s * z + S[i], c = c * z + C[i];
    s = r + r * z * s;
    c = 1.0 - 0.5 * z + z * z * c;
    const Integers quarter = (Integers)shifted;
    const Integers odd = (quarter & 1) == 1;
    Wide result = {odd ? s : c, odd ? c : s};
    result.re = ((quarter + 1) & 2) == 2 ? -result.re : result.re;
    result.im = (quarter & 2) == 2 ? -result.im : result.im;
    for (int i = 0; i < kDoubles; ++i)
        if (!(__builtin_fabs(x[i]) < 1e6)) result.re[i] = __builtin_cos(x[i]), result.im[i] = __builtin_sin(x[i]);
    return result;
}

inline Wide exponential(const Wide& x) {
    const Doubles size = exponential(x.re);
    const Wide direction = unit(x.im);
    return {size * direction.re, size * direction.im};
}

inline Wide power(Wide x, int64_t exponent) {
    Wide result = {Doubles{} + 1.0, Doubles{}};
    for (; exponent > 0; exponent >>= 1, x = times(x, x))
        if (exponent & 1) result = times(result, x);
    return result;
}

// The lanes 1, x, x^2, ... of one number x, from x^(2^bit) in lane i of squares[bit].
inline Wide lane_powers(const Wide* squares, int i) {
    Wide result = {Doubles{} + 1.0, Doubles{}};
    for (int bit = 0; 1 << bit < kDoubles; ++bit) {
        Integers chosen;
        for (int lane = 0; lane < kDoubles; ++lane) chosen[lane] = -(lane >> bit & 1);
        const Doubles re = Doubles{} + squares[bit].re[i], im = Doubles{} + squares[bit].im[i];
        result = times(result, {chosen ? re : Doubles{} + 1.0, chosen ? im : Doubles{}});
    }
    return result;
}

// The nearest numbers of T; those below its normal range become 0, for arithmetic with them is slow.
template <typename T>
LONGCONV_INLINE Vector<T, kDoubles> rounded(const Doubles x) {
    constexpr T kLeast = sizeof(T) == 4 ? T(1.17549435e-38) : T(2.2250738585072014e-308);
    const auto y = __builtin_convertvector(x, Vector<T, kDoubles>);
    return (y < 0 ? -y : y) < kLeast ? Vector<T, kDoubles>{} : y;
}

template <typename T>
LONGCONV_INLINE void store_rounded(T* to, const Doubles x) {
    const Vector<T, kDoubles> y = rounded<T>(x);
    __builtin_memcpy(to, &y, sizeof(y));
}

template <typename T>
LONGCONV_INLINE Doubles load_wide(const T* from) {
    Vector<T, kDoubles> x;
    __builtin_memcpy(&x, from, sizeof(x));
    return __builtin_convertvector(x, Doubles);
}

}  // namespace LONGCONV_ISA
}  // namespace longconv

#endif
