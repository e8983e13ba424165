// Kernels whose warps have a job each and need no other one.

#ifndef LONGCONV_CUDA_JOBS_H
#define LONGCONV_CUDA_JOBS_H

#include "strided.h"

namespace longconv {

// The kernel `Work`: run(job) is the work of a warp, for job < jobs().
template <typename Work>
struct Jobs {
    static constexpr int kMostWarps = 4;
    Work work;

    LONGCONV_DEVICE void operator()(Block& block) const {
        for (int64_t job = block.index() * block.warps(); job < work.jobs(); job += block.count() * block.warps())
            block.phase([&](int warp) {
                if (job + warp < work.jobs()) work.run(job + warp);
            });
    }
};

template <typename Work>
int32_t launch_jobs(const Work& work, int32_t device, void* stream) {
    using Kernel = Jobs<Work>;
    DeviceScope scope;
    if (const int32_t status = scope.enter(device)) return status;
    const int64_t jobs = work.jobs();
    if (jobs == 0) return LONGCONV_OK;
    const int warps = static_cast<int>(jobs < Kernel::kMostWarps ? jobs : Kernel::kMostWarps);
    return launch(Kernel{work}, (jobs + warps - 1) / warps, warps, 0, stream);
}

// Whether the rows, or what else a warp has side by side, leave its 32 lanes a whole number of times.
inline bool divides_warp(int32_t lanes) {
    return lanes >= 1 && lanes <= 32 && 32 % lanes == 0;
}

}  // namespace longconv

#endif
