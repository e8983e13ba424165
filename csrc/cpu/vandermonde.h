// What the sums of csrc/cpu/vandermonde.cpp and their gradients share: the nodes of a set, and a worker's memory.

#ifndef LONGCONV_CPU_VANDERMONDE_H
#define LONGCONV_CPU_VANDERMONDE_H

#include "kernels.h"
#include "powers.h"

namespace longconv {
namespace LONGCONV_ISA {

inline int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

// Pieces of a worker's memory, one after the other; with no memory at all their size alone is found.
struct Memory {
    char* at;
    int64_t bytes = 0;

    template <typename T>
    T* take(int64_t count) {
        T* const taken = at ? reinterpret_cast<T*>(at + bytes) : nullptr;
        bytes += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
        return taken;
    }
};

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

// Every worker takes a range of the units, which share nothing.
template <typename Worker>
struct Job {
    const LongconvVandermonde& p;
    int64_t units, workers, bytes;

    static void task(int64_t begin, int64_t end, void* context) {
        const Job& job = *static_cast<const Job*>(context);
        for (int64_t i = begin; i < end; ++i) {
            Memory memory{static_cast<char*>(job.p.work) + i * job.bytes};
            Worker worker(job.p, memory);
            for (int64_t unit = i * job.units / job.workers; unit < (i + 1) * job.units / job.workers; ++unit)
                worker.run(unit);
        }
    }
};

template <typename Worker>
int32_t run_all(const LongconvVandermonde& p, int64_t* work_bytes) {
    Memory memory{nullptr};
    const Worker sizes(p, memory);
    if (work_bytes) {
        *work_bytes = memory.bytes;
        return LONGCONV_OK;
    }
    const int64_t units = sizes.units(), workers = p.threads < units ? p.threads : units;
    Job<Worker> job{p, units, workers, memory.bytes};
    return parallel_for(workers, 1, Job<Worker>::task, &job);
}

}  // namespace LONGCONV_ISA
}  // namespace longconv

#endif
