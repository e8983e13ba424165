// The kernels of the causal convolution with few taps, and of its gradients.
//
// A lane has a run of kRun times of one channel in registers, beside it the run before: the products of one with kRun
// taps need no other sample. Then it goes one run back for the next taps. Runs begin at multiples of kRun, so that they
// are read in vectors; what lanes read twice comes from the cache. A warp has `lanes` rows side by side, where a row is
// a channel of a sample, and with its other lanes runs that follow each other.

#ifndef LONGCONV_CUDA_SHORT_CONV_H
#define LONGCONV_CUDA_SHORT_CONV_H

#include "activation.h"
#include "jobs.h"

namespace longconv {

template <typename T>
constexpr int kRunOf = sizeof(T) == 4 ? 8 : 4;

LONGCONV_BOTH int64_t clamped(int64_t count, int most) {
    return count < 0 ? 0 : count < most ? count : most;
}

// The samples x[t] of a call, from -(taps - 1) on; in reverse, t counts from the last one.
template <typename T, typename Call>
LONGCONV_DEVICE void read_run(const Call& call, int64_t set, int64_t row, int64_t t, bool reverse, T (&v)[kRunOf<T>]) {
    constexpr int run = kRunOf<T>;
    if (t >= 0 || !call.past.data) {
        const Strided x(call.x, call.batch, call.channels, call.length);
        const int64_t count = t < 0 ? 0 : clamped(call.length - t, run), from = count ? t : 0;
        x.read(x.place(set, row, reverse ? call.length - 1 - from : from), (reverse ? -1 : 1) * x.step(), count, v,
               T{0});
        return;
    }
    const Strided past(call.past, call.batch, call.channels, call.taps - 1);
    const int64_t last = call.taps - 2 + t + run;  // of the run, which may begin before the first sample
    const int64_t count = clamped(last + 1, run);
    T down[run];
    past.read(past.place(set, row, count ? last : 0), -past.step(), count, down, T{0});
    LONGCONV_UNROLL
    for (int j = 0; j < run; ++j) v[j] = down[run - 1 - j];
}

// f(s, lag, x[s - lag]) for s of a run and lags of `lags` < kRun, x being the run and the one before it.
template <typename T, typename F>
LONGCONV_DEVICE void each_product(const T (&before)[kRunOf<T>], const T (&now)[kRunOf<T>], int64_t lags, const F& f) {
    constexpr int run = kRunOf<T>;
    LONGCONV_UNROLL
    for (int lag = 0; lag < run; ++lag) {
        if (lag >= lags) continue;
        LONGCONV_UNROLL
        for (int s = 0; s < run; ++s) f(s, lag, s >= lag ? now[s - lag] : before[run + s - lag]);
    }
}

template <typename T>
struct ShortConv {
    static constexpr int kRun = kRunOf<T>;
    using Call = LongconvCudaShortConv;
    Call call;

    LONGCONV_BOTH int64_t extent() const { return call.length + (call.past_y.data ? call.taps - 1 : 0); }
    LONGCONV_BOTH int64_t tiles() const {
        const int64_t times = 32 / call.lanes * kRun;
        return (extent() + times - 1) / times;
    }
    LONGCONV_BOTH int64_t jobs() const { return (call.batch * call.channels + call.lanes - 1) / call.lanes * tiles(); }

    LONGCONV_DEVICE void run(int64_t job) const {
        each_lane([&](int lane) { convolve(lane, job); });
    }

  private:
    LONGCONV_DEVICE void convolve(int lane, int64_t job) const {
        const int64_t index = job / tiles() * call.lanes + lane % call.lanes;
        const int64_t t = (job % tiles() * (32 / call.lanes) + lane / call.lanes) * kRun;
        if (index >= call.batch * call.channels || t >= extent()) return;
        const int64_t set = index / call.channels, row = index % call.channels;
        const Strided w(call.w, 1, call.channels, call.taps), bias(call.bias, 1, call.channels, 1);
        const T first = bias ? bias.template get<T>(bias.place(0, row, 0)) : 0;
        T z[kRun], before[kRun] = {}, now[kRun], taps[kRun];
        LONGCONV_UNROLL
        for (int s = 0; s < kRun; ++s) z[s] = first;
        read_run(call, set, row, t, call.reverse, now);
        for (int64_t lag = 0; lag < call.taps; lag += kRun) {
            const int64_t lags = clamped(call.taps - lag, kRun);
            if (lags > 1) read_run(call, set, row, t - lag - kRun, call.reverse, before);
            w.read(w.place(0, row, call.taps - 1 - lag), -w.step(), lags, taps, T{0});
            each_product(before, now, lags, [&](int s, int j, T x) { z[s] += taps[j] * x; });
            LONGCONV_UNROLL
            for (int s = 0; s < kRun; ++s) now[s] = before[s];
        }
        write(set, row, t, z);
    }

    LONGCONV_DEVICE void write(int64_t set, int64_t row, int64_t t, T (&z)[kRun]) const {
        const int64_t count = clamped(call.length - t, kRun), time = call.reverse ? call.length - 1 - t : t;
        const int sign = call.reverse ? -1 : 1;
        if (call.dy.data) {
            const Strided dy(call.dy, call.batch, call.channels, call.length);
            T factor[kRun];
            dy.read(dy.place(set, row, count ? time : 0), sign * dy.step(), count, factor, T{0});
            LONGCONV_UNROLL
            for (int s = 0; s < kRun; ++s) z[s] = factor[s] * slope(call.activation, z[s]);
        } else if (call.activation != LONGCONV_NONE) {
            LONGCONV_UNROLL
            for (int s = 0; s < kRun; ++s) z[s] = activated(call.activation, z[s]);
        }
        if (call.y.data && count) {
            const Strided y(call.y, call.batch, call.channels, call.length);
            y.write(y.place(set, row, time), sign * y.step(), count, z);
        }
        if (!call.past_y.data || count == kRun) return;
        const Strided past(call.past_y, call.batch, call.channels, call.taps - 1);
        LONGCONV_UNROLL
        for (int s = 0; s < kRun; ++s)
            if (s >= count && t + s < extent()) past.set(past.place(set, row, call.taps - 1 + time - s), z[s]);
    }
};

// The gradients to taps and bias, in parts. A warp has kRun lags of its channels and every `splits`-th of their tiles.
template <typename T>
struct ShortConvSums {
    static constexpr int kRun = kRunOf<T>;
    static constexpr int kTiles = 16;  // whose sums are taken in T, those of all in double precision
    using Call = LongconvCudaShortConvSums;
    Call call;

    LONGCONV_BOTH int64_t chunks() const { return (call.taps + kRun - 1) / kRun; }
    LONGCONV_BOTH int64_t tiles() const {
        const int64_t times = 32 / call.lanes * kRun;
        return (call.length + times - 1) / times;
    }
    LONGCONV_BOTH int64_t jobs() const {
        return (call.channels + call.lanes - 1) / call.lanes * chunks() * call.splits;
    }

    LONGCONV_DEVICE void run(int64_t job) const {
        const int64_t split = job % call.splits, lag = job / call.splits % chunks() * kRun;
        const int64_t group = job / call.splits / chunks();
        Registers<double, kRun + 1> sums;
        each_lane([&](int lane) {
            LONGCONV_UNROLL
            for (int j = 0; j <= kRun; ++j) sums(lane, j) = 0;
            const int64_t row = group * call.lanes + lane % call.lanes;
            if (row >= call.channels) return;
            for (int64_t i = split; i < call.batch * tiles(); i += kTiles * call.splits) {
                T some[kRun + 1] = {};
                for (int64_t k = i; k < i + kTiles * call.splits && k < call.batch * tiles(); k += call.splits)
                    add(some, k / tiles(), row, (k % tiles() * (32 / call.lanes) + lane / call.lanes) * kRun, lag);
                LONGCONV_UNROLL
                for (int j = 0; j <= kRun; ++j) sums(lane, j) += some[j];
            }
        });
        LONGCONV_UNROLL
        for (int j = 0; j <= kRun; ++j) {
            Registers<double, 1> one;
            each_lane([&](int lane) { one(lane, 0) = sums(lane, j); });
            for (int distance = call.lanes; distance < 32; distance *= 2) {
                const auto other = lanes_before(one, distance);
                each_lane([&](int lane) { one(lane, 0) += lane < distance ? 0 : other(lane, 0); });
            }
            each_lane([&](int lane) { write(lane, group, split, lag, j, one(lane, 0)); });
        }
    }

  private:
    // The products of a run of dz at t with the runs of x that its lags lead to; and the sum of dz itself.
    LONGCONV_DEVICE void add(T (&sums)[kRun + 1], int64_t set, int64_t row, int64_t t, int64_t lag) const {
        const int64_t count = clamped(call.length - t, kRun);
        if (count == 0) return;
        const Strided dz(call.dz, call.batch, call.channels, call.length);
        T g[kRun], before[kRun], now[kRun];
        dz.read(dz.place(set, row, t), dz.step(), count, g, T{0});
        read_run(call, set, row, t - lag, false, now);
        read_run(call, set, row, t - lag - kRun, false, before);
        LONGCONV_UNROLL
        for (int s = 0; s < kRun; ++s) sums[kRun] += g[s];
        if (count == kRun && (call.past.data || t - lag >= kRun)) {
            each_product(before, now, kRun, [&](int s, int j, T x) { sums[j] += g[s] * x; });
            return;
        }
        // A sample that is not there counts for nothing, beside a number that is not finite too.
        each_product(before, now, kRun, [&](int s, int j, T x) {
            if (s < count && (call.past.data || t + s >= lag + j)) sums[j] += g[s] * x;
        });
    }

    LONGCONV_DEVICE void write(int lane, int64_t group, int64_t split, int64_t lag, int j, double sum) const {
        const int64_t row = group * call.lanes + lane % call.lanes;
        if (lane < 32 - call.lanes || row >= call.channels) return;
        const Strided to(call.sums, call.splits, call.channels, call.taps + 1);
        if (j == kRun ? lag == 0 : lag + j < call.taps)
            to.set(to.place(split, row, j == kRun ? call.taps : call.taps - 1 - lag - j), sum);
    }
};

}  // namespace longconv

#endif
