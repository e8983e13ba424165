// The rows of csrc/cpu/fft_conv.cpp in float, in vectors narrower than the widest: one object of three, which are
// compiled side by side.

#include "fft_worker.h"

namespace longconv {
namespace LONGCONV_ISA {

using T = float;
#if defined(__AVX2__)
template int32_t fft_rows<T, kMostLanes<T> / 2>(const LongconvFftConv& p, const Plan<T>& plan, int64_t* memory);
#endif
#if defined(__AVX512F__)
template int32_t fft_rows<T, kMostLanes<T> / 4>(const LongconvFftConv& p, const Plan<T>& plan, int64_t* memory);
#endif

}  // namespace LONGCONV_ISA
}  // namespace longconv
