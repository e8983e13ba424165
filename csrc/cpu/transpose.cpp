// Blocked out-of-place transpose: blocks are transposed in registers by rounds of
// interleaving, and the blocks are walked a cache line by a cache line, so that every line is read and written once.

#include "kernels.h"
#include "vector.h"

namespace longconv {
namespace LONGCONV_ISA {
namespace {

struct Bytes16 {
    uint64_t low, high;
};

// Element: what is moved; Lane, kGroup: the vector lanes that make up one element.
template <typename Element>
struct Traits {
    using Lane = Element;
    static constexpr int kGroup = 1;
};
template <>
struct Traits<Bytes16> {
    using Lane = uint64_t;
    static constexpr int kGroup = 2;
};

// A block of kRows x kCols elements. Every 16-byte lane transposes a square of its own, so that no instruction moves
// data between lanes; the loads put the squares side by side.
template <typename Element>
struct Block {
    using Lane = typename Traits<Element>::Lane;
    static constexpr int kGroup = Traits<Element>::kGroup;
    static constexpr int kCols = 16 / sizeof(Element);
    static constexpr int kRows = kVectorBytes / sizeof(Element);
    static constexpr int kLaneElements = 16 / sizeof(Lane);
    static constexpr int N = kVectorBytes / sizeof(Lane);
    using V = Vector<Lane, N>;

    // out[c * out_stride + r] = in[r * in_stride + c] for r < kRows, c < kCols.
    static inline void run(Element* out, int64_t out_stride, const Element* in, int64_t in_stride) {
        V v[kCols];
#pragma GCC unroll 16
        for (int r = 0; r < kCols; ++r)
            v[r] = gather_lanes<Lane, N>(reinterpret_cast<const Lane*>(in + r * in_stride), kCols * in_stride * kGroup);
#pragma GCC unroll 16
        for (int round = 1; round < kCols; round *= 2) {
            V next[kCols];
#pragma GCC unroll 16
            for (int r = 0; r < kCols / 2; ++r)
                interleave<kLaneElements, kGroup, Lane, N>(next[2 * r], next[2 * r + 1], v[r], v[r + kCols / 2],
                                                           typename MakeIndices<N>::type{});
#pragma GCC unroll 16
            for (int r = 0; r < kCols; ++r) v[r] = next[r];
        }
#pragma GCC unroll 16
        for (int c = 0; c < kCols; ++c) __builtin_memcpy(out + c * out_stride, &v[c], sizeof(V));
    }
};

template <typename Element>
void scalar(Element* out, int64_t out_stride, const Element* in, int64_t in_stride, int64_t rows, int64_t cols) {
    for (int64_t c = 0; c < cols; ++c)
        for (int64_t r = 0; r < rows; ++r) out[c * out_stride + r] = in[r * in_stride + c];
}

// One tile. The last block of a row or column that is no multiple of its size is moved back and overlaps the one
// before.
template <typename Element>
void tile(Element* out, int64_t out_stride, const Element* in, int64_t in_stride, int64_t rows, int64_t cols) {
    constexpr int64_t kRows = Block<Element>::kRows, kCols = Block<Element>::kCols;
    if (rows < kRows || cols < kCols) return scalar(out, out_stride, in, in_stride, rows, cols);
    for (int64_t r0 = 0; r0 < rows; r0 += kRows) {
        const int64_t r = r0 + kRows <= rows ? r0 : rows - kRows;
        for (int64_t c0 = 0; c0 < cols; c0 += kCols) {
            const int64_t c = c0 + kCols <= cols ? c0 : cols - kCols;
            Block<Element>::run(out + c * out_stride + r, out_stride, in + r * in_stride + c, in_stride);
        }
    }
}

template <typename Element>
struct Tiles {
    // A tile's columns fill one cache line of the input, and its rows several of the output.
    static constexpr int64_t kCols = 64 / sizeof(Element);
    static constexpr int64_t kRows = 32 * kCols;
    static constexpr int64_t kGrain = 32768 / (kRows * kCols * sizeof(Element)) + 1;

    const Transpose& p;
    int64_t row_tiles, col_tiles;

    void range(int64_t begin, int64_t end) const {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t c = i % col_tiles * kCols;
            const int64_t r = i / col_tiles % row_tiles * kRows;
            const int64_t b = i / col_tiles / row_tiles;
            const Element* in =
                reinterpret_cast<const Element*>(p.in) + b * p.in_batch_stride + r * p.in_row_stride + c;
            Element* out = reinterpret_cast<Element*>(p.out) + b * p.out_batch_stride + c * p.out_row_stride + r;
            const int64_t rows = p.rows - r < kRows ? p.rows - r : kRows;
            const int64_t cols = p.cols - c < kCols ? p.cols - c : kCols;
            tile(out, p.out_row_stride, in, p.in_row_stride, rows, cols);
        }
    }

    static void task(int64_t begin, int64_t end, void* context) {
        static_cast<const Tiles*>(context)->range(begin, end);
    }
};

template <typename Element>
int32_t run(const Transpose& p) {
    using T = Tiles<Element>;
    T tiles{p, (p.rows + T::kRows - 1) / T::kRows, (p.cols + T::kCols - 1) / T::kCols};
    return parallel_for(p.batch * tiles.row_tiles * tiles.col_tiles, T::kGrain, T::task, &tiles);
}

}  // namespace

int32_t transpose(const Transpose& p, int32_t element_size) {
    switch (element_size) {
        case 1:
            return run<uint8_t>(p);
        case 2:
            return run<uint16_t>(p);
        case 4:
            return run<uint32_t>(p);
        case 8:
            return run<uint64_t>(p);
        case 16:
            return run<Bytes16>(p);
    }
    return LONGCONV_BAD_ELEMENT;
}

}  // namespace LONGCONV_ISA
}  // namespace longconv
