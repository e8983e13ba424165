// The rows of csrc/cpu/fft_conv.cpp in float, in the widest vectors: one object of three, which are compiled side by
// side.

#include "fft_worker.h"

namespace longconv {
namespace LONGCONV_ISA {

using T = float;
template int32_t fft_rows<T, kMostLanes<T>>(const LongconvFftConv& p, const Plan<T>& plan, int64_t* memory);

}  // namespace LONGCONV_ISA
}  // namespace longconv
