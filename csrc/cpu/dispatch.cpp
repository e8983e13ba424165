// The choice of the instruction set, the thread pool, and the entry points of liblongconv_cpu. Compiled for the
// baseline processor.

#include <string.h>

#include "kernels.h"

namespace longconv {

#if defined(__x86_64__)
namespace x86_64_v2 {
extern const Kernels kernels;
}
namespace x86_64_v3 {
extern const Kernels kernels;
}
namespace x86_64_v4 {
extern const Kernels kernels;
}
#else
namespace baseline {
extern const Kernels kernels;
}
#endif

namespace {

#if defined(__x86_64__)
// By their features: Clang 14 does not know the names of the levels. No processor with AVX2, FMA and BMI2 lacks the
// rest of its level, for which Clang has no names.
bool has_v2() {
    return __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
}
bool has_v3() {
    return has_v2() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
bool has_v4() {
    return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

struct Isa {
    const char* name;
    const Kernels* kernels;
    bool (*supported)();
};

const Isa kIsas[] = {
// widest first
#if defined(__x86_64__)
    {"x86-64-v4", &x86_64_v4::kernels, has_v4},
    {"x86-64-v3", &x86_64_v3::kernels, has_v3},
    {"x86-64-v2", &x86_64_v2::kernels, has_v2},
#elif defined(__aarch64__)
    {"neon", &baseline::kernels, [] { return true; }},
#else
    {"generic", &baseline::kernels, [] { return true; }},
#endif
};
constexpr int32_t kIsaCount = sizeof(kIsas) / sizeof(kIsas[0]);

const Isa* chosen = nullptr;
LongconvParallelFor pool = nullptr;

int32_t find(const char* name, const Isa** found) {
    int32_t status = LONGCONV_UNKNOWN_ISA;
    for (const Isa& isa : kIsas) {
        if (name && strcmp(name, isa.name) != 0) continue;
        if (isa.supported()) {
            *found = &isa;
            return LONGCONV_OK;
        }
        status = LONGCONV_UNSUPPORTED_ISA;
    }
    return status;
}

}  // namespace

int32_t parallel_for(int64_t count, int64_t grain, LongconvTask task, void* context) {
    if (count <= 0) return LONGCONV_OK;
    if (pool && count > grain) return pool(0, count, grain, task, context) ? LONGCONV_POOL_FAILED : LONGCONV_OK;
    task(0, count, context);
    return LONGCONV_OK;
}

}  // namespace longconv

using namespace longconv;

int32_t longconv_cpu_abi(void) {
    return LONGCONV_ABI;
}

const char* longconv_cpu_error(int32_t status) {
    switch (status) {
        case LONGCONV_OK:
            return "no error";
        case LONGCONV_BAD_SIZE:
            return "a size is negative";
        case LONGCONV_BAD_ELEMENT:
            return "there is no code for this element size or type";
        case LONGCONV_UNKNOWN_ISA:
            return "the library has no such instruction set";
        case LONGCONV_UNSUPPORTED_ISA:
            return "this processor lacks the instruction set";
        case LONGCONV_BAD_RANK:
            return "the rank is too high";
        case LONGCONV_POOL_FAILED:
            return "the thread pool failed";
    }
    return "unknown error";
}

const char* longconv_cpu_isa_name(int32_t index) {
    return index >= 0 && index < kIsaCount ? kIsas[index].name : nullptr;
}

int32_t longconv_cpu_isa_check(const char* name) {
    const Isa* found = nullptr;
    return find(name, &found);
}

int32_t longconv_cpu_isa_select(const char* name) {
    return find(name, &chosen);
}

const char* longconv_cpu_isa(void) {
    return chosen ? chosen->name : nullptr;
}

void longconv_cpu_threads(LongconvParallelFor parallel_for) {
    pool = parallel_for;
}

int32_t longconv_cpu_transpose(void* out, const void* in, int64_t batch, int64_t rows, int64_t cols,
                               int64_t out_batch_stride, int64_t out_row_stride, int64_t in_batch_stride,
                               int64_t in_row_stride, int32_t element_size) {
    if (!chosen) return LONGCONV_UNKNOWN_ISA;
    if (batch < 0 || rows < 0 || cols < 0) return LONGCONV_BAD_SIZE;
    return chosen->kernels->transpose({static_cast<char*>(out), static_cast<const char*>(in), batch, rows, cols,
                                       out_batch_stride, out_row_stride, in_batch_stride, in_row_stride},
                                      element_size);
}

int32_t longconv_cpu_cauchy(const LongconvCauchy* call, int64_t* work_bytes) {
    if (!chosen) return LONGCONV_UNKNOWN_ISA;
    if (call->sets < 0 || call->rows < 0 || call->modes < 1 || call->length < 1) return LONGCONV_BAD_SIZE;
    return chosen->kernels->cauchy(*call, work_bytes);
}

int32_t longconv_cpu_dense_taps(const LongconvDenseTaps* call, int64_t* work_bytes) {
    if (!chosen) return LONGCONV_UNKNOWN_ISA;
    if (call->sets < 0 || call->rows < 1 || call->states < 1 || call->length < 1) return LONGCONV_BAD_SIZE;
    return chosen->kernels->dense_taps(*call, work_bytes);
}

int32_t longconv_cpu_fft_plan(void* tables, int64_t length, int32_t periodic, int32_t element, int64_t* bytes) {
    if (!chosen) return LONGCONV_UNKNOWN_ISA;
    if (length < 1) return LONGCONV_BAD_SIZE;
    return chosen->kernels->fft_plan(tables, length, periodic != 0, element, bytes);
}

int32_t longconv_cpu_fft_conv(const LongconvFftConv* call, int64_t* memory) {
    if (!chosen) return LONGCONV_UNKNOWN_ISA;
    if (call->batch < 0 || call->channels < 0 || call->length < 1 || call->taps < 1 || call->reverse_taps < 0)
        return LONGCONV_BAD_SIZE;
    if (call->taps > call->length || call->reverse_taps >= call->length || call->threads < 1) return LONGCONV_BAD_SIZE;
    return chosen->kernels->fft_conv(*call, memory);
}

int32_t longconv_cpu_linear_scan(void* h, const void* a, const void* b, const void* initial, int64_t outer,
                                 int64_t length, int64_t inner, const int64_t a_strides[3], const int64_t b_strides[3],
                                 const int64_t initial_strides[2], int32_t reverse, int32_t threads, int32_t element) {
    if (!chosen) return LONGCONV_UNKNOWN_ISA;
    if (outer < 0 || length < 0 || inner < 0) return LONGCONV_BAD_SIZE;
    return chosen->kernels->linear_scan({static_cast<char*>(h),
                                         static_cast<const char*>(a),
                                         static_cast<const char*>(b),
                                         static_cast<const char*>(initial),
                                         outer,
                                         length,
                                         inner,
                                         {a_strides[0], a_strides[1], a_strides[2]},
                                         {b_strides[0], b_strides[1], b_strides[2]},
                                         {initial_strides[0], initial_strides[1]},
                                         reverse != 0,
                                         threads},
                                        element);
}

int32_t longconv_cpu_short_conv(const LongconvShortConv* call, int64_t* memory) {
    if (!chosen) return LONGCONV_UNKNOWN_ISA;
    if (call->batch < 0 || call->channels < 0 || call->length < 0 || call->taps < 1 || call->threads < 1)
        return LONGCONV_BAD_SIZE;
    return chosen->kernels->short_conv(*call, memory);
}

int32_t longconv_cpu_state_space_step(void* next, void* y, const void* x, const void* u, const double* A,
                                      const double* B, const double* C, const double* left, const double* right,
                                      int64_t batch, int64_t features, int64_t modes, int64_t channels, int64_t rank,
                                      int32_t element_size) {
    if (!chosen) return LONGCONV_UNKNOWN_ISA;
    if (batch < 0 || features < 0 || modes < 0 || channels < 0 || rank < 0) return LONGCONV_BAD_SIZE;
    if (rank > LONGCONV_MOST_RANK) return LONGCONV_BAD_RANK;
    return chosen->kernels->state_space_step(
        {next, y, x, u, A, B, C, left, right, batch, features, modes, channels, rank}, element_size);
}

int32_t longconv_cpu_vandermonde(const LongconvVandermonde* call, int64_t* work_bytes) {
    if (!chosen) return LONGCONV_UNKNOWN_ISA;
    if (call->sets < 0 || call->rows < 0 || call->modes < 1 || call->length < 1) return LONGCONV_BAD_SIZE;
    return chosen->kernels->vandermonde(*call, work_bytes);
}
