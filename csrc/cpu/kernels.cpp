// The table of one instruction set.

#include "kernels.h"

namespace longconv {
namespace LONGCONV_ISA {

int32_t cauchy(const LongconvCauchy& problem, int64_t* work_bytes);
int32_t dense_taps(const LongconvDenseTaps& problem, int64_t* work_bytes);
int32_t fft_conv(const LongconvFftConv& problem, int64_t* memory);
int32_t fft_plan(void* tables, int64_t length, bool periodic, int32_t element, int64_t* bytes);
int32_t linear_scan(const Scan& problem, int32_t element);
int32_t short_conv(const LongconvShortConv& problem, int64_t* memory);
int32_t state_space_step(const StateSpaceStep& problem, int32_t element_size);
int32_t transpose(const Transpose& problem, int32_t element_size);
int32_t vandermonde(const LongconvVandermonde& problem, int64_t* work_bytes);

extern const Kernels kernels;
const Kernels kernels = {cauchy,     dense_taps,       fft_conv,  fft_plan,   linear_scan,
                         short_conv, state_space_step, transpose, vandermonde};

}  // namespace LONGCONV_ISA
}  // namespace longconv
