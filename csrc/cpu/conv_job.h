// How csrc/cpu/fft_conv.cpp and direct_conv.cpp share their work out, and the rows of a call: included by the ISA
// sources alone.
//
// Filters are shared out among workers; where they are fewer than threads, forward, their samples are too. Workers
// share nothing but the counter of what is taken, and every unit is computed alone: the results don't depend on how
// many there are.

#ifndef LONGCONV_CPU_CONV_JOB_H
#define LONGCONV_CPU_CONV_JOB_H

#include "element.h"
#include "kernels.h"

namespace longconv {
namespace LONGCONV_ISA {

constexpr int64_t kWorthAThread = 1 << 14;  // numbers that are transformed
constexpr int64_t kShares = 16;             // of a worker, which takes one after the other: threads may start late

inline int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

template <typename S>
inline S* row(const LongconvRows& rows, int64_t sample, int64_t channel) {
    return rows.data ? static_cast<S*>(rows.data) + sample * rows.batch + channel * rows.channel : nullptr;
}

// run(S{}) for the type S of an element that is computed in T.
template <typename T, typename Run>
inline __attribute__((always_inline)) void with_storage(int32_t element, const Run& run) {
    if constexpr (sizeof(T) == sizeof(float)) {
        if (element == LONGCONV_BFLOAT16) return run(Bfloat16{});
        if (element == LONGCONV_FLOAT16) return run(Float16{});
    }
    run(T{});
}

inline int64_t bytes_of(int32_t element) {
    return element == LONGCONV_FLOAT64 ? 8 : element == LONGCONV_FLOAT32 ? 4 : 2;
}

inline int64_t valid_length(const LongconvFftConv& p, int64_t sample) {
    if (!p.lengths) return p.length;
    const int64_t n = p.lengths[sample];
    return n < 0 ? 0 : least(n, p.length);
}

// The taps of a filter in T, NULL for none: where they lie, or in `copy`, which has room for whole vectors of W.
template <typename T, int W>
inline const T* taps_of(const LongconvFftConv& p, const LongconvRows& rows, int64_t owner, int64_t channel,
                        int64_t count, T* copy) {
    const T* taps = rows.data ? copy : nullptr;
    with_storage<T>(p.filter_element, [&](auto s) {
        using S = decltype(s);
        const S* stored = row<S>(rows, owner, channel);
        if constexpr (sizeof(S) == sizeof(T)) {
            taps = stored;
        } else if (stored) {
            const Reader<S, T, W> in(stored, count);
            for (int64_t n = 0; n < count; n += W) Element<T, T, W>::store(copy + n, in(n));
        }
    });
    return taps;
}

// make(memory) is a worker in a memory of so many numbers of T; a row costs it as much as the transform of `cost`
// numbers.
template <typename T, typename Make>
struct ConvJob {
    const LongconvFftConv& p;
    const Make& make;
    int64_t numbers, cost;
    int64_t filters = p.per_sample ? p.batch * p.channels : p.channels;
    int64_t samples = p.per_sample ? 1 : p.batch;
    int64_t parts = p.backward || filters >= p.threads ? 1 : least(samples, p.threads);  // of a filter's samples
    int64_t rows = filters * (samples > 0 ? samples : 1);  // without samples gradients of filters are still written
    int64_t worth = (rows * cost + kWorthAThread - 1) / kWorthAThread;
    int64_t units = filters * parts;
    int64_t workers = least(least(p.threads, units), least(worth, p.threads));
    int64_t share = workers > 1 ? (units + workers * kShares - 1) / (workers * kShares) : units;
    int64_t taken = 0;  // units

    void run(int64_t worker) {
        const auto w = make(static_cast<T*>(p.work) + worker * numbers);
        for (int64_t unit; (unit = __atomic_fetch_add(&taken, share, __ATOMIC_RELAXED)) < units;)
            run(w, unit, least(unit + share, units));
        finish_streams();
    }

    template <typename Worker>
    void run(const Worker& w, int64_t unit, int64_t end) const {
        for (; unit < end; ++unit) {
            const int64_t filter = unit / parts, part = unit % parts;
            const int64_t begin = p.per_sample ? filter / p.channels : 0;
            const int64_t first = begin + part * samples / parts, last = begin + (part + 1) * samples / parts;
            if (p.backward)
                w.backward(filter, filter % p.channels, first, last);
            else
                w.forward(filter, filter % p.channels, first, last);
        }
    }

    static void task(int64_t begin, int64_t end, void* context) {
        for (int64_t worker = begin; worker < end; ++worker) static_cast<ConvJob*>(context)->run(worker);
    }
};

template <typename T, typename Make>
int32_t run_conv(const LongconvFftConv& p, int64_t numbers, int64_t cost, const Make& make, int64_t* memory) {
    ConvJob<T, Make> job{p, make, numbers, cost};
    if (memory) {
        *memory = job.workers * numbers * static_cast<int64_t>(sizeof(T));
        return LONGCONV_OK;
    }
    if (job.filters * job.samples == 0 && !p.backward) return LONGCONV_OK;
    return parallel_for(job.workers, 1, ConvJob<T, Make>::task, &job);
}

}  // namespace LONGCONV_ISA
}  // namespace longconv

#endif
