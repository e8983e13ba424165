// h[t] = a[t] h[t - 1] + b[t] along one axis: every lane (a number at one time) is scanned from the first time to the
// last, with its state in double precision, so that every number is read and written once and its error is a rounding.

#include "kernels.h"
#include "vector.h"

namespace longconv {
namespace LONGCONV_ISA {
namespace {

// Numbers are Real or pairs of them; kParts of Real make up one.
template <typename RealType, int kPartsOfNumber>
struct Number {
    using Real = RealType;
    static constexpr int kParts = kPartsOfNumber;
};

template <int N, int... I>
inline Vector<double, N> even(const Vector<double, N> v, Indices<I...>) {
    return __builtin_shufflevector(v, v, (I & ~1)...);
}
template <int N, int... I>
inline Vector<double, N> odd(const Vector<double, N> v, Indices<I...>) {
    return __builtin_shufflevector(v, v, (I | 1)...);
}
template <int N, int... I>
inline Vector<double, N> swapped(const Vector<double, N> v, Indices<I...>) {
    return __builtin_shufflevector(v, v, (I ^ 1)...);
}
template <int N, int... I>
inline Vector<double, N> signs(Indices<I...>) {
    return Vector<double, N>{(I % 2 ? 1.0 : -1.0)...};
}

// a s + b, for complex numbers as pairs.
template <int kParts, int N>
inline Vector<double, N> step(const Vector<double, N> a, const Vector<double, N> s, const Vector<double, N> b) {
    if constexpr (kParts == 1) {
        return a * s + b;
    } else {
        using All = typename MakeIndices<N>::type;
        return even<N>(a, All{}) * s + odd<N>(a, All{}) * (swapped<N>(s, All{}) * signs<N>(All{})) + b;
    }
}

template <typename Real, int N>
inline Vector<double, N> load(const Real* from) {
    Vector<Real, N> v;
    __builtin_memcpy(&v, from, sizeof(v));
    return __builtin_convertvector(v, Vector<double, N>);
}

// The one number at from in all lanes.
template <typename Real, int kParts, int N>
inline Vector<double, N> spread(const Real* from) {
    Vector<double, N> v;
    for (int i = 0; i < N; ++i) v[i] = from[i % kParts];
    return v;
}

// Lanes: pointers to the first of them at the first time; strides from one time to the next, in Real.
template <typename Real>
struct Lanes {
    Real* h;
    const Real *a, *b, *initial;
    int64_t h_time, a_time, b_time;
};

// V vectors of neighbouring lanes. A stride of 0 from lane to lane is told by kOneA.
template <typename T, int V, bool kOneA>
void vectors(Lanes<typename T::Real> p, int64_t length) {
    using Real = typename T::Real;
    constexpr int N = kVectorBytes / sizeof(double);
    Vector<double, N> s[V];
    for (int v = 0; v < V; ++v) s[v] = p.initial ? load<Real, N>(p.initial + v * N) : Vector<double, N>{};
    for (int64_t t = 0; t < length; ++t) {
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            const auto a = kOneA ? spread<Real, T::kParts, N>(p.a) : load<Real, N>(p.a + v * N);
            s[v] = step<T::kParts, N>(a, s[v], load<Real, N>(p.b + v * N));
            const auto rounded = __builtin_convertvector(s[v], Vector<Real, N>);
            __builtin_memcpy(p.h + v * N, &rounded, sizeof(rounded));
        }
        p.h += p.h_time, p.a += p.a_time, p.b += p.b_time;
    }
}

// Any number of vectors up to kRow: their states lie in the innermost cache, and memory is read row by row.
constexpr int kRow = 128;

template <typename T, bool kOneA>
void row(Lanes<typename T::Real> p, int64_t length, int count) {
    using Real = typename T::Real;
    constexpr int N = kVectorBytes / sizeof(double);
    Vector<double, N> s[kRow];
    for (int v = 0; v < count; ++v) s[v] = p.initial ? load<Real, N>(p.initial + v * N) : Vector<double, N>{};
    for (int64_t t = 0; t < length; ++t) {
        const auto one = spread<Real, T::kParts, N>(p.a);
#pragma GCC unroll 4
        for (int v = 0; v < count; ++v) {
            s[v] = step<T::kParts, N>(kOneA ? one : load<Real, N>(p.a + v * N), s[v], load<Real, N>(p.b + v * N));
            const auto rounded = __builtin_convertvector(s[v], Vector<Real, N>);
            __builtin_memcpy(p.h + v * N, &rounded, sizeof(rounded));
        }
        p.h += p.h_time, p.a += p.a_time, p.b += p.b_time;
    }
}

// Up to kScalarLanes lanes at any strides, side by side, so that one does not wait for the other.
constexpr int kScalarLanes = 8;

template <typename T, int kLanes>
void scalars(Lanes<typename T::Real> p, int64_t length, const int64_t stride[4]) {
    constexpr int kParts = T::kParts;
    double s[kLanes][kParts];
    for (int j = 0; j < kLanes; ++j)
        for (int k = 0; k < kParts; ++k) s[j][k] = p.initial ? p.initial[j * stride[3] + k] : 0.0;
    for (int64_t t = 0; t < length; ++t) {
#pragma GCC unroll 8
        for (int j = 0; j < kLanes; ++j) {
            const auto *a = p.a + j * stride[1], *b = p.b + j * stride[2];
            auto* h = p.h + j * stride[0];
            if constexpr (kParts == 1) {
                s[j][0] = a[0] * s[j][0] + b[0];
                h[0] = static_cast<typename T::Real>(s[j][0]);
            } else {
                const double re = a[0] * s[j][0] - a[1] * s[j][1] + b[0], im = a[0] * s[j][1] + a[1] * s[j][0] + b[1];
                s[j][0] = re, s[j][1] = im;
                h[0] = static_cast<typename T::Real>(re), h[1] = static_cast<typename T::Real>(im);
            }
        }
        p.h += p.h_time, p.a += p.a_time, p.b += p.b_time;
    }
}

template <typename T>
struct Blocks {
    using Real = typename T::Real;
    static constexpr int kVector = kVectorBytes / sizeof(double) / T::kParts;  // numbers

    const Scan& p;
    bool across;     // lanes lie across the outer axis, else along the inner one
    int64_t lanes;   // in a block
    int64_t blocks;  // along the axis of the lanes

    // The lane at (outer o, inner i), at the first time of the scan.
    Lanes<Real> at(int64_t o, int64_t i) const {
        const int64_t first = p.reverse ? p.length - 1 : 0, sign = p.reverse ? -1 : 1, k = T::kParts;
        const int64_t h_time = p.inner, a_time = p.a_stride[1], b_time = p.b_stride[1];
        return {reinterpret_cast<Real*>(p.h) + k * ((o * p.length + first) * p.inner + i),
                reinterpret_cast<const Real*>(p.a) + k * (o * p.a_stride[0] + first * a_time + i * p.a_stride[2]),
                reinterpret_cast<const Real*>(p.b) + k * (o * p.b_stride[0] + first * b_time + i * p.b_stride[2]),
                p.initial
                    ? reinterpret_cast<const Real*>(p.initial) + k * (o * p.initial_stride[0] + i * p.initial_stride[1])
                    : nullptr,
                sign * k * h_time,
                sign * k * a_time,
                sign * k * b_time};
    }

    void wide(const Lanes<Real>& lane, int count) const {
        if (p.a_stride[2] == 0)
            row<T, true>(lane, p.length, count);
        else
            row<T, false>(lane, p.length, count);
    }

    template <int V>
    void wide(const Lanes<Real>& lane) const {
        if (p.a_stride[2] == 0)
            vectors<T, V, true>(lane, p.length);
        else
            vectors<T, V, false>(lane, p.length);
    }

    void few(int64_t o, int64_t i, int64_t count) const {
        const int64_t k = T::kParts, axis = across ? 0 : 2;
        const int64_t stride[4] = {k * (across ? p.length * p.inner : 1), k * p.a_stride[axis], k * p.b_stride[axis],
                                   k * p.initial_stride[across ? 0 : 1]};
        while (count > 0) {
            const int64_t taken = count >= kScalarLanes ? kScalarLanes : count >= 2 ? 2 : 1;
            if (taken == kScalarLanes)
                scalars<T, kScalarLanes>(at(o, i), p.length, stride);
            else if (taken == 2)
                scalars<T, 2>(at(o, i), p.length, stride);
            else
                scalars<T, 1>(at(o, i), p.length, stride);
            (across ? o : i) += taken;
            count -= taken;
        }
    }

    void along_inner(int64_t o, int64_t i, int64_t count) const {
        const bool neighbours = p.b_stride[2] == 1 && (p.a_stride[2] == 1 || p.a_stride[2] == 0) &&
                                (!p.initial || p.initial_stride[1] == 1);
        if (neighbours) {
            while (count > 8 * kVector) {
                const int64_t some = count / kVector < kRow ? count / kVector : kRow;
                wide(at(o, i), static_cast<int>(some));
                i += some * kVector, count -= some * kVector;
            }
            for (; count >= 8 * kVector; i += 8 * kVector, count -= 8 * kVector) wide<8>(at(o, i));
            for (; count >= 4 * kVector; i += 4 * kVector, count -= 4 * kVector) wide<4>(at(o, i));
            for (; count >= 2 * kVector; i += 2 * kVector, count -= 2 * kVector) wide<2>(at(o, i));
            for (; count >= kVector; i += kVector, count -= kVector) wide<1>(at(o, i));
        }
        few(o, i, count);
    }

    void range(int64_t begin, int64_t end) const {
        for (int64_t block = begin; block < end; ++block) {
            const int64_t first = block % blocks * lanes, other = block / blocks;
            const int64_t all = across ? p.outer : p.inner;
            const int64_t count = all - first < lanes ? all - first : lanes;
            if (across)
                few(first, other, count);
            else
                along_inner(other, first, count);
        }
    }

    static void task(int64_t begin, int64_t end, void* context) {
        static_cast<const Blocks*>(context)->range(begin, end);
    }
};

template <typename T>
int32_t run(const Scan& p) {
    using B = Blocks<T>;
    B work{p, p.inner < B::kVector, kScalarLanes, 0};
    const int64_t all = work.across ? p.outer : p.inner, others = work.across ? p.inner : p.outer;
    if (!work.across) {  // whole rows, or parts of them where there would be too few for the threads
        work.lanes = kRow * B::kVector;
        while (work.lanes > 2 * B::kVector && others * ((all + work.lanes - 1) / work.lanes) < p.threads)
            work.lanes /= 2;
    }
    work.blocks = (all + work.lanes - 1) / work.lanes;
    const int64_t numbers = work.lanes * p.length;
    return parallel_for(others * work.blocks, numbers > 0 ? 16384 / numbers + 1 : 1, B::task, &work);
}

}  // namespace

int32_t linear_scan(const Scan& p, int32_t element) {
    switch (element) {
        case LONGCONV_FLOAT32:
            return run<Number<float, 1>>(p);
        case LONGCONV_FLOAT64:
            return run<Number<double, 1>>(p);
        case LONGCONV_COMPLEX64:
            return run<Number<float, 2>>(p);
        case LONGCONV_COMPLEX128:
            return run<Number<double, 2>>(p);
    }
    return LONGCONV_BAD_ELEMENT;
}

}  // namespace LONGCONV_ISA
}  // namespace longconv
