// The convolution with filters of few taps by sums over the taps: included by the ISA sources alone.

#ifndef LONGCONV_CPU_DIRECT_CONV_H
#define LONGCONV_CPU_DIRECT_CONV_H

#include "longconv.h"

namespace longconv {
namespace LONGCONV_ISA {

template <typename T>
int32_t direct_conv(const LongconvFftConv& p, int64_t* memory);
extern template int32_t direct_conv<float>(const LongconvFftConv& p, int64_t* memory);  // in direct_conv.cpp
extern template int32_t direct_conv<double>(const LongconvFftConv& p, int64_t* memory);

}  // namespace LONGCONV_ISA
}  // namespace longconv

#endif
