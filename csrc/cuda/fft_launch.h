// The size of the transform for a length, and the launch of a kernel for its size and arithmetic.

#ifndef LONGCONV_CUDA_FFT_LAUNCH_H
#define LONGCONV_CUDA_FFT_LAUNCH_H

#include "fft_outer.h"

namespace longconv {

constexpr int kMostStripes = 16;
constexpr int64_t kMostPoints = 256LL * 8 * kMostStripes;

struct FftSize {
    int radix, stripes;
};

// The products with 16 s rows cost more than those of the other steps from s = 4 on: then the radix is raised. In
// wide arithmetic radix 8 would not fit in a lane's registers.
template <typename Math>
FftSize fft_size(int64_t length) {
    const int radix = length <= 768 ? 1 : length <= 4096 || !Math::kNarrow ? 4 : 8;
    return {radix, static_cast<int>((length + 256 * radix - 1) / (256 * radix))};
}

template <typename L>
L layout_of(const FftSize& size) {
    L layout;
    layout.stripes = size.stripes;
    layout.group = size.stripes < 4 ? 4 / size.stripes : 1;  // at least four warps of a block have work
    return layout;
}

// f(layout) with the layout's type for a length and an arithmetic.
template <typename Math, typename F>
int32_t with_math(int64_t length, const F& f) {
    if (length < 1 || length > kMostPoints) return LONGCONV_BAD_SIZE;
    const FftSize size = fft_size<Math>(length);
    if (size.stripes > kMostStripes) return LONGCONV_BAD_SIZE;
    if (size.radix == 1) return f(layout_of<Layout<Math, 1>>(size));
    if constexpr (Math::kNarrow)
        if (size.radix == 8) return f(layout_of<Layout<Math, 8>>(size));
    return f(layout_of<Layout<Math, 4>>(size));
}

template <typename F>
int32_t with_layout(int64_t length, int32_t arithmetic, const F& f) {
    switch (arithmetic) {
        case LONGCONV_HALF:
            return with_math<Half>(length, f);
        case LONGCONV_TF32:
            return with_math<Tf32>(length, f);
        case LONGCONV_TF32X3:
            return with_math<Tf32x3>(length, f);
    }
    return LONGCONV_BAD_ELEMENT;
}

// The layouts of the outer stage: f(layout of the tiles of fft_columns, that of a row).
template <typename F>
int32_t with_outer(OuterShape shape, int32_t arithmetic, const F& f) {
    if (shape.rows < 16 || shape.rows % 16 || shape.columns < OuterShape::kPeak || shape.columns % OuterShape::kPeak)
        return LONGCONV_BAD_SIZE;
    if (shape.rows > 32 * kMostStripes || shape.columns > 2 * kMostStripes * OuterShape::kPeak)
        return LONGCONV_BAD_SIZE;
    const FftSize outer{4, static_cast<int>(shape.rows / 16)},
        inner{4, static_cast<int>(shape.columns / OuterShape::kPeak)};
    switch (arithmetic) {
        case LONGCONV_HALF:
            return f(layout_of<Layout<Half, 4>>(outer), layout_of<Layout<Half, 4>>(inner));
        case LONGCONV_TF32:
            return f(layout_of<Layout<Tf32, 4>>(outer), layout_of<Layout<Tf32, 4>>(inner));
        case LONGCONV_TF32X3:
            return f(layout_of<Layout<Tf32x3, 4>>(outer), layout_of<Layout<Tf32x3, 4>>(inner));
    }
    return LONGCONV_BAD_ELEMENT;
}

// The layout of the tiles of fft_columns_back: two planes of wide numbers of many rows leave room for fewer columns in
// the bytes that a block has.
template <typename L, typename F>
int32_t with_back(const L& layout, int most_bytes, const F& f) {
    if constexpr (!L::Math::kNarrow)
        if (layout.stripes > kMostStripes || layout.result_bytes() > most_bytes)
            return f(layout_of<Layout<typename L::Math, 2>>({2, layout.stripes}));
    return f(layout);
}

// Queues a kernel over rows, `group` of them a block.
template <typename Kernel, typename L>
int32_t launch_rows(const L& layout, const typename Kernel::Call& call, int64_t rows, int32_t device, void* stream) {
    const Kernel kernel{layout, call};
    DeviceScope scope;
    if (const int32_t status = scope.enter(device)) return status;
    int most = 0;
    if (const int32_t status = most_shared_memory(device, &most)) return status;
    if (kernel.shared_bytes() > most) return LONGCONV_BAD_SIZE;
    const int jobs = layout.group * layout.stripes, warps = jobs < Kernel::kMostWarps ? jobs : Kernel::kMostWarps;
    return launch(kernel, (rows + layout.group - 1) / layout.group, warps, kernel.shared_bytes(), stream);
}

}  // namespace longconv

#endif
