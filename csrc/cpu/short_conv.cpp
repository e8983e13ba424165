// The short causal convolution with bias and activation, forward and backward, tile of times by tile of times.
//
// A line is a row (times side by side) or a column (the channels of a vector side by side). A tile that needs samples
// before the first one, or that fills no whole vectors, is worked on in a copy; all others where they lie.
//
// With z the sums before the activation f, dz = dy f'(z), g[lag] the taps and x the input after the past samples,
//
//     du[s] = sum_lag g[lag] dz[s + lag],    dinitial the same at s < 0,
//     dg[lag] = sum_{b, t} dz[t] x[t - lag],    dbias = sum_{b, t} dz[t].
//
// The gradients go from the last tile of a line to the first, and hold dz of the tile and of the K - 1 times after it,
// with z computed again: du follows from that at once. Sums over a tile are taken in the precision of the call and
// added up in double precision; they are divided into parts by the sizes alone, so that threads change no result.

#include "activations.h"
#include "kernels.h"
#include "short_conv_job.h"

namespace longconv {
namespace LONGCONV_ISA {
namespace {

// A line of one sample: `lanes` channels from h on.
struct Line {
    int64_t b, h, lanes;
};

template <typename S, bool kColumns>
struct Worker {
    using J = Job<S, kColumns>;
    using T = typename J::T;
    using F = typename J::F;
    using V = typename J::V;
    using Input = typename F::Input;
    static constexpr int W = J::W;
    static constexpr int64_t kWide = J::kWide, kVector = J::kVector;

    const J& job;
    const LongconvShortConv& p = job.p;
    T* memory;
    T* window = memory;
    T* side = window + job.window_size;
    T* lines = side + job.side_size;

    T* slopes(int64_t i) const { return lines + i * job.slopes_size + job.margin * kWide; }
    double* totals(int64_t i) const {
        return reinterpret_cast<double*>(lines + job.group * job.slopes_size) + i * job.totals_size;
    }
    Line line(int64_t b, int64_t i) const { return {b, i * kWide, kColumns ? least(W, p.channels - i * W) : 1}; }

    // ---- copies of a line, and back

    static S* at(const LongconvSequence& s, const Line& l, int64_t t) {
        return static_cast<S*>(s.data) + l.b * s.batch + l.h * s.channel + t * s.time;
    }

    // run(n, numbers, valid, apart) for the vectors of `count` times: how many numbers they have, and their distance.
    template <typename F>
    static void each_vector(const LongconvSequence& s, const Line& l, int64_t t, int64_t count, const F& run) {
        S* from = at(s, l, t);
        for (int64_t n = 0; n < over(count, kVector); ++n)
            run(n, from + n * kVector * s.time, kColumns ? l.lanes : least(W, count - n * W),
                kColumns ? s.channel : s.time);
    }
    static void copy_in(T* to, const LongconvSequence& s, const Line& l, int64_t t, int64_t count) {
        each_vector(s, l, t, count, [&](int64_t n, const S* numbers, int64_t valid, int64_t apart) {
            S gathered[W] = {};
            if (valid < W || apart != 1) {
                for (int64_t i = 0; i < valid; ++i) gathered[i] = numbers[i * apart];
                numbers = gathered;
            }
            F::store(to + n * W, Element<S, T, W>::load(numbers));
        });
    }
    static void copy_out(const LongconvSequence& s, const T* from, const Line& l, int64_t t, int64_t count) {
        each_vector(s, l, t, count, [&](int64_t n, S* numbers, int64_t valid, int64_t apart) {
            S rounded[W];
            const bool whole = valid == W && apart == 1;
            Element<S, T, W>::store(whole ? numbers : rounded, F::load(from + n * W));
            for (int64_t i = 0; !whole && i < valid; ++i) numbers[i * apart] = rounded[i];
        });
    }

    // A tile of whole vectors of T can be worked on where it lies; otherwise NULL.
    static T* in_place(const LongconvSequence& s, const Line& l, int64_t t, int64_t count) {
        if constexpr (sizeof(S) == sizeof(T))
            if (kColumns ? l.lanes == W : count % W == 0) return at(s, l, t);
        return nullptr;
    }

    // The samples of a tile, so that those K - 1 before it can be read too.
    Input input(const Line& l, int64_t t, int64_t count) const {
        const T* taps = kColumns ? job.table() + l.h : static_cast<const T*>(p.w) + l.h * p.taps + job.past;
        const int64_t tap = kColumns ? job.lines * W : -1;
        if (t >= job.past)
            if (const T* x = in_place(p.u, l, t, count)) return {x, taps, kColumns ? p.u.time : 1, tap, p.taps};
        const int64_t before = least(job.past, most(0, job.past - t));  // the samples that lie before u
        __builtin_memset(window, 0, before * kWide * sizeof(T));
        if (p.initial.data) copy_in(window, p.initial, l, t, before);
        copy_in(window + before * kWide, p.u, l, t - job.past + before, job.past - before + count);
        if (!kColumns)
            __builtin_memset(window + job.past + count, 0, W * sizeof(T));  // they meet lanes of dz that are 0
        return {window + job.past * kWide, taps, kWide, tap, p.taps};
    }

    V bias(const Line& l) const {
        if (!p.bias) return V{};
        return F::tap(kColumns ? job.table() + p.taps * job.lines * W + l.h : static_cast<const T*>(p.bias) + l.h);
    }

    // ---- forward

    void forward(const Line& l, int64_t t, int64_t count) const {
        T* const place = in_place(p.y, l, t, count);
        T* const y = place ? place : side;
        const int64_t step = place ? kVector * p.y.time : W, vectors = over(count, kVector);
        F::convolve(y, step, input(l, t, count), vectors, bias(l));
        if (p.activation != LONGCONV_NONE)
            with_activation(p.activation, [&](auto a) {
                for (int64_t n = 0; n < vectors; ++n)
                    F::store(y + n * step, Activations<T, W>::template value<a>(F::load(y + n * step)));
            });
        if (!place) copy_out(p.y, y, l, t, count);
    }

    void forward(int64_t unit) const {
        const int64_t item = unit / job.groups, first = unit % job.groups * job.group;
        const Strip times = job.strip_of(item);
        for (int64_t t = times.first, end; t < times.last; t = end) {
            end = times.after(t);
            for (int64_t i = first; i < least(first + job.group, job.lines); ++i)
                forward(line(item / job.strips, i), t, end - t);
        }
    }

    // ---- backward

    // dz of a tile, in front of what dz holds of the times after it.
    void slopes(T* dz, const Line& l, const Input& in, int64_t t, int64_t count) const {
        const int64_t vectors = over(count, kVector);
        __builtin_memmove(dz + count * kWide, dz, job.past * kWide * sizeof(T));
        if (p.activation != LONGCONV_NONE) F::convolve(dz, W, in, vectors, bias(l));
        const T* dy = in_place(p.dy, l, t, count);
        const int64_t step = dy ? kVector * p.dy.time : W;
        if (!dy) {
            copy_in(side, p.dy, l, t, count);
            dy = side;
        }
        with_activation(p.activation, [&](auto a) {
            for (int64_t n = 0; n < vectors; ++n) {
                V slope = F::load(dy + n * step);
                if constexpr (int(decltype(a){}) != LONGCONV_NONE)
                    slope *= Activations<T, W>::template slope<a>(F::load(dz + n * W));
                F::store(dz + n * W, slope);
            }
        });
        if (t + count == p.length) __builtin_memset(dz + count * kWide, 0, (job.past + W) * kWide * sizeof(T));
    }

    // du, or dinitial, of `count` vectors at the times from t on: of dz[first ..].
    Input turned(const T* dz, const Line& l, int64_t first) const {
        const T* taps =
            kColumns ? job.table() + job.past * job.lines * W + l.h : static_cast<const T*>(p.w) + l.h * p.taps;
        return {dz + (first + job.past) * kWide, taps, kWide, kColumns ? -job.lines * W : 1, p.taps};
    }

    void input_gradient(const T* dz, const Line& l, int64_t t, int64_t count) const {
        T* const place = in_place(p.du, l, t, count);
        F::convolve(place ? place : side, place ? kVector * p.du.time : W, turned(dz, l, 0), over(count, kVector), V{});
        if (!place) copy_out(p.du, side, l, t, count);
    }

    void past_gradient(const T* dz, const Line& l) const {
        F::convolve(side, W, turned(dz, l, -job.margin), job.margin / kVector, V{});
        copy_out(p.dinitial, side + (job.margin - job.past) * kWide, l, 0, job.past);
    }

    void bias_gradient(double* total, const T* dz, int64_t vectors) const {
        V sum[4] = {};
        for (int64_t n = 0; n < vectors; ++n) sum[n % 4] += F::load(dz + n * W);
        F::add(total, (sum[0] + sum[1]) + (sum[2] + sum[3]));
    }

    void backward(int64_t i, const Line& l, int64_t t, int64_t count, bool slopes_alone) const {
        T* dz = slopes(i);
        const bool sums_up = p.dw && !slopes_alone;
        const Input in = p.activation != LONGCONV_NONE || sums_up ? input(l, t, count) : Input{};
        slopes(dz, l, in, t, count);
        if (slopes_alone) return;
        if (sums_up) F::correlate_within(totals(i), dz, in, count, p.initial.data ? -job.past : -t, count);
        if (p.dbias) bias_gradient(totals(i) + p.taps * F::kLanes, dz, over(count, kVector));
        if (p.du.data) input_gradient(dz, l, t, count);
        if (p.dinitial.data && t == 0) past_gradient(dz, l);
    }

    void backward(const Strip& times, int64_t b, int64_t first, bool slopes_alone) const {
        for (int64_t end = times.last, t; end > times.first; end = t) {
            t = times.before(end);
            for (int64_t i = first; i < least(first + job.group, job.lines); ++i)
                backward(i - first, line(b, i), t, end - t, slopes_alone);
        }
    }

    void backward(int64_t unit) const {
        const int64_t part = unit / job.groups, first = unit % job.groups * job.group;
        const int64_t begin = part * job.items / job.parts, end = (part + 1) * job.items / job.parts;
        for (int64_t i = 0; i < job.group; ++i) {
            __builtin_memset(slopes(i) - job.margin * kWide, 0, job.slopes_size * sizeof(T));
            __builtin_memset(totals(i), 0, job.totals_size * sizeof(double));
        }
        for (int64_t item = end - 1; item >= begin; --item) {
            const Strip times = job.strip_of(item);
            if (item == end - 1 && times.last < p.length)
                backward(job.times(times.last, least(p.length, times.last + round_up(job.past, kVector))),
                         item / job.strips, first, true);
            backward(times, item / job.strips, first, false);
        }
        for (int64_t i = first; i < least(first + job.group, job.lines); ++i) put_sums(part, i, totals(i - first));
    }

    void put_sums(int64_t part, int64_t i, const double* total) const {
        const Line l = line(0, i);
        for (int64_t lag = 0; lag <= p.taps; ++lag)
            for (int64_t c = 0; c < l.lanes; ++c) {
                double sum = total[lag * F::kLanes + c];
                for (int lane = 1; !kColumns && lane < F::kLanes; ++lane) sum += total[lag * F::kLanes + lane];
                job.sums()[(part * p.channels + l.h + c) * (p.taps + 1) + lag] = sum;
            }
    }
};

template <typename S, bool kColumns>
void work(int64_t begin, int64_t end, void* context) {
    const auto& job = *static_cast<const Job<S, kColumns>*>(context);
    const int64_t workers = job.workers();
    for (int64_t i = begin; i < end; ++i) {
        char* memory = static_cast<char*>(job.p.work) + job.table_memory + job.sums_memory + i * job.worker_memory;
        const Worker<S, kColumns> worker{job, job.p, reinterpret_cast<typename Precision<S>::T*>(memory)};
        for (int64_t unit = i * job.units / workers; unit < (i + 1) * job.units / workers; ++unit)
            job.p.backward ? worker.backward(unit) : worker.forward(unit);
    }
}

template <typename S, bool kColumns>
void add_parts(int64_t begin, int64_t end, void* context) {
    static_cast<const Job<S, kColumns>*>(context)->add_parts(begin, end);
}

template <typename S, bool kColumns>
int32_t run(const LongconvShortConv& p, int64_t* memory) {
    Job<S, kColumns> job{p};
    if (memory) {
        *memory = job.memory();
        return LONGCONV_OK;
    }
    if (kColumns) job.fill_table();
    const int32_t status = parallel_for(job.workers(), 1, work<S, kColumns>, &job);
    if (status || !(p.dw || p.dbias)) return status;
    return parallel_for(p.channels, kWorthAThread / (job.parts * p.taps) + 1, add_parts<S, kColumns>, &job);
}

template <typename S>
int32_t run(const LongconvShortConv& p, int64_t* memory) {
    return p.columns ? run<S, true>(p, memory) : run<S, false>(p, memory);
}

}  // namespace

int32_t short_conv(const LongconvShortConv& p, int64_t* memory) {
    switch (p.element) {
        case LONGCONV_FLOAT32:
            return run<float>(p, memory);
        case LONGCONV_FLOAT64:
            return run<double>(p, memory);
        case LONGCONV_BFLOAT16:
            return run<Bfloat16>(p, memory);
        case LONGCONV_FLOAT16:
            return run<Float16>(p, memory);
    }
    return LONGCONV_BAD_ELEMENT;
}

}  // namespace LONGCONV_ISA
}  // namespace longconv
