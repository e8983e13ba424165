// A worker of csrc/cpu/fft_conv.cpp: filter after filter, and the samples of each, row by row.
//
// The filter's spectrum S (with skip, the reversed filter as -i k[m - 1] at X^(size - m), for X^-m = -i X^(size - m))
// is finished leaf by leaf as the first sample passes, and stays in the worker's memory for the others. At the points
// 1 / X is the conjugate of X, so the gradients are, with U and G the values of the gated input and of the cotangent,
//
//     dx = inverse(G conj(S)),    dk = Re inverse(sum_b conj(U) G),    dk_reverse[m - 1] = -Im of the same at size - m.
//
// Circular mode is the product itself in a ring modulo X^size - 1. Where the period is not the size, Re and Im of the
// product modulo X^size - i are the whole linear convolution z[0 .. 2 size), and y[t] = z[t] + z[t + n] for a period of
// n. The adjoint of that fold repeats the cotangent.
//
// Gates are multiplied in as rows are read and written by the first and last pass.

#ifndef LONGCONV_CPU_FFT_WORKER_H
#define LONGCONV_CPU_FFT_WORKER_H

#include "conv_job.h"
#include "fft.h"

namespace longconv {
namespace LONGCONV_ISA {

// The rows that come next, and the bytes of a number in them. They are fetched into the outer cache a leaf's part at a
// time.
struct Ahead {
    struct Row {
        const char* data;  // NULL for none
        int64_t step;
    };
    Row rows[9];

    LONGCONV_INLINE void fetch(int64_t begin, int64_t count) const {
        for (const Row& row : rows) {
            if (!row.data) continue;
            const char* from = row.data + begin * row.step;
            for (int64_t n = 0; n < count * row.step; n += 64) {
                __builtin_prefetch(from + n, 0, 2);
                asm volatile("");  // GCC drops loops that do nothing but fetch
            }
        }
    }
};
constexpr int64_t kAhead = 1 << 14;     // numbers: longer rows would drive this one out of the cache
constexpr int64_t kStreamed = 1 << 20;  // numbers: rows that are better written past the caches

template <typename T, int W>
struct Worker {
    using F = Fft<T, W>;
    using C = typename F::C;
    using V = typename F::V;

    const LongconvFftConv& p;
    const Plan<T>& plan;
    T* spectrum;
    F fft{plan};
    int64_t pitch = 2 * plan.size + kGap;
    T* work = spectrum + pitch;
    T* line = work + pitch;    // circular mode and reversed filters: real parts, then imaginary parts
    T* values = line + pitch;  // backward alone: U
    T* sums = values + pitch;  // and sum_b conj(U) G
    bool folded = p.circular && !plan.own_ring, streamed = p.length >= kStreamed;

    static int64_t numbers(const Plan<T>& plan, bool backward) { return (backward ? 5 : 3) * (2 * plan.size + kGap); }

    int64_t valid(int64_t sample) const { return valid_length(p, sample); }

    // run(S{}) for the type S that the sequences are stored in.
    template <typename Run>
    LONGCONV_INLINE void with_storage(const Run& run) const {
        LONGCONV_ISA::with_storage<T>(p.element, run);
    }

    // The row of the next sample, or the first sample's in the next channel.
    Ahead::Row next(const LongconvRows& rows, int64_t sample, int64_t channel, int64_t first, int64_t last) const {
        const bool same = sample + 1 < last;
        if (!rows.data || plan.size > kAhead || (!same && channel + 1 == p.channels)) return {};
        const int64_t step = bytes_of(p.element),
                      at = (same ? sample + 1 : first) * rows.batch + (channel + !same) * rows.channel;
        return {static_cast<const char*>(rows.data) + at * step, step};
    }

    // The filter of the next channel, while the last sample passes.
    Ahead::Row next_taps(const LongconvRows& rows, int64_t owner, int64_t channel, bool is_last, int64_t step) const {
        if (!rows.data || plan.size > kAhead || !is_last || channel + 1 == p.channels) return {};
        return {static_cast<const char*>(rows.data) + (owner * rows.batch + (channel + 1) * rows.channel) * step, step};
    }

    // ---- between a line and a complex buffer with its level 0 done

    void descend_line(T* to) const {
        for (int64_t n = 0; n < plan.size; n += W)
            C{Element<T, T, W>::load(line + n), Element<T, T, W>::load(line + plan.size + n)}.store(to + 2 * n);
        fft.descend(0, 0, to);
    }

    void ascend_line(T* from) const {
        fft.ascend(0, 0, from);
        for (int64_t n = 0; n < plan.size; n += W) {
            const C x = C::load(from + 2 * n);
            Element<T, T, W>::store(line + n, x.re), Element<T, T, W>::store(line + plan.size + n, x.im);
        }
    }

    // ---- the filter

    // Its level 0, in `spectrum`.
    void transform_filter(int64_t owner, int64_t channel) const {
        const T* k = taps_of<T, W>(p, p.k, owner, channel, p.taps, work);
        const T* reverse = taps_of<T, W>(p, p.k_reverse, owner, channel, p.reverse_taps, work + plan.size);
        if (reverse) {
            __builtin_memset(line, 0, 2 * plan.size * sizeof(T));
            __builtin_memcpy(line, k, p.taps * sizeof(T));
            for (int64_t m = 1; m <= p.reverse_taps; ++m) line[2 * plan.size - m] = -reverse[m - 1];
            descend_line(spectrum);
        } else {
            fft.descend_real(spectrum, Reader<T, T, W>(k, p.taps));
        }
    }

    // Its values at the points of a leaf, by which inverses are divided.
    LONGCONV_INLINE void finish_filter(int64_t channel, int64_t leaf, int64_t offset) const {
        const T* skip = row<T>(p.skip, 0, channel);
        const T scale = T(1) / static_cast<T>(plan.size), all = skip ? *skip : T(0);
        C x[W];
        fft.evaluate(x, spectrum + offset, leaf);
        unroll<W>([&](auto i) __attribute__((always_inline)) {
            C{(x[i].re + all) * scale, x[i].im * scale}.store(spectrum + offset + i * F::kComplex);
        });
    }

    // ---- one row

    // Level 0 of x = a gate, `repeated` as a cotangent of circular mode: once more from `valid` on.
    void transform_row(T* to, const LongconvRows& a, const LongconvRows& gate, int64_t b, int64_t h,
                       bool repeated = false) const {
        const int64_t count = valid(b);
        with_storage([&](auto s) {
            using Rows = Reader<decltype(s), T, W>;
            const Rows x(row<decltype(s)>(a, b, h), count);
            const auto* gates = row<decltype(s)>(gate, b, h);
            if (repeated) {
                const Rows g(gates, gates ? count : 0);
                for (int64_t n = 0; n < count; n += W) Element<T, T, W>::store(line + n, gates ? x(n) * g(n) : x(n));
                __builtin_memcpy(line + count, line, count * sizeof(T));
                __builtin_memset(line + 2 * count, 0, 2 * (plan.size - count) * sizeof(T));
                descend_line(to);
            } else if (gates) {
                const Rows g(gates, count);
                fft.descend_real(to, [&](int64_t n) __attribute__((always_inline)) { return x(n) * g(n); });
            } else {
                fft.descend_real(to, x);
            }
        });
    }

    // The row of the real parts that `from` holds, handed to out(n, vector) by the last pass; folded as circular mode
    // asks.
    template <typename Out>
    void last_pass(const Out& out, T* from, int64_t count, bool fold) const {
        if (!fold) return fft.ascend_real(out, from);
        ascend_line(from);
        for (int64_t n = 0; n < count; n += W)
            out(n, Element<T, T, W>::load(line + n) + Element<T, T, W>::load(line + n + count));
    }

    // to = gate times the row, 0 from its valid length on.
    void restore_row(const LongconvRows& to, const LongconvRows& gate, T* from, int64_t b, int64_t h, bool fold) const {
        const int64_t count = valid(b);
        with_storage([&](auto s) {
            using S = decltype(s);
            const Writer<S, T, W> out(row<S>(to, b, h), count, streamed);
            if (gate.data) {
                const Reader<S, T, W> g(row<S>(gate, b, h), count);
                last_pass([&](int64_t n, const V& x) __attribute__((always_inline)) { out(n, x * g(n)); }, from, count,
                          fold);
            } else {
                last_pass(out, from, count, fold);
            }
            out.finish(p.length);
        });
    }

    // du = pre_gate dx and dpre_gate = u dx from the one dx.
    void restore_both(T* from, int64_t b, int64_t h) const {
        const int64_t count = valid(b);
        with_storage([&](auto s) {
            using S = decltype(s);
            const Writer<S, T, W> du(row<S>(p.du, b, h), count, streamed),
                dpre(row<S>(p.dpre_gate, b, h), count, streamed);
            const Reader<S, T, W> u(row<S>(p.u, b, h), count), pre(row<S>(p.pre_gate, b, h), count);
            fft.ascend_real(
                [&](int64_t n, const V& dx) __attribute__((always_inline)) {
                    du(n, dx * pre(n));
                    dpre(n, dx * u(n));
                },
                from);
            du.finish(p.length), dpre.finish(p.length);
        });
    }

    // `first`: the filter's spectrum is not there yet.
    void convolve(int64_t b, int64_t h, bool first, const Ahead& ahead) const {
        transform_row(work, p.u, p.pre_gate, b, h);
        fft.walk({{work, first ? spectrum : nullptr}, {work}}, [&](int64_t leaf, int64_t offset) {
            if (first) finish_filter(h, leaf, offset);
            C x[W];
            ahead.fetch(offset / 2, W * W / 2);
            fft.evaluate(x, work + offset, leaf);
            ahead.fetch(offset / 2 + W * W / 2, W * W / 2);
            multiply(x, offset);
            fft.interpolate(work + offset, x, leaf);
        });
        restore_row(p.y, p.post_gate, work, b, h, folded);
    }

    LONGCONV_INLINE void multiply(C* x, int64_t offset) const {
        unroll<W>([&](auto i) __attribute__((always_inline)) {
            const C s = C::load(spectrum + offset + i * F::kComplex);
            x[i] = x[i].times(s.re, s.im);
        });
    }

    // What a call wants, and whether a sample is the first or the last of its filter.
    struct Wanted {
        bool x, taps, y, first, last;
    };

    // values: U, down, and with want.y up again as y; work: G, down, and with want.x up again as dx; with want.taps
    // sums += conj(U) G, which come up after the last sample.
    void correlate(int64_t h, const Wanted& want, const Ahead& ahead) const {
        const bool need_u = want.taps || want.y, need_g = want.x || want.taps;
        const bool new_filter = want.first && (want.x || want.y), finish_taps = want.taps && want.last;
        const typename F::Buffers buffers = {
            {need_g ? work : nullptr, need_u ? values : nullptr, new_filter ? spectrum : nullptr},
            {want.x ? work : nullptr, want.y ? values : nullptr, finish_taps ? sums : nullptr}};
        fft.walk(buffers, [&](int64_t leaf, int64_t offset) {
            alignas(64) T aside[F::kLeaf];
            T* points = want.y ? aside : values + offset;
            C x[W];
            if (new_filter) finish_filter(h, leaf, offset);
            ahead.fetch(offset / 2, W * W / 2);
            if (need_u) {
                fft.evaluate(x, values + offset, leaf);
                unroll<W>([&](auto i) __attribute__((always_inline)) { x[i].store(points + i * F::kComplex); });
                if (want.y) {
                    multiply(x, offset);
                    fft.interpolate(values + offset, x, leaf);
                }
            }
            ahead.fetch(offset / 2 + W * W / 2, W * W / 2);
            if (!need_g) return;
            fft.evaluate(x, work + offset, leaf);
            if (want.taps) add_products(x, points, sums + offset, want.first);
            if (want.x) {
                unroll<W>([&](auto i) __attribute__((always_inline)) {
                    const C s = C::load(spectrum + offset + i * F::kComplex);
                    x[i] = x[i].times_conjugate(s.re, s.im);
                });
                fft.interpolate(work + offset, x, leaf);
            }
            if (finish_taps) interpolate_taps(leaf, offset);
        });
    }

    // to (+)= conj(u) g
    static LONGCONV_INLINE void add_products(const C* g, const T* u_points, T* to, bool first) {
        unroll<W>([&](auto i) __attribute__((always_inline)) {
            const C u = C::load(u_points + i * F::kComplex), product = g[i].times_conjugate(u.re, u.im);
            T* sum = to + i * F::kComplex;
            (first ? product : C::load(sum) + product).store(sum);
        });
    }

    // ---- the gradients of the filter, from `sums`

    LONGCONV_INLINE void interpolate_taps(int64_t leaf, int64_t offset) const {
        const T scale = T(1) / static_cast<T>(plan.size);
        C x[W];
        unroll<W>([&](auto i) __attribute__((always_inline)) {
            const C sum = C::load(sums + offset + i * F::kComplex);
            x[i] = {sum.re * scale, sum.im * scale};
        });
        fft.interpolate(sums + offset, x, leaf);
    }

    void restore_taps(T* dk, T* dk_reverse, T* dskip) const {
        if (dk && !dk_reverse) {
            const Writer<T, T, W> out(dk, p.taps);
            fft.ascend_real(out, sums);
            out.finish(p.taps);
        } else {
            ascend_line(sums);
            for (int64_t m = 1; dk_reverse && m <= p.reverse_taps; ++m) dk_reverse[m - 1] = -line[2 * plan.size - m];
            if (dk) __builtin_memcpy(dk, line, p.taps * sizeof(T));
        }
        if (dskip) *dskip = dk ? dk[0] : line[0];
    }

    // ---- a filter with samples from first to last

    void forward(int64_t filter, int64_t channel, int64_t first, int64_t last) const {
        const int64_t owner = p.per_sample ? filter / p.channels : 0;
        transform_filter(owner, channel);
        for (int64_t b = first; b < last; ++b) {
            const auto ahead = [&](const LongconvRows& rows) { return next(rows, b, channel, first, last); };
            convolve(b, channel, b == first,
                     {{ahead(p.u), ahead(p.y), ahead(p.pre_gate), ahead(p.post_gate),
                       next_taps(p.k, owner, channel, b + 1 == last, bytes_of(p.filter_element))}});
        }
    }

    void backward_row(int64_t b, int64_t h, const Wanted& want, const Ahead& ahead) const {
        if (want.x || want.taps) transform_row(work, p.dy, p.post_gate, b, h, folded);
        if (want.y || want.taps) transform_row(values, p.u, p.pre_gate, b, h);
        correlate(h, want, ahead);
        if (want.y) restore_row(p.dpost_gate, p.dy, values, b, h, folded);
        if (p.du.data && p.dpre_gate.data) return restore_both(work, b, h);
        if (p.du.data) restore_row(p.du, p.pre_gate, work, b, h, false);
        if (p.dpre_gate.data) restore_row(p.dpre_gate, p.u, work, b, h, false);
    }

    void backward(int64_t filter, int64_t channel, int64_t first, int64_t last) const {
        const int64_t owner = p.per_sample ? filter / p.channels : 0;
        Wanted want = {p.du.data || p.dpre_gate.data, p.dk.data || p.dk_reverse.data || p.dskip.data,
                       p.dpost_gate.data != nullptr, true, false};
        if (want.x || want.y) transform_filter(owner, channel);
        if (want.taps && first == last) __builtin_memset(sums, 0, 2 * plan.size * sizeof(T));
        for (int64_t b = first; b < last; ++b) {
            want.first = b == first, want.last = b + 1 == last;
            const auto ahead = [&](const LongconvRows& rows) { return next(rows, b, channel, first, last); };
            const auto taps = [&](const LongconvRows& rows, int64_t step) {
                return next_taps(rows, owner, channel, want.last, step);
            };
            backward_row(
                b, channel, want,
                {{ahead(p.dy), ahead(p.u), ahead(p.du), ahead(p.pre_gate), ahead(p.post_gate), ahead(p.dpre_gate),
                  ahead(p.dpost_gate), taps(p.k, bytes_of(p.filter_element)), taps(p.dk, sizeof(T))}});
        }
        if (want.taps)
            restore_taps(row<T>(p.dk, owner, channel), row<T>(p.dk_reverse, owner, channel),
                         row<T>(p.dskip, owner, channel));
    }
};

template <typename T, int W>
int32_t fft_rows(const LongconvFftConv& p, const Plan<T>& plan, int64_t* memory) {
    const auto make = [&](T* work) { return Worker<T, W>{p, plan, work}; };
    return run_conv<T>(p, Worker<T, W>::numbers(plan, p.backward), plan.size, make, memory);
}

}  // namespace LONGCONV_ISA
}  // namespace longconv

#endif
