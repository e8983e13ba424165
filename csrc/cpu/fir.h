// Sums over a few lags, the inner loops of short_conv.cpp and direct_conv.cpp: included by the ISA sources alone.
//
//     y[t] = start + sum_lag g[lag] x[t - lag]          s[lag] = sum_t z[t] x[t - lag]
//
// A vector is W neighbouring times of one row, or the channels of a column at one time. In both, what a vector of x is
// for one lag it is for the vector of y one further at the next lag but kPhases - 1 (W for rows, 1 for columns): so
// with sums and taps in registers one load of x serves up to kTaps products, and rows need no shuffles. The order in
// which a number is summed up depends on nothing but the number of lags.

#ifndef LONGCONV_CPU_FIR_H
#define LONGCONV_CPU_FIR_H

#include "fft_codelets.h"
#include "vector.h"

namespace longconv {
namespace LONGCONV_ISA {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kFirSums = 16, kFirTaps = 8;  // of 32 registers
#else
constexpr int kFirSums = 8, kFirTaps = 4;  // of 16 registers
#endif

template <typename T, bool kColumns>
struct Fir {
    static constexpr int W = kVectorBytes / sizeof(T);
    static constexpr int kPhases = kColumns ? 1 : W;
    static constexpr int kTaps = kFirTaps;
    using V = Vector<T, W>;

    static LONGCONV_INLINE V load(const T* from) {
        V v;
        __builtin_memcpy(&v, from, sizeof(v));
        return v;
    }
    static LONGCONV_INLINE void store(T* to, V v) { __builtin_memcpy(to, &v, sizeof(v)); }

    static LONGCONV_INLINE V tap(const T* from) {
        if constexpr (kColumns)
            return load(from);
        else
            return V{} + *from;
    }

    // run(products<Q>, first, last) over the lags in [0, lags), each Q of them with the spacing kPhases, from `first`
    // on.
    template <typename F>
    static LONGCONV_INLINE void each_group(int64_t lags, const F& run) {
        int64_t lag = 0;
        for (; lag + kTaps * kPhases <= lags; lag += kTaps * kPhases)
            for (int r = 0; r < kPhases; ++r) run(Index<kTaps>{}, lag + r);
        const int64_t whole = (lags - lag) / kPhases, extra = (lags - lag) % kPhases;
        unroll<kTaps>([&](auto q) __attribute__((always_inline)) {
            constexpr int kWhole = decltype(q){};
            if (whole != kWhole) return;
            if constexpr (kPhases > 1)
                for (int r = 0; r < extra; ++r) run(Index<kWhole + 1>{}, lag + r);
            if constexpr (kWhole > 0)
                for (int64_t r = extra; r < kPhases; ++r) run(Index<kWhole>{}, lag + r);
        });
    }

    // ---- y

    // What is convolved: x and its distance from one time to the next, the taps and theirs from one lag to the next.
    struct Input {
        const T *x, *taps;
        int64_t time, tap, lags;

        int64_t vector() const { return time * kPhases; }
    };

    // y of P vectors from vector n on.
    template <int P>
    static void block(T* y, int64_t y_vector, const Input& in, int64_t n, V start) {
        V sums[P];
        unroll<P>([&](auto j) __attribute__((always_inline)) { sums[j] = start; });
        const int64_t step = in.vector();
        each_group(in.lags, [&](auto count, int64_t lag) __attribute__((always_inline)) {
            constexpr int Q = decltype(count){};
            const T *x = in.x + n * step - lag * in.time, *taps = in.taps + lag * in.tap;
            V g[Q];
            unroll<Q>([&](auto q) __attribute__((always_inline)) { g[q] = tap(taps + q * kPhases * in.tap); });
            unroll<P + Q - 1>([&](auto i) __attribute__((always_inline)) {
                constexpr int kVector = int(decltype(i){}) - (Q - 1);
                const V v = load(x + kVector * step);
                unroll<Q>([&](auto q) __attribute__((always_inline)) {
                    constexpr int j = kVector + int(decltype(q){});
                    if constexpr (j >= 0 && j < P) sums[j] += g[q] * v;
                });
            });
        });
        unroll<P>([&](auto j) __attribute__((always_inline)) { store(y + (n + j) * y_vector, sums[j]); });
    }

    // y of `count` vectors, y_vector apart.
    static void convolve(T* y, int64_t y_vector, const Input& in, int64_t count, V start) {
        int64_t n = 0;
        for (; n + kFirSums <= count; n += kFirSums) block<kFirSums>(y, y_vector, in, n, start);
        rest<kFirSums / 2>(y, y_vector, in, n, count, start);
    }
    template <int P>
    static void rest(T* y, int64_t y_vector, const Input& in, int64_t n, int64_t count, V start) {
        if (n + P <= count) {
            block<P>(y, y_vector, in, n, start);
            n += P;
        }
        if constexpr (P > 1) rest<P / 2>(y, y_vector, in, n, count, start);
    }

    // ---- s

    // Lanes of a total: those of the channels, or those that are left when rows fold theirs.
    static constexpr int kLanes = kColumns || W < 4 ? W : 4;

    // totals[lag][kLanes] += the sums over `count` vectors of z, z_vector apart. In T within the call, so `count` must
    // be small enough for T's precision.
    static void correlate(double* totals, const T* z, int64_t z_vector, const Input& in, int64_t count) {
        if (!kColumns && in.lags < W) return few_lags(totals, z, z_vector, in, count);
        each_group(in.lags, [&](auto q, int64_t lag) {
            group<decltype(q){}>(totals + lag * kLanes, z, z_vector, in.x - lag * in.time, in.vector(), count);
        });
    }

    // The same for `count` times, which may end within a vector (z is 0 up to its end), and an x that has numbers
    // within the times [begin, end) alone and is 0 elsewhere. What meets a zero that stands for nothing has to be
    // finite: for NaN times 0 is NaN, which would be in the sums of lags that the number has no part in.
    static void correlate_within(double* totals, const T* z, const Input& in, int64_t count, int64_t begin,
                                 int64_t end) {
        constexpr int64_t kWide = kColumns ? W : 1;
        const int64_t vectors = (count + kPhases - 1) / kPhases, unfilled = vectors * kPhases - count;
        const int64_t past = in.lags - 1, early = within(past + begin, count), late = within(count - end, count);
        if (all_finite(z, early * kWide) && all_finite(z + (count - late) * kWide, late * kWide) &&
            (!unfilled || all_finite(in.x + count - past, past + unfilled)))
            return correlate(totals, z, W, in, vectors);
        for (int64_t lag = 0; lag < in.lags; ++lag)
            for (int64_t n = within(lag + begin, count); n < within(lag + end, count); ++n)
                for (int64_t c = 0; c < kWide; ++c)
                    totals[lag * kLanes + c] += double(z[n * kWide + c]) * double(in.x[(n - lag) * in.time + c]);
    }
    static int64_t within(int64_t time, int64_t count) { return time < 0 ? 0 : time < count ? time : count; }
    static bool all_finite(const T* numbers, int64_t count) {
        int64_t others = 0;
        for (int64_t i = 0; i < count; ++i) others += !(numbers[i] * T(0) == T(0));
        return others == 0;
    }

    template <int Q>
    static void group(double* totals, const T* z, int64_t z_vector, const T* x, int64_t step, int64_t count) {
        constexpr int P = kFirTaps, kCopies = P / Q;  // of the sums, for they wait for each other
        V sums[kCopies * Q] = {};
        int64_t n = 0;
        for (; n + P <= count; n += P) {
            V g[P];
            unroll<P>([&](auto j) __attribute__((always_inline)) { g[j] = load(z + (n + j) * z_vector); });
            unroll<P + Q - 1>([&](auto i) __attribute__((always_inline)) {
                constexpr int kVector = int(decltype(i){}) - (Q - 1);
                const V v = load(x + (n + kVector) * step);
                unroll<Q>([&](auto q) __attribute__((always_inline)) {
                    constexpr int j = kVector + int(decltype(q){});
                    if constexpr (j >= 0 && j < P) sums[j % kCopies * Q + q] += g[j] * v;
                });
            });
        }
        for (; n < count; ++n)
            unroll<Q>([&](auto q) __attribute__((always_inline)) {
                sums[q] += load(z + n * z_vector) * load(x + (n - q) * step);
            });
        unroll<Q>([&](auto q) __attribute__((always_inline)) {
            V sum = sums[q];
            for (int c = 1; c < kCopies; ++c) sum += sums[c * Q + q];
            add(totals + q * kPhases * kLanes, sum);
        });
    }

    // Rows with fewer lags than a vector has lanes: z stays in its register for several lags, and x is loaded for each.
    static void few_lags(double* totals, const T* z, int64_t z_vector, const Input& in, int64_t count) {
        int64_t lag = 0;
        for (; lag + 4 <= in.lags; lag += 4) neighbours<4>(totals + lag * kLanes, z, z_vector, in.x - lag, count);
        if (lag + 2 <= in.lags) {
            neighbours<2>(totals + lag * kLanes, z, z_vector, in.x - lag, count);
            lag += 2;
        }
        if (lag < in.lags) neighbours<1>(totals + lag * kLanes, z, z_vector, in.x - lag, count);
    }
    template <int Q>
    static void neighbours(double* totals, const T* z, int64_t z_vector, const T* x, int64_t count) {
        V even[Q] = {}, odd[Q] = {};
        int64_t n = 0;
        for (; n + 2 <= count; n += 2) {
            const V first = load(z + n * z_vector), second = load(z + (n + 1) * z_vector);
            unroll<Q>([&](auto q) __attribute__((always_inline)) {
                even[q] += first * load(x + n * W - q);
                odd[q] += second * load(x + (n + 1) * W - q);
            });
        }
        if (n < count)
            unroll<Q>([&](auto q)
                          __attribute__((always_inline)) { even[q] += load(z + n * z_vector) * load(x + n * W - q); });
        unroll<Q>([&](auto q) __attribute__((always_inline)) { add(totals + q * kLanes, even[q] + odd[q]); });
    }

    // total[kLanes] += v, folded.
    static LONGCONV_INLINE void add(double* total, V v) {
        T lanes[W];
        __builtin_memcpy(lanes, &v, sizeof(v));
        for (int width = W / 2; width >= kLanes; width /= 2)
            for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
        for (int i = 0; i < kLanes; ++i) total[i] += lanes[i];
    }
};

}  // namespace LONGCONV_ISA
}  // namespace longconv

#endif
