// Warp tiles: a kernel works on accumulators of 16 x 8 numbers and on the operands of matrix products, in one of three
// arithmetics. An operand a is 16 x 16 and an operand b 16 x 8; how their numbers lie in the lanes is told here alone.
//
// Within a product the order of the inner index is free, as long as a and b agree. So two accumulators side by side are
// an operand a with no exchange between lanes, in tf32 too, where k = 4 j + i of the instruction is column 2 i + j
// here.

#ifndef LONGCONV_CUDA_TILE_H
#define LONGCONV_CUDA_TILE_H

#ifdef __CUDACC__
#include "warp_device.h"
#else
#include "warp_host.h"
#endif

namespace longconv {

// 16 x 8 numbers: number i of a lane is at (tile_row, tile_column).
using Tile = Registers<float, 4>;

LONGCONV_DEVICE constexpr int tile_row(int lane, int i) {
    return lane / 4 + i / 2 * 8;
}
LONGCONV_DEVICE constexpr int tile_column(int lane, int i) {
    return lane % 4 * 2 + i % 2;
}

template <int N>
LONGCONV_DEVICE void clear(Registers<float, N>& tile) {
    each_lane([&](int lane) {
        LONGCONV_UNROLL
        for (int i = 0; i < N; ++i) tile(lane, i) = 0;
    });
}

// The greater of a magnitude and those of a number's parts.
LONGCONV_DEVICE float larger(float most, Complex v) {
    return larger(most, larger(magnitude(v.re), magnitude(v.im)));
}
// The same of a lane's numbers in tiles.
LONGCONV_DEVICE void enlarge(Registers<float, 1>& most, const Tile (&re)[2], const Tile (&im)[2]) {
    LONGCONV_UNROLL
    for (int half = 0; half < 2; ++half)
        each_lane([&](int lane) {
            LONGCONV_UNROLL
            for (int i = 0; i < 4; ++i)
                most(lane, 0) = larger(most(lane, 0), Complex{re[half](lane, i), im[half](lane, i)});
        });
}

// Operands are kept in memory in the order of the lanes: number i of a lane at kOperandA lane + i, and it is the number
// at (row, column) of a_place; b likewise.
constexpr int kOperandA = 8, kOperandB = 4;

struct Place {
    int row, column;
};

// Half precision.
struct Half {
    using Number = uint16_t;
    using A = Registers<uint32_t, 4>;
    using B = Registers<uint32_t, 2>;
    static constexpr bool kNarrow = true;  // numbers need a scale to be in range

    static LONGCONV_DEVICE Number number(float x) { return to_half(x); }
    static LONGCONV_DEVICE Place a_place(int lane, int i) {
        return {lane / 4 + i / 2 % 2 * 8, lane % 4 * 2 + i % 2 + i / 4 * 8};
    }
    static LONGCONV_DEVICE Place b_place(int lane, int i) { return {lane % 4 * 2 + i % 2 + i / 2 * 8, lane / 4}; }
    // Numbers i < 4 of a_of(left, right) are those of the left tile in this order, the others those of the right one.
    static LONGCONV_DEVICE constexpr int in_tile(int i) { return i % 4; }

    static LONGCONV_DEVICE A a_of(const Tile& left, const Tile& right) {
        A a;
        each_lane([&](int lane) {
            a(lane, 0) = half_pair(left(lane, 0), left(lane, 1));
            a(lane, 1) = half_pair(left(lane, 2), left(lane, 3));
            a(lane, 2) = half_pair(right(lane, 0), right(lane, 1));
            a(lane, 3) = half_pair(right(lane, 2), right(lane, 3));
        });
        return a;
    }
    static LONGCONV_DEVICE A negative(A a) {
        each_lane([&](int lane) {
            LONGCONV_UNROLL
            for (int i = 0; i < 4; ++i) a(lane, i) ^= 0x80008000u;
        });
        return a;
    }
    template <typename From>
    static LONGCONV_DEVICE A load_a(const From& from, int64_t first) {
        A a;
        each_lane([&](int lane) {
            const auto numbers = from.template vector<8>(first + kOperandA * lane);
            LONGCONV_UNROLL
            for (int i = 0; i < 4; ++i)
                a(lane, i) = numbers.v[2 * i] | static_cast<uint32_t>(numbers.v[2 * i + 1]) << 16;
        });
        return a;
    }
    template <typename From>
    static LONGCONV_DEVICE B load_b(const From& from, int64_t first) {
        B b;
        each_lane([&](int lane) {
            const auto numbers = from.template vector<4>(first + kOperandB * lane);
            LONGCONV_UNROLL
            for (int i = 0; i < 2; ++i)
                b(lane, i) = numbers.v[2 * i] | static_cast<uint32_t>(numbers.v[2 * i + 1]) << 16;
        });
        return b;
    }
    // Two operands side by side: the 16 x 16 numbers from `first` on in rows of `stride`.
    static LONGCONV_DEVICE void load_pair(B (&b)[2], const Shared<Number>& from, int first, int stride) {
        const Registers<uint32_t, 4> r =
            load_transposed(from, [&](int lane) { return first + lane % 16 * stride + lane / 16 * 8; });
        each_lane([&](int lane) {
            LONGCONV_UNROLL
            for (int i = 0; i < 4; ++i) b[i / 2](lane, i % 2) = r(lane, i);
        });
    }
    static LONGCONV_DEVICE void multiply_add(Tile& d, const A& a, const B& b) { mma_half(d, a, b); }
};

// What the two arithmetics on tf32 share: numbers are float.
template <typename Math, typename Operand>
struct Wide {
    using Number = float;
    using A = typename Operand::A;
    using B = typename Operand::B;
    static constexpr bool kNarrow = false;

    static LONGCONV_DEVICE Place a_place(int lane, int i) {
        return {lane / 4 + i % 2 * 8, i / 4 * 8 + lane % 4 * 2 + i / 2 % 2};
    }
    static LONGCONV_DEVICE Place b_place(int lane, int i) { return {i / 2 * 8 + lane % 4 * 2 + i % 2, lane / 4}; }
    static LONGCONV_DEVICE constexpr int in_tile(int i) { return i / 2 % 2 + i % 2 * 2; }

    static LONGCONV_DEVICE A a_of(const Tile& left, const Tile& right) {
        A a;
        each_lane([&](int lane) {
            LONGCONV_UNROLL
            for (int i = 0; i < 8; ++i)
                Operand::set(a, lane, i, Math::number((i < 4 ? left : right)(lane, in_tile(i))));
        });
        return a;
    }
    static LONGCONV_DEVICE A negative(A a) {
        Operand::negate(a);
        return a;
    }
    template <typename From>
    static LONGCONV_DEVICE A load_a(const From& from, int64_t first) {
        A a;
        each_lane([&](int lane) {
            LONGCONV_UNROLL
            for (int i = 0; i < 8; i += 4) {
                const auto numbers = from.template vector<4>(first + kOperandA * lane + i);
                LONGCONV_UNROLL
                for (int j = 0; j < 4; ++j) Operand::set(a, lane, i + j, numbers.v[j]);
            }
        });
        return a;
    }
    template <typename From>
    static LONGCONV_DEVICE B load_b(const From& from, int64_t first) {
        B b;
        each_lane([&](int lane) {
            const auto numbers = from.template vector<4>(first + kOperandB * lane);
            LONGCONV_UNROLL
            for (int i = 0; i < 4; ++i) Operand::set(b, lane, i, numbers.v[i]);
        });
        return b;
    }
    static LONGCONV_DEVICE void load_pair(B (&b)[2], const Shared<Number>& from, int first, int stride) {
        each_lane([&](int lane) {
            LONGCONV_UNROLL
            for (int i = 0; i < 8; ++i) {
                const Place place = b_place(lane, i % 4);
                Operand::set(b[i / 4], lane, i % 4, from.get(first + place.row * stride + i / 4 * 8 + place.column));
            }
        });
    }
};

// Numbers of tf32, rounded before they come here.
struct Single {
    using A = Registers<float, 8>;
    using B = Registers<float, 4>;
    template <int N>
    static LONGCONV_DEVICE void set(Registers<float, N>& r, int lane, int i, float x) {
        r(lane, i) = x;
    }
    static LONGCONV_DEVICE void negate(A& a) {
        each_lane([&](int lane) {
            LONGCONV_UNROLL
            for (int i = 0; i < 8; ++i) a(lane, i) = -a(lane, i);
        });
    }
};

struct Tf32 : Wide<Tf32, Single> {
    static LONGCONV_DEVICE Number number(float x) { return to_tf32(x); }
    static LONGCONV_DEVICE void multiply_add(Tile& d, const A& a, const B& b) {
        mma_tf32(d, a, b, 0);
        mma_tf32(d, a, b, 1);
    }
};

// Float as a sum of two numbers of tf32; of the products all but that of the two small parts.
struct Double {
    template <int N>
    struct Parts {
        Registers<float, N> high, low;
    };
    using A = Parts<8>;
    using B = Parts<4>;
    template <int N>
    static LONGCONV_DEVICE void set(Parts<N>& r, int lane, int i, float x) {
        const float high = to_tf32(x);
        r.high(lane, i) = high;
        r.low(lane, i) = to_tf32(x - high);
    }
    static LONGCONV_DEVICE void negate(A& a) {
        Single::negate(a.high);
        Single::negate(a.low);
    }
};

struct Tf32x3 : Wide<Tf32x3, Double> {
    static LONGCONV_DEVICE Number number(float x) { return x; }
    static LONGCONV_DEVICE void multiply_add(Tile& d, const A& a, const B& b) {
        LONGCONV_UNROLL
        for (int step = 0; step < 2; ++step) {
            mma_tf32(d, a.low, b.high, step);
            mma_tf32(d, a.high, b.low, step);
            mma_tf32(d, a.high, b.high, step);
        }
    }
};

}  // namespace longconv

#endif
