// The warp layer of the CUDA kernels as it runs on the host: operands and products, and the faults that it must see.

#include "cuda/fft_outer.h"
#include "testing.h"

namespace testing {
namespace {

using namespace longconv;

void conversions() {
    for (int bits = 0; bits < 0x10000; ++bits) {
        const uint16_t half = static_cast<uint16_t>(bits);
        const float value = from_half(half);
        if (!(value == value)) continue;
        expect(to_half(value) == half, "half precision number " + std::to_string(bits));
        expect(value == static_cast<float>(static_cast<double>(Float16(value))), "value of a half precision number");
        const float between = value + 0.3f * (from_half(static_cast<uint16_t>(half ^ 1)) - value);
        if (std::isfinite(between)) expect(to_half(between) == half, "rounding near " + std::to_string(bits));
        const float wide = from_bfloat(half);
        if (wide == wide) expect(to_bfloat(wide) == half, "bfloat16 number " + std::to_string(bits));
    }
    expect(to_tf32(1 + 0x1p-11f) == 1 + 0x1p-10f && to_tf32(1 + 0x1p-12f) == 1, "rounding to tf32");
}

// c += a b, where a comes once from memory and once from two accumulators, b once from memory and once from shared
// memory.
template <typename Math>
void products(const char* name, double error) {
    using Number = typename Math::Number;
    float a[16][16], b[16][16];
    for (auto& row : a)
        for (float& x : row) x = static_cast<float>(random_normal());
    for (auto& row : b)
        for (float& x : row) x = static_cast<float>(random_normal());
    Number of_a[256], of_b[2][128];
    Tile left, right;
    const int stride = 16 + 16 / static_cast<int>(sizeof(Number));
    Machine& m = machine();
    m.shared.assign(16 * stride * sizeof(Number), 0xff);
    m.trace.assign(m.shared.size(), {});
    const Shared<Number> shared(0, 16 * stride);
    Block block(0, 1, 1);
    block.phase([&](int) {
        for (int row = 0; row < 16; ++row)
            for (int column = 0; column < 16; ++column) shared.set(row * stride + column, Math::number(b[row][column]));
    });
    for (int lane = 0; lane < 32; ++lane) {
        for (int i = 0; i < kOperandA; ++i) {
            const Place place = Math::a_place(lane, i);
            of_a[kOperandA * lane + i] = Math::number(a[place.row][place.column]);
        }
        for (int i = 0; i < kOperandB; ++i) {
            const Place place = Math::b_place(lane, i);
            for (int half = 0; half < 2; ++half)
                of_b[half][kOperandB * lane + i] = Math::number(b[place.row][8 * half + place.column]);
        }
        for (int i = 0; i < 4; ++i) {
            left(lane, i) = a[tile_row(lane, i)][tile_column(lane, i)];
            right(lane, i) = a[tile_row(lane, i)][8 + tile_column(lane, i)];
        }
    }
    for (int way = 0; way < 4; ++way) {
        const typename Math::A x = way % 2 ? Math::negative(Math::negative(Math::a_of(left, right)))
                                           : Math::load_a(Global<const Number>(of_a, 256), 0);
        typename Math::B y[2];
        if (way / 2)
            block.phase([&](int) { Math::load_pair(y, shared, 0, stride); });
        else
            for (int half = 0; half < 2; ++half) y[half] = Math::load_b(Global<const Number>(of_b[half], 128), 0);
        Comparison all;
        for (int half = 0; half < 2; ++half) {
            Tile d;
            clear(d);
            Math::multiply_add(d, x, y[half]);
            for (int lane = 0; lane < 32; ++lane)
                for (int i = 0; i < 4; ++i) {
                    double want = 0;
                    for (int k = 0; k < 16; ++k)
                        want += static_cast<double>(a[tile_row(lane, i)][k]) * b[k][8 * half + tile_column(lane, i)];
                    all.add(d(lane, i), want);
                }
        }
        all.finish(error, std::string("product in ") + name);
    }
    expect(!*m.fault, m.fault);
}

// Where numbers, peaks and twiddles lie, beyond 2^31 of them and without holes.
void places_of_long_sequences() {
    const OuterShape shape{512, 8192};
    const int64_t sequences = 1500, all = sequences << 22;
    expect(shape.place(sequences, 0) == all && shape.place(sequences - 1, 511) + 8192 == all, "places of rows");
    expect(shape.peak_of_tile(sequences, 0, 0) == all / 1024 && shape.peak_of_row(sequences, 0, 0) == all / 1024,
           "peaks of sequences");
    expect(shape.peak_of_tile(sequences - 1, 31, 127) + 1 == all / 1024 &&
               shape.peak_of_row(sequences - 1, 511, 7) + 1 == all / 1024,
           "the last peak");
    expect(shape.of_tile(511, 127) + 1 == shape.of_column(0, 0) && shape.of_column(511, 63) + 1 == shape.twiddles(),
           "places of twiddles");
}

// A kernel of one phase whose two warps do as they are told.
template <typename F>
struct Told {
    static constexpr int kMostWarps = 2;
    F f;
    void operator()(Block& block) const {
        const Shared<float> shared(0, 64);
        block.phase([&](int warp) { shared.set(warp, 1); });
        block.phase([&](int warp) { f(shared, warp); });
    }
};

template <typename F>
void faults(bool expected, const char* what, const F& f) {
    expect((launch(Told<F>{f}, 1, 2, 256, nullptr) != LONGCONV_OK) == expected, what);
}

}  // namespace

void cuda_layer() {
    conversions();
    places_of_long_sequences();
    products<Half>("half precision", 1e-3);
    products<Tf32>("tf32", 1e-3);
    products<Tf32x3>("three products in tf32", 1e-6);
    using Memory = Shared<float>;
    faults(false, "its own", [](const Memory& s, int warp) { s.set(warp, s.get(warp)); });
    faults(false, "both read", [](const Memory& s, int) { s.get(0); });
    faults(true, "read while another writes", [](const Memory& s, int warp) { s.set(warp, s.get(1 - warp)); });
    faults(true, "both write", [](const Memory& s, int) { s.set(0, 1); });
    faults(true, "never written", [](const Memory& s, int) { s.get(3); });
    faults(true, "outside", [](const Memory& s, int warp) { s.set(64 + warp, 1); });
    faults(true, "a vector at an odd place", [](const Memory& s, int) { s.vector<2>(1); });
    faults(true, "outside global memory", [](const Memory&, int) {
        float x = 0;
        Global<float>(&x, 1).set(1, 2);
    });
}

}  // namespace testing
