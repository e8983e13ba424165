// How a short convolution is divided into tiles, strips, units and workers, and what memory that takes: included by
// csrc/cpu/short_conv.cpp alone.

#ifndef LONGCONV_CPU_SHORT_CONV_JOB_H
#define LONGCONV_CPU_SHORT_CONV_JOB_H

#include "element.h"
#include "fir.h"
#include "longconv.h"

namespace longconv {
namespace LONGCONV_ISA {

constexpr int64_t kWorthAThread = 1 << 17;  // products
constexpr int64_t kMostLines = 64;          // lines side by side, forward
constexpr int64_t kLineMemory = 256 << 10;  // bytes of them, backward
constexpr int64_t kUnits = 64;              // into which the gradients of the taps are divided, where it is worth it

inline int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}
inline int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}
inline int64_t over(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
inline int64_t round_up(int64_t a, int64_t b) {
    return over(a, b) * b;
}

// Times of a strip [first, last) as tiles, which never begin or end within a vector save at the end of the sequence.
struct Strip {
    int64_t first, last, head, tile, vector;  // times below `head` are in tiles of their own

    int64_t after(int64_t begin) const {
        const int64_t base = most(first, least(head, last));
        if (begin < base) return least(base, (begin / tile + 1) * tile);
        return last - begin < vector ? last : least(begin + tile, last / vector * vector);
    }
    int64_t before(int64_t end) const {
        const int64_t base = most(first, least(head, last));
        if (end <= base) return most(first, (end - 1) / tile * tile);
        return end % vector ? most(base, end / vector * vector) : base + (end - base - 1) / tile * tile;
    }
};

// The precision in which sequences stored as S are computed; taps and their gradients are of it too.
template <typename S>
struct Precision {
    using T = float;
};
template <>
struct Precision<double> {
    using T = double;
};

template <typename S, bool kColumns>
struct Job {
    using T = typename Precision<S>::T;
    using F = Fir<T, kColumns>;
    using V = typename F::V;
    static constexpr int W = F::W;
    static constexpr int64_t kWide = kColumns ? W : 1;      // numbers of a line at one time, in a copy
    static constexpr int64_t kVector = F::kPhases;          // times in a vector
    static constexpr int64_t kTile = kColumns ? 64 : 2048;  // times

    const LongconvShortConv& p;
    int64_t past = p.taps - 1;
    int64_t margin = round_up(past, kVector);
    int64_t lines = kColumns ? over(p.channels, W) : p.channels;
    int64_t head = kColumns ? 0 : past > kTile ? round_up(past, kTile) : least(kTile, round_up(16 * past, W));
    // Memory, in numbers of T or of double; multiples of 64 bytes.
    int64_t window_size = round_up((kTile + past + W) * kWide, 64);
    int64_t side_size = round_up((most(kTile, margin) + W) * kWide, 64);
    int64_t slopes_size = round_up((margin + kTile + past + W) * kWide, 64);
    int64_t totals_size = round_up(p.taps * F::kLanes + W, 64);
    int64_t line_memory = slopes_size * sizeof(T) + totals_size * sizeof(double);

    int64_t group = least(lines, !p.backward ? (kColumns ? kMostLines : 1)
                                 : kColumns  ? most(1, least(16, kLineMemory / line_memory))
                                             : 1);
    int64_t groups = lines ? over(lines, group) : 0;
    int64_t strip =
        p.backward ? round_up(most(16 * p.taps, kColumns ? 1024 : 16384), kTile) : (kColumns ? 4 * kTile : 8 * kTile);
    int64_t strips = over(p.length, strip);
    int64_t items = p.batch * strips;  // (sample, strip)
    int64_t parts = p.backward ? least(items, groups ? over(kUnits, groups) : 1) : items;
    int64_t units = groups * parts;

    int64_t worker_memory = (window_size + side_size) * int64_t(sizeof(T)) + (p.backward ? group * line_memory : 0);
    int64_t table_memory = kColumns ? round_up((p.taps + 1) * lines * W * sizeof(T), 64) : 0;
    int64_t sums_memory = p.backward ? round_up(parts * p.channels * (p.taps + 1) * sizeof(double), 64) : 0;

    int64_t workers() const {
        const double products = double(p.batch) * double(p.channels) * double(p.length) * double(p.taps + 16);
        const double worth = products / double(kWorthAThread) + 1;
        return least(least(p.threads, units), worth < p.threads ? int64_t(worth) : p.threads);
    }
    int64_t memory() const { return table_memory + sums_memory + workers() * worker_memory; }

    T* table() const { return static_cast<T*>(p.work); }  // columns: the taps by lag, then the bias
    double* sums() const { return reinterpret_cast<double*>(static_cast<char*>(p.work) + table_memory); }

    Strip times(int64_t first, int64_t last) const { return {first, last, head, kTile, kVector}; }
    Strip strip_of(int64_t item) const {
        const int64_t first = item % strips * strip;
        return times(first, least(p.length, first + strip));
    }

    // Taps by lag as vectors, zeros for the channels that fill up the last vector.
    void fill_table() const {
        const int64_t pitch = lines * W;
        const T *w = static_cast<const T*>(p.w), *bias = static_cast<const T*>(p.bias);
        for (int64_t h = 0; h < pitch; ++h) {
            const bool real = h < p.channels;
            for (int64_t lag = 0; lag <= past; ++lag)
                table()[lag * pitch + h] = real ? w[h * p.taps + past - lag] : T(0);
            table()[p.taps * pitch + h] = real && bias ? bias[h] : T(0);
        }
    }

    void add_parts(int64_t begin, int64_t end) const {
        T *dw = static_cast<T*>(p.dw), *dbias = static_cast<T*>(p.dbias);
        for (int64_t h = begin; h < end; ++h)
            for (int64_t lag = 0; lag <= p.taps; ++lag) {
                double sum = 0;
                for (int64_t part = 0; part < parts; ++part)
                    sum += sums()[(part * p.channels + h) * (p.taps + 1) + lag];
                if (lag < p.taps && dw) dw[h * p.taps + past - lag] = static_cast<T>(sum);
                if (lag == p.taps && dbias) dbias[h] = static_cast<T>(sum);
            }
    }
};

}  // namespace LONGCONV_ISA
}  // namespace longconv

#endif
