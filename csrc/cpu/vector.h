// Vectors of the instruction set in use, by the vector extensions of GCC and Clang: included by the ISA sources alone.

#ifndef LONGCONV_CPU_VECTOR_H
#define LONGCONV_CPU_VECTOR_H

#include <stdint.h>

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

template <int... I>
struct Indices {};
template <int N, int... I>
struct MakeIndices : MakeIndices<N - 1, N - 1, I...> {};
template <int... I>
struct MakeIndices<0, I...> {
    using type = Indices<I...>;
};

// Lane i of the interleaving of a and b in groups of G lanes, from lane `start` of each.
template <int N, int G>
constexpr int interleaved(int i, int start) {
    const int group = i / G;
    return (group % 2) * N + start + (group / 2) * G + i % G;
}

template <int G, typename T, int N, int... I>
inline void interleave(Vector<T, N>& low, Vector<T, N>& high, const Vector<T, N> a, const Vector<T, N> b,
                       Indices<I...>) {
    low = __builtin_shufflevector(a, b, interleaved<N, G>(I, 0)...);
    high = __builtin_shufflevector(a, b, interleaved<N, G>(I, N / 2)...);
}

}  // namespace LONGCONV_ISA
}  // namespace longconv

#endif
