// The FFT convolution: every row by one complex transform of its own length, see fft.h.
//
// A worker takes filter after filter. The filter's spectrum S (with skip in tap 0, and the reversed filter as -i k[m -
// 1] at X^(size - m), for X^-m = -i X^(size - m)) stays in the worker's memory while all the samples pass. At the
// points 1 / X is the conjugate of X, so the gradients are, with U and G the values of the gated input and of the
// cotangent,
//
//     dx = inverse(G conj(S)),    dk = Re inverse(sum_b conj(U) G),    dk_reverse[m - 1] = -Im of the same at size - m.
//
// Circular mode has no ring of its own: Re and Im of the product are the whole linear convolution z[0 .. 2 size), and
// y[t] = z[t] + z[t + n] for a period of n. The adjoint of that fold repeats the cotangent.
//
// Nothing is shared between workers: the results don't depend on how many there are.

#include "fft.h"
#include "kernels.h"

namespace longconv {
namespace LONGCONV_ISA {
namespace {

constexpr int64_t kWorthAThread = 1 << 14;  // numbers

inline int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

template <typename T>
inline T* row(const LongconvRows& rows, int64_t sample, int64_t channel) {
    return rows.data ? static_cast<T*>(rows.data) + sample * rows.batch + channel * rows.channel : nullptr;
}

// out[n] = a[n] b[n] (b NULL: 1) for n < valid, then 0.
template <typename T>
void multiply(T* out, const T* a, const T* b, int64_t valid, int64_t length) {
    if (b)
        for (int64_t n = 0; n < valid; ++n) out[n] = a[n] * b[n];
    else
        __builtin_memcpy(out, a, valid * sizeof(T));
    __builtin_memset(out + valid, 0, (length - valid) * sizeof(T));
}

// What the next row of a worker reads and writes; it is fetched into the cache leaf by leaf of this row.
template <typename T>
struct Ahead {
    const T* rows[5];  // NULL for none

    void fetch(int64_t begin, int64_t end) const {
        for (const T* from : rows)
            for (int64_t n = begin; from && n < end; n += 64 / sizeof(T)) __builtin_prefetch(from + n);
    }
};
constexpr int64_t kAhead = 1 << 14;  // numbers: longer rows would drive this one out of the cache

template <typename T, int W>
struct Worker {
    using F = Fft<T, W>;
    using C = typename F::C;

    const LongconvFftConv& p;
    const Plan<T>& plan;
    F fft{plan};
    int64_t pitch = 2 * plan.size + kGap;
    T* stage;  // a row of real numbers
    T* spectrum = stage + plan.size + kGap;
    T* work = spectrum + pitch;
    T* values = work + pitch;  // backward alone: U
    T* sums = values + pitch;  // and sum_b conj(U) G

    int64_t valid(int64_t sample) const {
        if (!p.lengths) return p.length;
        const int64_t n = p.lengths[sample];
        return n < 0 ? 0 : n < p.length ? n : p.length;
    }

    // The row of the next sample, or the first sample's in the next channel.
    const T* next(const LongconvRows& rows, int64_t sample, int64_t channel, int64_t first, int64_t last) const {
        if (plan.size > kAhead || (sample + 1 == last && channel + 1 == p.channels)) return nullptr;
        return sample + 1 < last ? row<T>(rows, sample + 1, channel) : row<T>(rows, first, channel + 1);
    }

    // The number of coefficient n in a complex buffer; W further is its imaginary part.
    static int64_t place(int64_t n) { return n / W * F::kComplex + n % W; }

    // The number of coefficient n < 2 size of a linear convolution.
    int64_t tail(int64_t n) const { return n < plan.size ? place(n) : place(n - plan.size) + W; }

    // ---- the filter

    void transform_filter(const T* k, const T* reverse, const T* skip) const {
        if (reverse) {
            __builtin_memset(spectrum, 0, 2 * plan.size * sizeof(T));
            for (int64_t n = 0; n < p.taps; ++n) spectrum[place(n)] = k[n];
            for (int64_t m = 1; m <= p.reverse_taps; ++m) spectrum[place(plan.size - m) + W] = -reverse[m - 1];
            if (skip) spectrum[0] += *skip;
            fft.descend(0, 0, spectrum);
        } else {
            if (skip || p.taps < plan.size) {
                multiply<T>(stage, k, nullptr, p.taps, plan.size);
                if (skip) stage[0] += *skip;
                k = stage;
            }
            fft.descend_real(spectrum, k);
        }
        const T scale = T(1) / static_cast<T>(plan.size);
        T* const falling[2] = {spectrum, nullptr};
        fft.walk(falling, nullptr, [&](int64_t leaf, int64_t offset) {
            C x[W];
            fft.evaluate(x, spectrum + offset, leaf);
            unroll<W>([&](auto i) __attribute__((always_inline)) {
                C{x[i].re * scale, x[i].im * scale}.store(spectrum + offset + i * F::kComplex);
            });
        });
    }

    // ---- one row

    void transform_row(T* to, const T* a, const T* gate, int64_t valid) const {
        if (gate || valid < plan.size) {
            multiply(stage, a, gate, valid, plan.size);
            a = stage;
        }
        fft.descend_real(to, a);
    }

    // The same for a cotangent: in circular mode repeated from `valid` on, which may reach the imaginary parts.
    void transform_cotangent(T* to, const T* a, const T* gate, int64_t valid) const {
        if (!p.circular) return transform_row(to, a, gate, valid);
        multiply(stage, a, gate, valid, valid);
        __builtin_memset(to, 0, 2 * plan.size * sizeof(T));
        for (int64_t t = 0; t < valid; ++t) to[place(t)] = to[tail(t + valid)] = stage[t];
        fft.descend(0, 0, to);
    }

    // out = gate times the real part of what `from` holds; 0 from valid on.
    void restore_row(T* out, const T* from, const T* gate, int64_t valid) const {
        const bool straight = !gate && valid == plan.size;
        fft.ascend_real(straight ? out : stage, from);
        if (!straight) multiply(out, stage, gate, valid, p.length);
    }

    void convolve(T* out, const T* u, const T* pre_gate, const T* post_gate, int64_t valid,
                  const Ahead<T>& ahead) const {
        transform_row(work, u, pre_gate, valid);
        T* const falling[2] = {work, nullptr};
        fft.walk(falling, work, [&](int64_t leaf, int64_t offset) {
            C x[W];
            ahead.fetch(offset / 2, offset / 2 + W * W);
            fft.evaluate(x, work + offset, leaf);
            unroll<W>([&](auto i) __attribute__((always_inline)) {
                const C s = C::load(spectrum + offset + i * F::kComplex);
                x[i] = x[i].times(s.re, s.im);
            });
            fft.interpolate(work + offset, x, leaf);
        });
        if (!p.circular) return restore_row(out, work, post_gate, valid);
        fft.ascend(0, 0, work);
        for (int64_t t = 0; t < valid; ++t) stage[t] = work[place(t)] + work[tail(t + valid)];
        multiply(out, stage, post_gate, valid, p.length);
    }

    // work: G, down and up again as dx; values: U, down; sums += conj(U) G. Either may be left out.
    void correlate(bool want_x, bool want_taps, const Ahead<T>& ahead) const {
        T* const falling[2] = {work, want_taps ? values : nullptr};
        fft.walk(falling, want_x ? work : nullptr, [&](int64_t leaf, int64_t offset) {
            C x[W];
            ahead.fetch(offset / 2, offset / 2 + W * W);
            if (want_taps) {
                fft.evaluate(x, values + offset, leaf);
                unroll<W>([&](auto i)
                              __attribute__((always_inline)) { x[i].store(values + offset + i * F::kComplex); });
            }
            fft.evaluate(x, work + offset, leaf);
            if (want_taps)
                unroll<W>([&](auto i) __attribute__((always_inline)) {
                    const int64_t at = offset + i * F::kComplex;
                    const C u = C::load(values + at);
                    (C::load(sums + at) + x[i].times_conjugate(u.re, u.im)).store(sums + at);
                });
            if (!want_x) return;
            unroll<W>([&](auto i) __attribute__((always_inline)) {
                const C s = C::load(spectrum + offset + i * F::kComplex);
                x[i] = x[i].times_conjugate(s.re, s.im);
            });
            fft.interpolate(work + offset, x, leaf);
        });
    }

    // ---- the gradients of the filter, from `sums`

    void restore_taps(T* dk, T* dk_reverse, T* dskip) const {
        const T scale = T(1) / static_cast<T>(plan.size);
        T* const falling[2] = {nullptr, nullptr};
        fft.walk(falling, sums, [&](int64_t leaf, int64_t offset) {
            C x[W];
            unroll<W>([&](auto i) __attribute__((always_inline)) {
                const C sum = C::load(sums + offset + i * F::kComplex);
                x[i] = {sum.re * scale, sum.im * scale};
            });
            fft.interpolate(sums + offset, x, leaf);
        });
        if (dk_reverse) {
            fft.ascend(0, 0, sums);
            for (int64_t m = 1; m <= p.reverse_taps; ++m) dk_reverse[m - 1] = -sums[place(plan.size - m) + W];
            for (int64_t n = 0; dk && n < p.taps; ++n) dk[n] = sums[place(n)];
            if (dskip) *dskip = sums[0];
            return;
        }
        T* out = dk && p.taps == plan.size ? dk : stage;
        fft.ascend_real(out, sums);
        if (dskip) *dskip = out[0];
        if (dk && out != dk) multiply<T>(dk, stage, nullptr, p.taps, p.taps);
    }

    // ---- a filter with samples from first to last

    void forward(int64_t filter, int64_t channel, int64_t first, int64_t last) const {
        const int64_t owner = p.per_sample ? filter / p.channels : 0;
        transform_filter(row<T>(p.k, owner, channel), row<T>(p.k_reverse, owner, channel), row<T>(p.skip, 0, channel));
        for (int64_t b = first; b < last; ++b)
            convolve(row<T>(p.y, b, channel), row<T>(p.u, b, channel), row<T>(p.pre_gate, b, channel),
                     row<T>(p.post_gate, b, channel), valid(b),
                     {next(p.u, b, channel, first, last), next(p.y, b, channel, first, last),
                      next(p.pre_gate, b, channel, first, last), next(p.post_gate, b, channel, first, last)});
    }

    void backward_row(int64_t b, int64_t h, bool want_x, bool want_taps, const Ahead<T>& ahead) const {
        const T *u = row<T>(p.u, b, h), *dy = row<T>(p.dy, b, h);
        const T *pre_gate = row<T>(p.pre_gate, b, h), *post_gate = row<T>(p.post_gate, b, h);
        T *du = row<T>(p.du, b, h), *dpre = row<T>(p.dpre_gate, b, h), *dpost = row<T>(p.dpost_gate, b, h);
        const int64_t count = valid(b);
        if (dpost) {
            convolve(dpost, u, pre_gate, nullptr, count, {});
            multiply<T>(dpost, dpost, dy, count, p.length);
        }
        if (!want_x && !want_taps) return;
        transform_cotangent(work, dy, post_gate, count);
        if (want_taps) transform_row(values, u, pre_gate, count);
        correlate(want_x, want_taps, ahead);
        if (!want_x) return;
        if (!dpre) return restore_row(du, work, pre_gate, count);
        fft.ascend_real(stage, work);
        multiply(dpre, stage, u, count, p.length);
        if (du) multiply(du, stage, pre_gate, count, p.length);
    }

    void backward(int64_t filter, int64_t channel, int64_t first, int64_t last) const {
        const int64_t owner = p.per_sample ? filter / p.channels : 0;
        const bool want_x = p.du.data || p.dpre_gate.data;
        const bool want_taps = p.dk.data || p.dk_reverse.data || p.dskip.data;
        if (want_x || p.dpost_gate.data)
            transform_filter(row<T>(p.k, owner, channel), row<T>(p.k_reverse, owner, channel),
                             row<T>(p.skip, 0, channel));
        if (want_taps) __builtin_memset(sums, 0, 2 * plan.size * sizeof(T));
        for (int64_t b = first; b < last; ++b)
            backward_row(b, channel, want_x, want_taps,
                         {next(p.dy, b, channel, first, last), next(p.u, b, channel, first, last),
                          next(p.du, b, channel, first, last), next(p.pre_gate, b, channel, first, last),
                          next(p.post_gate, b, channel, first, last)});
        if (want_taps)
            restore_taps(row<T>(p.dk, owner, channel), row<T>(p.dk_reverse, owner, channel),
                         row<T>(p.dskip, owner, channel));
    }
};

template <typename T, int W>
struct Job {
    const LongconvFftConv& p;
    Plan<T> plan;
    int64_t filters = p.per_sample ? p.batch * p.channels : p.channels;
    int64_t samples = p.per_sample ? 1 : p.batch;
    int64_t workers = 1;
    int64_t parts = 1;  // in which the samples of a filter are done

    void run(int64_t worker) const {
        const Worker<T, W> w{p,
                             plan,
                             {plan},
                             2 * plan.size + kGap,
                             static_cast<T*>(p.work) + worker * work_numbers(plan.size, p.backward)};
        const int64_t units = filters * parts;
        for (int64_t unit = worker * units / workers; unit < (worker + 1) * units / workers; ++unit) {
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
        for (int64_t worker = begin; worker < end; ++worker) static_cast<const Job*>(context)->run(worker);
    }

    int32_t run() {
        if (filters * samples == 0 && !p.backward) return LONGCONV_OK;
        if (!p.backward && filters < p.threads) parts = least(samples, p.threads);
        const int64_t worth = (filters * samples * plan.size + kWorthAThread - 1) / kWorthAThread;
        workers = least(least(p.threads, filters * parts), least(worth, p.threads));
        return parallel_for(workers, 1, task, this);
    }
};

template <typename T, int W = kMostLanes<T>>
int32_t run(const LongconvFftConv& p, const Plan<T>& plan) {
    if constexpr (W > kLeastLanes<T>)
        if (plan.width < W) return run<T, W / 2>(p, plan);
    return Job<T, W>{p, plan}.run();
}

template <typename T>
int32_t run(const LongconvFftConv& p) {
    return run<T>(p, make_plan<T>(p.length, static_cast<const T*>(p.plan)));
}

}  // namespace

int32_t fft_conv(const LongconvFftConv& p) {
    switch (p.element) {
        case LONGCONV_FLOAT32:
            return run<float>(p);
        case LONGCONV_FLOAT64:
            return run<double>(p);
    }
    return LONGCONV_BAD_ELEMENT;
}

}  // namespace LONGCONV_ISA
}  // namespace longconv
