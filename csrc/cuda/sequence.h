// Rows of real numbers in global memory, of any element and at any address.

#ifndef LONGCONV_CUDA_SEQUENCE_H
#define LONGCONV_CUDA_SEQUENCE_H

#include "longconv.h"
#include "tile.h"

namespace longconv {

class Sequence {
  public:
    LONGCONV_DEVICE Sequence(const LongconvRows& rows, int element, int64_t length, int64_t sample, int64_t channel)
        : element_(element), length_(length) {
        const int64_t first = sample * rows.batch + channel * rows.channel;
        data_ = static_cast<char*>(rows.data) + first * (element == LONGCONV_FLOAT32 ? 4 : 2);
    }

    // v[j] = the number at t + j, 0 from `end` on; t is a multiple of 8.
    LONGCONV_DEVICE void read_eight(int64_t t, int64_t end, float (&v)[8]) const {
        if (t + 8 <= end && reinterpret_cast<uintptr_t>(data_) % 16 == 0) {
            if (element_ == LONGCONV_FLOAT32) {
                LONGCONV_UNROLL
                for (int j = 0; j < 8; j += 4) {
                    const auto four = wide().template vector<4>(t + j);
                    LONGCONV_UNROLL
                    for (int k = 0; k < 4; ++k) v[j + k] = four.v[k];
                }
            } else {
                const auto eight = narrow().template vector<8>(t);
                LONGCONV_UNROLL
                for (int j = 0; j < 8; ++j) v[j] = widened(eight.v[j]);
            }
            return;
        }
        LONGCONV_UNROLL
        for (int j = 0; j < 8; ++j) v[j] = read(t + j, end);
    }
    LONGCONV_DEVICE float read(int64_t t, int64_t end) const {
        if (t >= end) return 0;
        return element_ == LONGCONV_FLOAT32 ? wide().get(t) : widened(narrow().get(t));
    }

    // The numbers at t and t + 1, t even, as far as they are before the end of the row.
    LONGCONV_DEVICE void write_two(int64_t t, float first, float second) const {
        const bool both = t + 1 < length_ && reinterpret_cast<uintptr_t>(data_) % 8 == 0;
        if (both && element_ == LONGCONV_FLOAT32) return wide().template set_vector<2>(t, {first, second});
        if (both) return narrow().template set_vector<2>(t, {narrowed(first), narrowed(second)});
        write(t, first);
        write(t + 1, second);
    }
    LONGCONV_DEVICE void write(int64_t t, float x) const {
        if (t >= length_) return;
        if (element_ == LONGCONV_FLOAT32) return wide().set(t, x);
        narrow().set(t, narrowed(x));
    }

  private:
    LONGCONV_DEVICE Global<float> wide() const { return {reinterpret_cast<float*>(data_), length_}; }
    LONGCONV_DEVICE Global<uint16_t> narrow() const { return {reinterpret_cast<uint16_t*>(data_), length_}; }
    LONGCONV_DEVICE float widened(uint16_t bits) const {
        return element_ == LONGCONV_BFLOAT16 ? from_bfloat(bits) : from_half(bits);
    }
    LONGCONV_DEVICE uint16_t narrowed(float x) const {
        return element_ == LONGCONV_BFLOAT16 ? to_bfloat(x) : to_half(x);
    }
    char* data_;
    int element_;
    int64_t length_;
};

// Where a sample of a call ends: from there on its sequences count as 0.
template <typename Call>
LONGCONV_DEVICE int64_t end_of(const Call& call, int64_t sample) {
    return call.lengths ? Global<const int64_t>(call.lengths, call.batch).get(sample) : call.length;
}

// v[j] = the number at t + j times that of the gate, if there is one; 0 from `end` on.
LONGCONV_DEVICE void read_gated(const LongconvRows& rows, const LongconvRows& gate, int element, int64_t length,
                                int64_t sample, int64_t channel, int64_t t, int64_t end, float (&v)[8]) {
    if (t >= end) {
        LONGCONV_UNROLL
        for (int j = 0; j < 8; ++j) v[j] = 0;
        return;
    }
    Sequence(rows, element, length, sample, channel).read_eight(t, end, v);
    if (!gate.data) return;
    float factor[8];
    Sequence(gate, element, length, sample, channel).read_eight(t, end, factor);
    LONGCONV_UNROLL
    for (int j = 0; j < 8; ++j) v[j] *= factor[j];
}

// The time of the first sample of a tile, the tiles of a sequence being side by side.
LONGCONV_DEVICE int64_t begin_of(const LongconvCudaTiles& tiles, int64_t tile) {
    return tile % tiles.tiles * tiles.step - tiles.before;
}
// Whether a tile gives the sample at a place in it.
LONGCONV_DEVICE bool gives(const LongconvCudaTiles& tiles, int64_t place) {
    return place >= tiles.before && place < tiles.before + tiles.step;
}

// As read_gated, at a multiple of 8 that may be before 0: there is 0, or (around) what is `end` later, as beyond the
// end what is `end` earlier.
LONGCONV_DEVICE void read_around(const LongconvRows& rows, const LongconvRows& gate, int element, int64_t length,
                                 int64_t sample, int64_t channel, int64_t t, int64_t end, bool around, float (&v)[8]) {
    if (t >= 0 && (t + 8 <= end || !around)) return read_gated(rows, gate, element, length, sample, channel, t, end, v);
    const Sequence row(rows, element, length, sample, channel), of_gate(gate, element, length, sample, channel);
    LONGCONV_UNROLL
    for (int j = 0; j < 8; ++j) {
        const int64_t from = t + j < 0 ? t + j + end : t + j < end ? t + j : t + j - end;
        const bool inside = around && from >= 0;
        v[j] = inside ? row.read(from, end) : 0;
        if (inside && gate.data) v[j] *= of_gate.read(from, end);
    }
}

}  // namespace longconv

#endif
