// What one instruction set offers. Each source of the ISA sources in CMakeLists.txt is compiled once per instruction
// set, inside the namespace LONGCONV_ISA, and must not instantiate std:: templates: the linker could keep the wide copy
// of one for the baseline code.

#ifndef LONGCONV_CPU_KERNELS_H
#define LONGCONV_CPU_KERNELS_H

#include "longconv.h"

namespace longconv {

struct Transpose {
    char* out;
    const char* in;
    int64_t batch, rows, cols;
    int64_t out_batch_stride, out_row_stride, in_batch_stride, in_row_stride;
};

struct Kernels {
    int32_t (*transpose)(const Transpose& problem, int32_t element_size);
};

// Run task over [0, count) on the thread pool, in ranges of at least grain.
void parallel_for(int64_t count, int64_t grain, LongconvTask task, void* context);

}  // namespace longconv

#endif
