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

struct Scan {
    char* h;  // contiguous
    const char *a, *b, *initial;
    int64_t outer, length, inner;
    int64_t a_stride[3], b_stride[3], initial_stride[2];
    bool reverse;
    int32_t threads;
};

struct StateSpaceStep {
    void *next, *y;
    const void *x, *u;
    const double *A, *B, *C, *left, *right;
    int64_t batch, features, modes, channels, rank;
};

struct Kernels {
    int32_t (*cauchy)(const LongconvCauchy& problem, int64_t* work_bytes);
    int32_t (*dense_taps)(const LongconvDenseTaps& problem, int64_t* work_bytes);
    int32_t (*fft_conv)(const LongconvFftConv& problem, int64_t* memory);
    int32_t (*fft_plan)(void* tables, int64_t length, bool periodic, int32_t element, int64_t* bytes);
    int32_t (*linear_scan)(const Scan& problem, int32_t element);
    int32_t (*short_conv)(const LongconvShortConv& problem, int64_t* memory);
    int32_t (*state_space_step)(const StateSpaceStep& problem, int32_t element_size);
    int32_t (*transpose)(const Transpose& problem, int32_t element_size);
    int32_t (*vandermonde)(const LongconvVandermonde& problem, int64_t* work_bytes);
};

// Run task over [0, count) on the thread pool, in ranges of at least grain; a status.
int32_t parallel_for(int64_t count, int64_t grain, LongconvTask task, void* context);

}  // namespace longconv

#endif
