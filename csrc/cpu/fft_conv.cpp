// The FFT convolution: every row by one complex transform of its own length, see fft_worker.h and fft.h.
//
// Filters are shared out among workers; where they are fewer than threads, forward, their samples are too. Nothing is
// shared between workers: the results don't depend on how many there are.

#include "fft_worker.h"
#include "kernels.h"

namespace longconv {
namespace LONGCONV_ISA {
namespace {

constexpr int64_t kWorthAThread = 1 << 14;  // numbers

inline int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

template <typename T, int W>
struct Job {
    const LongconvFftConv& p;
    Plan<T> plan;
    int64_t filters = p.per_sample ? p.batch * p.channels : p.channels;
    int64_t samples = p.per_sample ? 1 : p.batch;
    int64_t workers = 1;
    int64_t parts = 1;  // in which the samples of a filter are done

    void run(int64_t worker) const {
        const Worker<T, W> w{p, plan, static_cast<T*>(p.work) + worker * work_numbers(plan.size, p.backward)};
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
        case LONGCONV_BFLOAT16:
        case LONGCONV_FLOAT16:
            return run<float>(p);
        case LONGCONV_FLOAT64:
            return run<double>(p);
    }
    return LONGCONV_BAD_ELEMENT;
}

}  // namespace LONGCONV_ISA
}  // namespace longconv
