// What the sums of csrc/cpu/vandermonde.cpp and their gradients share: the nodes of a set, and a worker's memory.

#ifndef LONGCONV_CPU_VANDERMONDE_H
#define LONGCONV_CPU_VANDERMONDE_H

#include "kernels.h"
#include "powers.h"
#include "workers.h"

namespace longconv {
namespace LONGCONV_ISA {

// Numbers of all modes in memory, a Wide after the other: mode n is a lane of one of them.
struct Modes {
    double* data;

    Wide load(int64_t group) const { return Wide::load(data + 2 * kDoubles * group); }
    void store(int64_t group, const Wide& x) const { x.store(data + 2 * kDoubles * group); }
    double& re(int64_t n) const { return data[n / kDoubles * 2 * kDoubles + n % kDoubles]; }
    double& im(int64_t n) const { return data[n / kDoubles * 2 * kDoubles + n % kDoubles + kDoubles]; }
};

// The nodes of a set, those of slow decay first: beyond some time only the first of them are not yet negligible.
template <typename T>
struct Nodes {
    static constexpr int W = kVectorBytes / sizeof(T);
    static constexpr int64_t kLongEnoughToSort = 4096;

    const LongconvVandermonde& p;
    int64_t period;                              // T of l = q T + r
    int64_t padded = (p.modes + W - 1) / W * W;  // modes; those beyond p.modes are 0
    int64_t groups = padded / kDoubles;
    int64_t* order;  // of the modes
    double* sizes;
    Modes nodes, steps;  // x and x^T

    Nodes(const LongconvVandermonde& p, int64_t period, Memory& memory)
        : p(p),
          period(period),
          order(memory.take<int64_t>(padded)),
          sizes(memory.take<double>(padded)),
          nodes{memory.take<double>(2 * padded)},
          steps{memory.take<double>(2 * padded)} {}

    bool sorted() const { return p.length >= kLongEnoughToSort; }

    void load(int64_t set) {
        for (int64_t n = 0; n < p.modes; ++n) {
            double re, im;
            get(p.x, set * p.x.set + n * p.x.step, re, im);
            order[n] = n, sizes[n] = p.logarithms ? re : re * re + im * im;
        }
        if (sorted()) sort();
        for (int64_t n = 0; n < padded; ++n) {
            double re = p.logarithms ? -__builtin_inf() : 0, im = 0;
            if (n < p.modes) get(p.x, set * p.x.set + order[n] * p.x.step, re, im);
            nodes.re(n) = re, nodes.im(n) = im;
        }
        for (int64_t g = 0; g < groups; ++g) {
            const Wide x = nodes.load(g);
            if (p.logarithms) {
                const double times = static_cast<double>(period);
                steps.store(g, exponential(Wide{x.re * times, x.im * times}));
                nodes.store(g, exponential(x));
            } else {
                steps.store(g, power(x, period));
            }
        }
    }

    // By falling size; Shell's way.
    void sort() {
        for (int64_t gap = p.modes / 2; gap > 0; gap /= 2)
            for (int64_t i = gap; i < p.modes; ++i) {
                const int64_t n = order[i];
                int64_t place = i;
                for (; place >= gap && sizes[order[place - gap]] < sizes[n]; place -= gap)
                    order[place] = order[place - gap];
                order[place] = n;
            }
    }
};

}  // namespace LONGCONV_ISA
}  // namespace longconv

#endif
