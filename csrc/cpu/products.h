// Products of small matrices in double precision, blocks of which stay in registers: included by the ISA sources alone.

#ifndef LONGCONV_CPU_PRODUCTS_H
#define LONGCONV_CPU_PRODUCTS_H

#include "powers.h"

namespace longconv {
namespace LONGCONV_ISA {

// Numbers at data + i * row + k * step.
struct Factor {
    const double* data;
    int64_t row, step;
};

// Rows of vectors, `pitch` numbers apart, aligned to vectors.
struct Rows {
    double* data;
    int64_t pitch;

    double* row(int64_t i) const { return data + i * pitch; }
    Rows from(int64_t i) const { return {row(i), pitch}; }
    Factor factor() const { return {data, pitch, 1}; }
    Factor transposed() const { return {data, 1, pitch}; }
};

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kStrip = 4;  // vectors; with 32 registers
#else
constexpr int kStrip = 2;
#endif
constexpr int kBlockRows = 4;

// A block of kRows rows and kVectors vectors: to (+)= a b.
template <int kRows, int kVectors>
LONGCONV_INLINE void multiply_block(double* to, int64_t pitch, const Factor& a, const double* b, int64_t b_pitch,
                                    int64_t depth, bool add) {
    Doubles sums[kRows][kVectors];
    unroll<kRows>([&](auto i) __attribute__((always_inline)) {
        unroll<kVectors>([&](auto j) __attribute__((always_inline)) {
            sums[i][j] = add ? load_wide(to + i * pitch + j * kDoubles) : Doubles{};
        });
    });
    for (int64_t k = 0; k < depth; ++k) {
        Doubles x[kVectors];
        unroll<kVectors>([&](auto j)
                             __attribute__((always_inline)) { x[j] = load_wide(b + k * b_pitch + j * kDoubles); });
        unroll<kRows>([&](auto i) __attribute__((always_inline)) {
            const double factor = a.data[i * a.row + k * a.step];
            unroll<kVectors>([&](auto j) __attribute__((always_inline)) { sums[i][j] += factor * x[j]; });
        });
    }
    unroll<kRows>([&](auto i) __attribute__((always_inline)) {
        unroll<kVectors>([&](auto j) __attribute__((always_inline)) {
            __builtin_memcpy(to + i * pitch + j * kDoubles, &sums[i][j], sizeof(Doubles));
        });
    });
}

template <int kVectors>
inline void multiply_strip(const Rows& to, int64_t rows, const Factor& a, const Rows& b, int64_t column, int64_t depth,
                           bool add) {
    int64_t i = 0;
    if constexpr (kVectors <= kStrip)
        for (; i + kBlockRows <= rows; i += kBlockRows)
            multiply_block<kBlockRows, kVectors>(to.row(i) + column, to.pitch, {a.data + i * a.row, a.row, a.step},
                                                 b.data + column, b.pitch, depth, add);
    for (; i < rows; ++i)
        multiply_block<1, kVectors>(to.row(i) + column, to.pitch, {a.data + i * a.row, a.row, a.step}, b.data + column,
                                    b.pitch, depth, add);
}

// to (rows, columns) (+)= a (rows, depth) b (depth, columns), columns a multiple of a vector's numbers. `to` is apart.
inline void multiply(const Rows& to, int64_t rows, int64_t columns, int64_t depth, const Factor& a, const Rows& b,
                     bool add = false) {
    constexpr int kLong = 8;  // vectors of a single row
    int64_t j = 0;
    if (rows < kBlockRows)
        for (; j + kLong * kDoubles <= columns; j += kLong * kDoubles)
            multiply_strip<kLong>(to, rows, a, b, j, depth, add);
    for (; j + kStrip * kDoubles <= columns; j += kStrip * kDoubles)
        multiply_strip<kStrip>(to, rows, a, b, j, depth, add);
    for (; j + 2 * kDoubles <= columns; j += 2 * kDoubles) multiply_strip<2>(to, rows, a, b, j, depth, add);
    for (; j < columns; j += kDoubles) multiply_strip<1>(to, rows, a, b, j, depth, add);
}

}  // namespace LONGCONV_ISA
}  // namespace longconv

#endif
