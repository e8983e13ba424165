// Rows as they lie in memory, in vectors of the arithmetic: 16-bit floating-point numbers are computed in float.
// Included by the ISA sources alone.

#ifndef LONGCONV_CPU_ELEMENT_H
#define LONGCONV_CPU_ELEMENT_H

#include "longconv.h"
#include "vector.h"

namespace longconv {
namespace LONGCONV_ISA {

struct Bfloat16 {
    uint16_t bits;
};
struct Float16 {
    uint16_t bits;
};

// Vectors of N float and their bits.
template <int N>
struct Bits {
    using F = Vector<float, N>;
    using U = Vector<uint32_t, N>;
    using Half = Vector<uint16_t, N>;

    static inline U of(const F& value) { return reinterpret_cast<U>(value); }
    static inline F to(const U& bits) { return reinterpret_cast<F>(bits); }
    static inline U choose(const U& condition, const U& yes, const U& no) {
        return (condition & yes) | (~condition & no);
    }

    static inline F widen(Bfloat16, const Half& h) { return to(__builtin_convertvector(h, U) << 16); }

    // To nearest, ties to even; a NaN stays one, quiet.
    static inline Half narrow(Bfloat16, const F& value) {
        const U x = of(value), rounded = (x + 0x7fff + ((x >> 16) & 1)) >> 16;
        const U nan = reinterpret_cast<U>((x & 0x7fffffff) > 0x7f800000);
        return __builtin_convertvector(choose(nan, (x >> 16) | 0x40, rounded), Half);
    }

    // The exponent is moved; that of infinities and NaN once more, and denormals are normalised by a subtraction.
    static inline F widen(Float16, const Half& h) {
        const U x = __builtin_convertvector(h, U), sign = (x & 0x8000) << 16;
        const U shifted = (x & 0x7fff) << 13, exponent = shifted & 0x0f800000, moved = shifted + 0x38000000;
        const U special = reinterpret_cast<U>(exponent == 0x0f800000), small = reinterpret_cast<U>(exponent == 0);
        const U least = {};
        const U normal = of(to(moved + 0x00800000) - to(least + 0x38800000));
        return to(sign | choose(small, normal, moved + (special & 0x38000000)));
    }

    // To nearest, ties to even: adding 1/2 (for a denormal) or half a unit does it. A NaN stays one, quiet.
    static inline Half narrow(Float16, const F& value) {
        const U x = of(value), magnitude = x & 0x7fffffff, zero = {};
        const U large = reinterpret_cast<U>(magnitude >= 0x47800000), nan = reinterpret_cast<U>(magnitude > 0x7f800000);
        const U small = reinterpret_cast<U>(magnitude < 0x38800000);
        const U denormal = of(to(magnitude) + to(zero + 0x3f000000)) - 0x3f000000;
        const U normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
        const U special = 0x7c00 + (nan & (0x200 | ((magnitude >> 13) & 0x3ff)));
        return __builtin_convertvector(choose(large, special, choose(small, denormal, normal)) | (x >> 16 & 0x8000),
                                       Half);
    }
};

// N numbers that are stored as S, in the arithmetic of T.
template <typename S, typename T, int N>
struct Element {
    static inline Vector<T, N> load(const S* from) {
        Vector<uint16_t, N> bits;
        __builtin_memcpy(&bits, from, sizeof(bits));
        return Bits<N>::widen(S{}, bits);
    }
    static inline void store(S* to, const Vector<T, N>& value) {
        const Vector<uint16_t, N> bits = Bits<N>::narrow(S{}, value);
        __builtin_memcpy(to, &bits, sizeof(bits));
    }
};

template <typename T, int N>
struct Element<T, T, N> {
    static inline Vector<T, N> load(const T* from) {
        Vector<T, N> value;
        __builtin_memcpy(&value, from, sizeof(value));
        return value;
    }
    static inline void store(T* to, const Vector<T, N>& value) { __builtin_memcpy(to, &value, sizeof(value)); }
};

#if defined(__AVX512F__)
template <>
struct Element<Float16, float, 16> {
    static inline Vector<float, 16> load(const Float16* from) {
        return _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    }
    static inline void store(Float16* to, const Vector<float, 16>& value) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                            _mm512_maskz_cvtps_ph(0xffff, value, _MM_FROUND_TO_NEAREST_INT));
    }
};
#endif
#if defined(__F16C__)
template <>
struct Element<Float16, float, 8> {
    static inline Vector<float, 8> load(const Float16* from) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    }
    static inline void store(Float16* to, const Vector<float, 8>& value) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
    }
};
#endif

// The numbers row[0 .. valid), then zeros, a vector at a time.
template <typename S, typename T, int N>
struct Reader {
    const S* row;
    int64_t valid;
    S edge[2 * N] = {};  // the last numbers of a row that doesn't end with a vector, and a vector of zeros

    Reader(const S* data, int64_t count) : row(data), valid(count) {
        const int64_t whole = valid / N * N;
        for (int64_t n = whole; n < valid; ++n) edge[n - whole] = row[n];
    }
    inline Vector<T, N> operator()(int64_t n) const {
        return Element<S, T, N>::load(n + N <= valid ? row + n : edge + (n < valid ? 0 : N));
    }
};

// Numbers for row[0 .. valid), a vector at a time; those beyond are dropped. `past`: past the caches if possible.
template <typename S, typename T, int N>
struct Writer {
    S* row;
    int64_t valid;
    bool streams;
    mutable S edge[2 * N];

    Writer(S* data, int64_t count, bool past = false)
        : row(data), valid(count), streams(past && sizeof(S) == sizeof(T) && is_aligned(data, sizeof(Vector<T, N>))) {}
    inline void operator()(int64_t n, const Vector<T, N>& value) const {
        if (streams && n + N <= valid) return stream(row + n, value);
        Element<S, T, N>::store(n + N <= valid ? row + n : edge + (n < valid ? 0 : N), value);
    }
    // What did not fill a vector, and zeros up to length.
    void finish(int64_t length) const {
        const int64_t whole = valid / N * N;
        for (int64_t n = whole; n < valid; ++n) row[n] = edge[n - whole];
        __builtin_memset(static_cast<void*>(row + valid), 0, (length - valid) * sizeof(S));
    }
};

}  // namespace LONGCONV_ISA
}  // namespace longconv

#endif
