// Vectors of the instruction set in use, by the vector extensions of GCC and Clang: included by the ISA sources alone.

#ifndef LONGCONV_CPU_VECTOR_H
#define LONGCONV_CPU_VECTOR_H

#include <stdint.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace longconv {
namespace LONGCONV_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <typename T, int N>
struct VectorOf {
    typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <typename T, int N>
using Vector = typename VectorOf<T, N>::type;

// Past the caches, to an address that is aligned to the vector.
template <typename V>
inline void stream(void* to, const V& value) {
#if defined(__x86_64__)
    if constexpr (sizeof(V) == 16) return _mm_stream_si128(static_cast<__m128i*>(to), reinterpret_cast<__m128i>(value));
#if defined(__AVX2__)
    if constexpr (sizeof(V) == 32)
        return _mm256_stream_si256(static_cast<__m256i*>(to), reinterpret_cast<__m256i>(value));
#endif
#if defined(__AVX512F__)
    if constexpr (sizeof(V) == 64)
        return _mm512_stream_si512(static_cast<__m512i*>(to), reinterpret_cast<__m512i>(value));
#endif
#endif
    __builtin_memcpy(to, &value, sizeof(V));
}
inline bool is_aligned(const void* address, int64_t bytes) {
    return reinterpret_cast<uintptr_t>(address) % static_cast<uintptr_t>(bytes) == 0;
}
// After the last such store, so that other threads see them in order.
inline void finish_streams() {
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

template <int... I>
struct Indices {};
template <int N, int... I>
struct MakeIndices : MakeIndices<N - 1, N - 1, I...> {};
template <int... I>
struct MakeIndices<0, I...> {
    using type = Indices<I...>;
};

// Element i of the interleaving of a and b (N elements each) within every 16-byte lane of E elements, in groups of G:
// the low halves of both lanes for high = 0, the high halves for high = 1.
template <int N, int E, int G>
constexpr int interleaved(int i, int high) {
    const int lane = i / E * E, group = i % E / G;
    return group % 2 * N + lane + high * E / 2 + group / 2 * G + i % G;
}

template <int E, int G, typename T, int N, int... I>
inline void interleave(Vector<T, N>& low, Vector<T, N>& high, const Vector<T, N> a, const Vector<T, N> b,
                       Indices<I...>) {
    low = __builtin_shufflevector(a, b, interleaved<N, E, G>(I, 0)...);
    high = __builtin_shufflevector(a, b, interleaved<N, E, G>(I, 1)...);
}

template <typename T, int N, int... I>
inline Vector<T, 2 * N> join(const Vector<T, N> a, const Vector<T, N> b, Indices<I...>) {
    return __builtin_shufflevector(a, b, I...);
}

// The vector whose 16-byte lanes come from in, in + step, in + 2 step, ...
template <typename T, int N>
inline Vector<T, N> gather_lanes(const T* in, int64_t step) {
    if constexpr (N * sizeof(T) == 16) {
        Vector<T, N> lane;
        __builtin_memcpy(&lane, in, sizeof(lane));
        return lane;
    } else {
        constexpr int kHalf = N / 2;
        return join<T, kHalf>(gather_lanes<T, kHalf>(in, step),
                              gather_lanes<T, kHalf>(in + kHalf * sizeof(T) / 16 * step, step),
                              typename MakeIndices<N>::type{});
    }
}

}  // namespace LONGCONV_ISA
}  // namespace longconv

#endif
