// Numbers in global memory of any element, real or complex, at any strides.

#ifndef LONGCONV_CUDA_STRIDED_H
#define LONGCONV_CUDA_STRIDED_H

#include "longconv.h"
#include "tile.h"

namespace longconv {

// How a real number lies in memory.
struct Float32 {
    using Raw = float;
    static LONGCONV_DEVICE float wide(float x) { return x; }
    static LONGCONV_DEVICE float narrow(double x) { return static_cast<float>(x); }
};
struct Float64 {
    using Raw = double;
    static LONGCONV_DEVICE double wide(double x) { return x; }
    static LONGCONV_DEVICE double narrow(double x) { return x; }
};
struct Bfloat16 {
    using Raw = uint16_t;
    static LONGCONV_DEVICE float wide(uint16_t x) { return from_bfloat(x); }
    static LONGCONV_DEVICE uint16_t narrow(float x) { return to_bfloat(x); }
};
struct Float16 {
    using Raw = uint16_t;
    static LONGCONV_DEVICE float wide(uint16_t x) { return from_half(x); }
    static LONGCONV_DEVICE uint16_t narrow(float x) { return to_half(x); }
};

// The numbers of a LongconvNumbers that tells the strides of sets, rows and steps, and how many of each there are.
class Strided {
  public:
    LONGCONV_DEVICE Strided(const LongconvNumbers& at, int64_t sets, int64_t rows, int64_t steps)
        : at_(at), count_((sets - 1) * at.set + (rows - 1) * at.row + (steps - 1) * at.step + 1) {}

    LONGCONV_DEVICE explicit operator bool() const { return at_.data != nullptr; }
    LONGCONV_DEVICE int64_t step() const { return at_.step; }
    LONGCONV_DEVICE int64_t place(int64_t set, int64_t row, int64_t step) const {
        return set * at_.set + row * at_.row + step * at_.step;
    }

    template <typename V>
    LONGCONV_DEVICE V get(int64_t place) const {
        V v[1];
        read(place, 1, 1, v, V{});
        return v[0];
    }
    template <typename V>
    LONGCONV_DEVICE void set(int64_t place, V value) const {
        const V v[1] = {value};
        write(place, 1, 1, v);
    }

    // v[j] = the number at place + j step, which is real where V is, for j < count, and `other` from there on.
    template <typename V, int N>
    LONGCONV_DEVICE void read(int64_t place, int64_t step, int64_t count, V (&v)[N], V other) const {
        if constexpr (Parts<V>::kCount == 2) {
            if (at_.element == LONGCONV_COMPLEX64) return read_as<Float32, 2>(place, step, count, v, other);
            if (at_.element == LONGCONV_COMPLEX128) return read_as<Float64, 2>(place, step, count, v, other);
        }
        with_format([&](auto format) { read_as<decltype(format), 1>(place, step, count, v, other); });
    }
    // The number at place + j step, which is complex where V is, = v[j] for j < count.
    template <typename V, int N>
    LONGCONV_DEVICE void write(int64_t place, int64_t step, int64_t count, const V (&v)[N]) const {
        if constexpr (Parts<V>::kCount == 2) {
            if (at_.element == LONGCONV_COMPLEX64) return write_as<Float32, 2>(place, step, count, v);
            return write_as<Float64, 2>(place, step, count, v);
        } else {
            with_format([&](auto format) { write_as<decltype(format), 1>(place, step, count, v); });
        }
    }

  private:
    template <typename F>
    LONGCONV_DEVICE void with_format(const F& f) const {
        switch (at_.element) {
            case LONGCONV_FLOAT32:
                return f(Float32{});
            case LONGCONV_FLOAT64:
                return f(Float64{});
            case LONGCONV_BFLOAT16:
                return f(Bfloat16{});
            default:
                return f(Float16{});
        }
    }

    template <typename Raw>
    LONGCONV_DEVICE Global<Raw> memory(int parts) const {
        return {static_cast<Raw*>(at_.data), count_ * parts};
    }

    // Numbers of N parts that lie side by side, upwards or downwards, are taken in vectors of at most 16 bytes.
    template <typename Raw, int N>
    static LONGCONV_DEVICE constexpr int vector_size() {
        constexpr int most = 16 / static_cast<int>(sizeof(Raw));
        return N % most == 0 ? most : N % 2 == 0 ? 2 : 1;
    }
    template <typename Raw, int N, int kParts>
    LONGCONV_DEVICE bool together(int64_t place, int64_t step, int64_t count) const {
        constexpr int size = vector_size<Raw, N * kParts>();
        const int64_t first = (step < 0 ? place - (N - 1) : place) * kParts;
        return size > 1 && count == N && (step == 1 || step == -1) &&
               reinterpret_cast<uintptr_t>(static_cast<Raw*>(at_.data) + first) % (size * sizeof(Raw)) == 0;
    }

    template <typename Format, int kParts, typename V, int N>
    LONGCONV_DEVICE void read_as(int64_t place, int64_t step, int64_t count, V (&v)[N], V other) const {
        using Raw = typename Format::Raw;
        const auto from = memory<const Raw>(kParts);
        const auto made = [](Raw re, Raw im) {
            return number<V>(Format::wide(re), kParts == 2 ? Format::wide(im) : 0);
        };
        if (together<Raw, N, kParts>(place, step, count)) {
            constexpr int size = vector_size<Raw, N * kParts>();
            Raw raw[N * kParts];
            LONGCONV_UNROLL
            for (int j = 0; j < N * kParts; j += size) {
                const auto some = from.template vector<size>((step < 0 ? place - (N - 1) : place) * kParts + j);
                LONGCONV_UNROLL
                for (int k = 0; k < size; ++k) raw[j + k] = some.v[k];
            }
            LONGCONV_UNROLL
            for (int j = 0; j < N; ++j) {
                const int up = j * kParts, down = (N - 1 - j) * kParts, last = kParts - 1;
                v[j] = step < 0 ? made(raw[down], raw[down + last]) : made(raw[up], raw[up + last]);
            }
            return;
        }
        LONGCONV_UNROLL
        for (int j = 0; j < N; ++j) {
            const int64_t at = (place + j * step) * kParts;
            if (j >= count)
                v[j] = other;
            else if (j > 0 && step == 0)
                v[j] = v[0];
            else
                v[j] = made(from.get(at), from.get(at + kParts - 1));
        }
    }

    template <typename Format, int kParts, typename V, int N>
    LONGCONV_DEVICE void write_as(int64_t place, int64_t step, int64_t count, const V (&v)[N]) const {
        using Raw = typename Format::Raw;
        const auto to = memory<Raw>(kParts);
        if (together<Raw, N, kParts>(place, step, count)) {
            constexpr int size = vector_size<Raw, N * kParts>();
            Raw raw[N * kParts];
            LONGCONV_UNROLL
            for (int j = 0; j < N; ++j) {
                const V value = step < 0 ? v[N - 1 - j] : v[j];
                raw[j * kParts + kParts - 1] = Format::narrow(imaginary_part(value));
                raw[j * kParts] = Format::narrow(real_part(value));
            }
            LONGCONV_UNROLL
            for (int j = 0; j < N * kParts; j += size) {
                Vector<Raw, size> some;
                LONGCONV_UNROLL
                for (int k = 0; k < size; ++k) some.v[k] = raw[j + k];
                to.template set_vector<size>((step < 0 ? place - (N - 1) : place) * kParts + j, some);
            }
            return;
        }
        LONGCONV_UNROLL
        for (int j = 0; j < N; ++j) {
            if (j >= count) continue;
            const int64_t at = (place + j * step) * kParts;
            to.set(at, Format::narrow(real_part(v[j])));
            if (kParts == 2) to.set(at + 1, Format::narrow(imaginary_part(v[j])));
        }
    }

    LongconvNumbers at_;
    int64_t count_;
};

}  // namespace longconv

#endif
