// How a kernel's units of work are shared out, and the memory of those that do them: included by the ISA sources alone.

#ifndef LONGCONV_CPU_WORKERS_H
#define LONGCONV_CPU_WORKERS_H

#include "kernels.h"
#include "vector.h"

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

// Every worker takes a range of the units, which share nothing.
template <typename Call, typename Worker>
struct Job {
    const Call& p;
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

template <typename Worker, typename Call>
int32_t run_all(const Call& p, int64_t* work_bytes) {
    Memory memory{nullptr};
    const Worker sizes(p, memory);
    if (work_bytes) {
        *work_bytes = memory.bytes;
        return LONGCONV_OK;
    }
    const int64_t units = sizes.units(), workers = p.threads < units ? p.threads : units;
    Job<Call, Worker> job{p, units, workers, memory.bytes};
    return parallel_for(workers, 1, Job<Call, Worker>::task, &job);
}

}  // namespace LONGCONV_ISA
}  // namespace longconv

#endif
