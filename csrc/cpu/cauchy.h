// Sums of poles seen from a tile of neighbouring points, for csrc/cpu/cauchy.cpp and its gradients.
//
// With a tile's centre c and radius R, the poles far from it are taken together: with q = 1 / (w - c), s = R q and t =
// (z - c) / R,
//
//     1 / (z - w) = -q sum_k (s t)^k,    1 / (z - w)^2 = q^2 sum_k (k + 1) (s t)^k
//
// where k < terms, and |s| is so small that what is left out is less than a rounding. The near poles are taken one
// by one. How many terms there are, and so what is near, is what costs least. In double precision all poles are near.

#ifndef LONGCONV_CPU_CAUCHY_H
#define LONGCONV_CPU_CAUCHY_H

#include "kernels.h"
#include "powers.h"
#include "workers.h"

namespace longconv {
namespace LONGCONV_ISA {

constexpr int64_t kBlock = 64, kMostPoints = 256;  // a tile is of 1, 2 or 4 blocks of points
constexpr int64_t kList = 64;                      // poles whose sum is formed in the precision of the result
constexpr int kTerms = 20;                         // at most; 0.4^20 is 1e-8
constexpr double kBits = 26;                       // that the terms have to give

// Sums of the lanes.
template <typename T, int N, int... I>
LONGCONV_INLINE Vector<T, N / 2> half_sums(const Vector<T, N> x, Indices<I...>) {
    return __builtin_shufflevector(x, x, I...) + __builtin_shufflevector(x, x, (N / 2 + I)...);
}
template <typename T, int N>
LONGCONV_INLINE T lane_sum(const Vector<T, N> x) {
    if constexpr (N == 2)
        return x[0] + x[1];
    else
        return lane_sum<T, N / 2>(half_sums<T, N>(x, typename MakeIndices<N / 2>::type{}));
}

template <typename T, int N>
LONGCONV_INLINE Vector<T, N> load_vector(const T* from) {
    Vector<T, N> x;
    __builtin_memcpy(&x, from, sizeof(x));
    return x;
}
template <typename T, typename V>
LONGCONV_INLINE void store_vector(T* to, const V x) {
    __builtin_memcpy(to, &x, sizeof(x));
}

// Complex numbers as two planes.
template <typename T>
struct Planes {
    T *re, *im;

    static Planes take(Memory& memory, int64_t count) {
        T* const re = memory.take<T>(count);
        return {re, memory.take<T>(count)};
    }
    template <int N>
    LONGCONV_INLINE Complex<T, N> load(int64_t at) const {
        return {load_vector<T, N>(re + at), load_vector<T, N>(im + at)};
    }
    template <int N>
    LONGCONV_INLINE void store(int64_t at, const Complex<T, N>& x) const {
        store_vector(re + at, x.re), store_vector(im + at, x.im);
    }
};

template <typename T>
void round(const Planes<T>& to, const Planes<double>& from, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to.re[i] = static_cast<T>(from.re[i]), to.im[i] = static_cast<T>(from.im[i]);
}

// A circle around a tile of points.
struct Circle {
    double re, im, radius;
};

// The points of a segment.
template <typename T>
struct Points {
    Planes<double> z;
    Planes<T> rounded;
    double* boxes;  // of the blocks: least and largest real parts, then imaginary ones
    int64_t count = 0;

    Points(int64_t most, Memory& memory)
        : z(Planes<double>::take(memory, most)),
          rounded(Planes<T>::take(memory, most)),
          boxes(memory.take<double>(4 * most / kBlock)) {}

    // `points` of them, and copies of the last one up to a whole tile.
    void load(const LongconvNumbers& from, int64_t first, int64_t points) {
        count = points;
        const int64_t padded = (count + kMostPoints - 1) / kMostPoints * kMostPoints;
        get_all(z.re, z.im, from, first, count);
        for (int64_t i = count; i < padded; ++i) z.re[i] = z.re[count - 1], z.im[i] = z.im[count - 1];
        round(rounded, z, padded);
        for (int64_t i = 0; i < padded; i += kBlock) {
            find_range(boxes + 4 * i / kBlock, z.re + i);
            find_range(boxes + 4 * i / kBlock + 2, z.im + i);
        }
    }

    // Infinite if there is a number that is none.
    static void find_range(double* range, const double* x) {
        double all = 0;
        range[0] = range[1] = x[0];
        for (int64_t i = 0; i < kBlock; ++i) {
            all += x[i] - x[i];
            range[0] = x[i] < range[0] ? x[i] : range[0], range[1] = x[i] > range[1] ? x[i] : range[1];
        }
        if (all != 0) range[0] = -__builtin_inf(), range[1] = __builtin_inf();
    }

    Circle around(int64_t first, int64_t size) const {
        double low[2], high[2];
        for (int axis = 0; axis < 2; ++axis) {
            const double* range = boxes + 4 * first / kBlock + 2 * axis;
            low[axis] = range[0], high[axis] = range[1];
            for (int64_t i = kBlock; i < size; i += kBlock) {
                range += 4;
                low[axis] = range[0] < low[axis] ? range[0] : low[axis];
                high[axis] = range[1] > high[axis] ? range[1] : high[axis];
            }
        }
        const double x = 0.5 * (high[0] - low[0]), y = 0.5 * (high[1] - low[1]);
        return {0.5 * (low[0] + high[0]), 0.5 * (low[1] + high[1]), __builtin_sqrt(x * x + y * y)};
    }

    // t of a tile.
    void scale(const Planes<T>& t, const Circle& circle, int64_t first, int64_t size) const {
        const double by = circle.radius > 0 ? 1 / circle.radius : 0;
        for (int64_t i = 0; i < size; i += kDoubles) {
            const Doubles re = (load_vector<double, kDoubles>(z.re + first + i) - circle.re) * by;
            const Doubles im = (load_vector<double, kDoubles>(z.im + first + i) - circle.im) * by;
            store_vector(t.re + i, __builtin_convertvector(re, Vector<T, kDoubles>));
            store_vector(t.im + i, __builtin_convertvector(im, Vector<T, kDoubles>));
        }
    }
};

// The poles of a set, and what they are for a tile.
template <typename T>
struct Poles {
    static constexpr int W = kVectorBytes / sizeof(T);
    using V = Vector<T, W>;

    int64_t count, padded = (count + W - 1) / W * W;
    Planes<double> w;
    Planes<T> rounded;         // w
    Planes<T> inverse, ratio;  // q, s; 0 for near poles
    T* exponents;              // of |s|^2
    int64_t* near;             // the near poles
    int64_t near_count = 0;
    int terms = 0;

    Poles(int64_t count, Memory& memory)
        : count(count),
          w(Planes<double>::take(memory, padded)),
          rounded(Planes<T>::take(memory, padded)),
          inverse(Planes<T>::take(memory, padded)),
          ratio(Planes<T>::take(memory, padded)),
          exponents(memory.take<T>(padded)),
          near(memory.take<int64_t>(padded + 1)) {}

    void load(const LongconvNumbers& from, int64_t set) {
        for (int64_t n = count; n < padded; ++n) w.re[n] = w.im[n] = 0;
        get_all(w.re, w.im, from, set * from.set, count);
        round(rounded, w, padded);
    }

    // Whether squares of differences from points within the circle may be too large for T.
    bool too_far(const Circle& from) const {
        if (sizeof(T) == 8) return false;
        const double most = 1e17 - (__builtin_fabs(from.re) + __builtin_fabs(from.im) + from.radius);
        int64_t far = 0;
        for (int64_t n = 0; n < count; ++n) far += !(__builtin_fabs(w.re[n]) + __builtin_fabs(w.im[n]) < most);
        return far > 0;
    }

    // Seen from a tile of `size` points.
    void look(const Circle& from, int64_t size) {
        near_count = 0;
        estimate(from, size);
        const T most = terms == 0 ? -T(__builtin_inf()) : exponent_for(terms);
        for (int64_t n = 0; n < count; ++n) near[near_count] = n, near_count += terms == 0 || !(exponents[n] <= most);
        for (int64_t i = 0; i < near_count; ++i) {
            const int64_t n = near[i];
            inverse.re[n] = inverse.im[n] = 0, ratio.re[n] = ratio.im[n] = 0;
        }
    }

    // What the tile will cost.
    int64_t estimate(const Circle& from, int64_t size) {
        terms = 0;
        if (sizeof(T) == 8 || !(from.radius < 1e18)) return count * size * 5;
        measure(from);
        return choose(size);
    }

    // The size of tiles that is best where it is tried.
    int64_t best_size(const Points<T>& points) {
        if (sizeof(T) == 8) return kMostPoints;
        int64_t best = kBlock;
        double least_cost = __builtin_inf();
        for (int64_t size = kBlock; size <= kMostPoints; size *= 2) {
            const int64_t tiles = (points.count + size - 1) / size, tried = tiles < 3 ? tiles : 3;
            double cost = 0;
            for (int64_t i = 0; i < tried; ++i) {
                const int64_t tile = (2 * i + 1) * tiles / (2 * tried);
                cost += static_cast<double>(estimate(points.around(tile * size, size), size));
            }
            cost /= static_cast<double>(tried * size);
            if (cost < least_cost) least_cost = cost, best = size;
        }
        return best;
    }

    // q, s and the exponent of |s|^2: that of the number and a bound on what its fraction adds. Squares that leave the
    // range are those of near poles.
    void measure(const Circle& from) {
        using Bits = Vector<int32_t, W>;
        for (int64_t n = 0; n < padded; n += W) {
            T parts[2][W];
            for (int half = 0; half < W; half += kDoubles) {
                const Wide pole = w.template load<kDoubles>(n + half);
                store_vector(parts[0] + half, __builtin_convertvector(pole.re - from.re, Vector<T, kDoubles>));
                store_vector(parts[1] + half, __builtin_convertvector(pole.im - from.im, Vector<T, kDoubles>));
            }
            const V re = load_vector<T, W>(parts[0]), im = load_vector<T, W>(parts[1]), square = re * re + im * im;
            const V over = T(1) / square, x = re * over, y = -im * over, R = V{} + static_cast<T>(from.radius);
            const V sx = x * R, sy = y * R, size = sx * sx + sy * sy;
            if constexpr (sizeof(T) == 4) {
                const V exponent = __builtin_convertvector((Bits)size, V) * T(0x1p-23) - T(127 - 0.0861);
                const V known = ((square > T(1e-30)) & (square < T(1e30))) ? exponent : V{} + T(1);
                store_vector(exponents + n, known);
            }
            inverse.store(n, Complex<T, W>{x, y});
            ratio.store(n, Complex<T, W>{sx, sy});
        }
        for (int64_t n = count; n < padded; ++n)
            inverse.re[n] = inverse.im[n] = 0, ratio.re[n] = ratio.im[n] = 0, exponents[n] = T(1);
    }

    static T exponent_for(int terms) { return static_cast<T>(-2 * kBits / terms); }

    // How many terms, and their cost, in eighths of a cycle, beside that of the near poles.
    int64_t choose(int64_t size) {
        constexpr int kChoices[] = {4, 6, 8, 11, 15, kTerms};
        int64_t best = count * size * 6;
        for (const int k : kChoices) {
            V far{};
            for (int64_t n = 0; n < padded; n += W)
                far += load_vector<T, W>(exponents + n) <= exponent_for(k) ? V{} + T(1) : V{};
            const int64_t alone = count - static_cast<int64_t>(lane_sum<T, W>(far));
            const int64_t cost = alone * size * 6 + k * (2 * size + 3 * padded + 128) + 6 * size + 10 * padded;
            if (cost < best) best = cost, terms = k;
        }
        return best + 30 * padded;
    }
};

}  // namespace LONGCONV_ISA
}  // namespace longconv

#endif
