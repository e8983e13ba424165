// The convolution with filters of few taps, in every mode and with its gradients, by sums over the taps (fir.h).
//
// With both filters and skip in one of K + R taps, f = (k_reverse turned round, k[0] + skip, k[1], ...), K of them in k
// and R in k_reverse, and x and g the gated input and cotangent,
//
//     y[t] = sum_j f[j] x[t + R - j],    dx[s] = sum_j f[j] g[s - R + j],    df[j] = sum_{b, t} g[t] x[t + R - j].
//
// A row is done tile by tile; what lies around a tile is read with it, zeros beyond the sequence, or in circular mode
// the sequence again. A tile is worked on in a copy, or where it lies if that has nothing to be added. Sums over a tile
// are in the precision of the call, and added up in double precision.

#include "direct_conv.h"

#include "conv_job.h"
#include "fir.h"

namespace longconv {
namespace LONGCONV_ISA {
namespace {

inline int64_t round_up(int64_t a, int64_t b) {
    return (a + b - 1) / b * b;
}

template <typename T>
struct DirectWorker {
    using F = Fir<T, false>;
    using V = typename F::V;
    static constexpr int W = F::W;
    static constexpr int64_t kTile = 2048;   // times
    static constexpr int64_t kSummed = 128;  // vectors of products that are summed up in T

    // Numbers of T in a worker's memory, multiples of 64 bytes.
    static int64_t filter_size(int64_t taps) { return round_up(taps + W, 64); }
    static int64_t window_size(int64_t taps) { return round_up(kTile + taps + W, 64); }
    static int64_t numbers(int64_t taps) {
        const int64_t totals = round_up(taps * F::kLanes, 64) * int64_t(sizeof(double) / sizeof(T));
        return 2 * filter_size(taps) + 2 * window_size(taps) + kTile + totals;
    }

    const LongconvFftConv& p;
    T* filter;  // f
    int64_t taps = p.taps + p.reverse_taps;
    T* widened = filter + filter_size(taps);  // a filter of 16 bits
    T* x_copy = widened + filter_size(taps);
    T* g_copy = x_copy + window_size(taps);
    T* side = g_copy + window_size(taps);
    double* totals = reinterpret_cast<double*>(side + kTile);

    // A row of a sample, n of it valid.
    struct Line {
        int64_t b, h, n;
    };

    void load_filter(int64_t owner, int64_t h) const {
        const T* reverse = taps_of<T, W>(p, p.k_reverse, owner, h, p.reverse_taps, widened);
        for (int64_t m = 0; m < p.reverse_taps; ++m) filter[p.reverse_taps - 1 - m] = reverse[m];
        const T* k = taps_of<T, W>(p, p.k, owner, h, p.taps, widened);
        __builtin_memcpy(filter + p.reverse_taps, k, p.taps * sizeof(T));
        if (const T* skip = row<T>(p.skip, 0, h)) filter[p.reverse_taps] += *skip;
    }

    // ---- tiles

    // Where the tile at `begin` lies in T, if no gate is on it and all that is read up to `end` lies there too.
    const T* in_place(const LongconvRows& a, const LongconvRows& gate, const Line& l, int64_t begin,
                      int64_t end) const {
        const bool same = p.element == LONGCONV_FLOAT32 || p.element == LONGCONV_FLOAT64;
        return same && !gate.data && begin >= 0 && end <= l.n ? row<T>(a, l.b, l.h) + begin : nullptr;
    }

    // to = a gate at the times [begin, end); up to a vector beyond is written too.
    void copy(T* to, const LongconvRows& a, const LongconvRows& gate, const Line& l, int64_t begin, int64_t end) const {
        for (int64_t count; begin < end; begin += count, to += count) {
            const bool inside = l.n > 0 && (p.circular || (begin >= 0 && begin < l.n));
            if (inside) {
                const int64_t turn = begin % l.n, at = turn < 0 ? turn + l.n : turn;
                count = least(end - begin, l.n - at);
                copy_piece(to, a, gate, l, at, count);
            } else {
                count = begin < 0 ? least(end, 0) - begin : end - begin;
                __builtin_memset(to, 0, count * sizeof(T));
            }
        }
    }
    void copy_piece(T* to, const LongconvRows& a, const LongconvRows& gate, const Line& l, int64_t at,
                    int64_t count) const {
        with_storage<T>(p.element, [&](auto s) {
            using S = decltype(s);
            const Reader<S, T, W> numbers(row<S>(a, l.b, l.h) + at, count);
            if (gate.data) {
                const Reader<S, T, W> gates(row<S>(gate, l.b, l.h) + at, count);
                for (int64_t n = 0; n < count; n += W) F::store(to + n, numbers(n) * gates(n));
            } else {
                for (int64_t n = 0; n < count; n += W) F::store(to + n, numbers(n));
            }
        });
    }

    // The times to.. of a row = gate values.
    void put(const LongconvRows& to, const LongconvRows& gate, const T* values, const Line& l, int64_t t,
             int64_t count) const {
        if (!to.data) return;
        with_storage<T>(p.element, [&](auto s) {
            using S = decltype(s);
            const Writer<S, T, W> out(row<S>(to, l.b, l.h) + t, count);
            if (gate.data) {
                const Reader<S, T, W> gates(row<S>(gate, l.b, l.h) + t, count);
                for (int64_t n = 0; n < count; n += W) out(n, F::load(values + n) * gates(n));
            } else {
                for (int64_t n = 0; n < count; n += W) out(n, F::load(values + n));
            }
            out.finish(count);
        });
    }

    void clear_end(const LongconvRows& to, const Line& l) const {
        const int64_t bytes = bytes_of(p.element);
        if (to.data)
            __builtin_memset(
                row<char>(LongconvRows{to.data, to.batch * bytes, to.channel * bytes}, l.b, l.h) + l.n * bytes, 0,
                (p.length - l.n) * bytes);
    }

    // x from the time t on, so that its taps can be read around it.
    const T* input(const Line& l, int64_t t, int64_t count) const {
        const int64_t before = p.taps - 1, begin = t - before, end = t + round_up(count, W) + p.reverse_taps;
        if (const T* x = in_place(p.u, p.pre_gate, l, begin, end)) return x + before;
        copy(x_copy, p.u, p.pre_gate, l, begin, end);
        return x_copy + before;
    }

    // to = C x
    void convolve(T* to, const T* x, int64_t count) const {
        F::convolve(to, W, {x + p.reverse_taps, filter, 1, 1, taps}, (count + W - 1) / W, V{});
    }

    // Of the tile at t. In circular mode there are numbers everywhere.
    void correlate(const T* x, const T* g, const Line& l, int64_t t, int64_t count) const {
        const int64_t around = p.circular ? taps : 0, begin = -t - p.reverse_taps, end = l.n - t - p.reverse_taps;
        for (int64_t n = 0; n < count; n += kSummed * W)
            F::correlate_within(totals, g + n, {x + p.reverse_taps + n, nullptr, 1, 1, taps},
                                least(kSummed * W, count - n), begin - around - n, end + around - n);
    }

    void forward(const Line& l, int64_t t, int64_t count) const {
        T* const place = count % W ? nullptr : const_cast<T*>(in_place(p.y, p.post_gate, l, t, t + count));
        convolve(place ? place : side, input(l, t, count), count);
        if (!place) put(p.y, p.post_gate, side, l, t, count);
    }

    void backward(const Line& l, int64_t t, int64_t count, bool want_taps) const {
        const bool want_x = p.du.data || p.dpre_gate.data, want_y = p.dpost_gate.data;
        const T* const x = want_taps || want_y ? input(l, t, count) : nullptr;
        if (want_y) {
            convolve(side, x, count);
            put(p.dpost_gate, p.dy, side, l, t, count);
        }
        if (!want_x && !want_taps) return;
        const int64_t before = p.reverse_taps, begin = t - before, end = t + round_up(count, W) + p.taps - 1;
        const T* g = in_place(p.dy, p.post_gate, l, begin, end);
        const bool copied = !g;
        if (copied) {  // what comes after the tile is none of its sums
            copy(g_copy, p.dy, p.post_gate, l, begin, t + count);
            __builtin_memset(g_copy + before + count, 0, W * sizeof(T));
            g = g_copy;
        }
        if (want_taps) correlate(x, g + before, l, t, count);
        if (!want_x) return;
        if (copied) copy(g_copy + before + count, p.dy, p.post_gate, l, t + count, end);
        F::convolve(side, W, {g + taps - 1, filter + taps - 1, 1, -1, taps}, (count + W - 1) / W, V{});
        put(p.du, p.pre_gate, side, l, t, count);
        put(p.dpre_gate, p.u, side, l, t, count);
    }

    // ---- a filter with samples from first to last

    // Where the tile that begins at t ends. Forward those at the ends of a row, which are copied, are small; for the
    // gradients a tile more costs more than a longer copy, since its sums are added up.
    int64_t end_of_tile(int64_t t, int64_t n) const {
        if (p.backward) return least(n, t + kTile);
        const int64_t inner = (n - p.reverse_taps) / W * W, edge = round_up(taps, kFirSums * W);
        return least(t + (t > 0 ? kTile : least(kTile, edge)), t < inner ? inner : n);
    }

    template <typename Tile>
    void each_tile(int64_t h, int64_t first, int64_t last, const Tile& tile) const {
        for (int64_t b = first; b < last; ++b) {
            const Line l = {b, h, valid_length(p, b)};
            for (int64_t t = 0, end; t < l.n; t = end) {
                end = end_of_tile(t, l.n);
                tile(l, t, end - t);
            }
            if (l.n == p.length) continue;
            clear_end(p.y, l), clear_end(p.du, l), clear_end(p.dpre_gate, l), clear_end(p.dpost_gate, l);
        }
    }

    void forward(int64_t unit, int64_t h, int64_t first, int64_t last) const {
        load_filter(p.per_sample ? unit / p.channels : 0, h);
        each_tile(h, first, last, [&](const Line& l, int64_t t, int64_t count) { forward(l, t, count); });
    }

    void backward(int64_t unit, int64_t h, int64_t first, int64_t last) const {
        const int64_t owner = p.per_sample ? unit / p.channels : 0;
        const bool want_taps = p.dk.data || p.dk_reverse.data || p.dskip.data;
        load_filter(owner, h);
        __builtin_memset(totals, 0, taps * F::kLanes * sizeof(double));
        each_tile(h, first, last, [&](const Line& l, int64_t t, int64_t count) { backward(l, t, count, want_taps); });
        if (T* dk = row<T>(p.dk, owner, h))
            for (int64_t m = 0; m < p.taps; ++m) dk[m] = total(p.reverse_taps + m);
        if (T* dk_reverse = row<T>(p.dk_reverse, owner, h))
            for (int64_t m = 0; m < p.reverse_taps; ++m) dk_reverse[m] = total(p.reverse_taps - 1 - m);
        if (T* dskip = row<T>(p.dskip, owner, h)) *dskip = total(p.reverse_taps);
    }

    T total(int64_t tap) const {
        double sum = 0;
        for (int lane = 0; lane < F::kLanes; ++lane) sum += totals[tap * F::kLanes + lane];
        return static_cast<T>(sum);
    }
};

}  // namespace

template <typename T>
int32_t direct_conv(const LongconvFftConv& p, int64_t* memory) {
    const int64_t taps = p.taps + p.reverse_taps, cost = p.length * (taps + 16) / 64 + 1;
    const auto make = [&](T* work) { return DirectWorker<T>{p, work}; };
    return run_conv<T>(p, DirectWorker<T>::numbers(taps), cost, make, memory);
}
template int32_t direct_conv<float>(const LongconvFftConv& p, int64_t* memory);
template int32_t direct_conv<double>(const LongconvFftConv& p, int64_t* memory);

}  // namespace LONGCONV_ISA
}  // namespace longconv
