// h[o, t, i] = a[o, t, i] h[o, t - 1, i] + b[o, t, i], forwards and backwards, with any strides.

#include "testing.h"

namespace testing {
namespace {

// Strides of a tensor of three axes, in an order of memory of its own, with some axes repeated.
struct Layout {
    int64_t stride[3] = {0, 0, 0}, size = 1;

    Layout(const int64_t (&shape)[3], bool may_repeat) {
        const int first = static_cast<int>(random_int(0, 2)), turn = random_bool() ? 1 : 2;
        for (int i = 0; i < 3; ++i) {
            const int axis = (first + i * turn) % 3;
            if (may_repeat && random_int(0, 3) == 0) continue;
            stride[axis] = size, size *= shape[axis];
        }
    }
};

template <typename T>
void run(int64_t outer, int64_t length, int64_t inner, int32_t element) {
    using Wide = std::complex<double>;
    const int64_t shape[3] = {outer, length, inner}, state_shape[3] = {outer, 1, inner};
    const Layout in_a(shape, true), in_b(shape, true), in_initial(state_shape, true);
    const bool reverse = random_bool(), has_initial = random_bool();
    Buffer<T> a(in_a.size, random_int(0, 1)), b(in_b.size, random_int(0, 1)), initial(in_initial.size);
    Buffer<T> h(outer * length * inner, random_int(0, 1));
    a.randomize(), b.randomize(), initial.randomize();
    for (T& x : a) x = x / static_cast<T>(1.0 + std::abs(x));
    const int64_t initial_stride[2] = {in_initial.stride[0], in_initial.stride[2]};
    const std::string what = "linear_scan of " + std::to_string(outer) + " x " + std::to_string(length) + " x " +
                             std::to_string(inner) + " numbers of type " + std::to_string(element);
    expect_ok(
        longconv_cpu_linear_scan(h.data(), a.data(), b.data(), has_initial ? initial.data() : nullptr, outer, length,
                                 inner, in_a.stride, in_b.stride, initial_stride, reverse, threads(), element),
        what);
    Comparison all;
    for (int64_t o = 0; o < outer; ++o)
        for (int64_t i = 0; i < inner; ++i) {
            Wide state = has_initial ? Wide(initial[o * initial_stride[0] + i * initial_stride[1]]) : Wide(0);
            for (int64_t step = 0; step < length; ++step) {
                const int64_t t = reverse ? length - 1 - step : step;
                state = Wide(a[o * in_a.stride[0] + t * in_a.stride[1] + i * in_a.stride[2]]) * state +
                        Wide(b[o * in_b.stride[0] + t * in_b.stride[1] + i * in_b.stride[2]]);
                all.add(h[(o * length + t) * inner + i], state);
            }
        }
    all.finish(Number<T>::kError, what);
}

}  // namespace

void linear_scan() {
    const int64_t none[3] = {0, 0, 0};
    const auto scan = [&](int64_t length, int32_t element) {
        return longconv_cpu_linear_scan(nullptr, nullptr, nullptr, nullptr, 1, length, 1, none, none, none, 0, 1,
                                        element);
    };
    expect(scan(-1, LONGCONV_FLOAT32) == LONGCONV_BAD_SIZE, "a negative length");
    expect(scan(1, 99) == LONGCONV_BAD_ELEMENT, "an unknown element");
    expect_ok(scan(0, LONGCONV_FLOAT32), "nothing to scan");
    for (int i = 0; i < 60; ++i) {
        const int64_t outer = random_int(1, 5), length = random_int(1, i % 6 == 0 ? 3000 : 60);
        const int64_t inner = random_int(1, i % 6 == 1 ? 700 : i % 2 ? 70 : 5);
        run<float>(outer, length, inner, LONGCONV_FLOAT32);
        run<double>(outer, length, inner, LONGCONV_FLOAT64);
        run<std::complex<float>>(outer, length, inner, LONGCONV_COMPLEX64);
        run<std::complex<double>>(outer, length, inner, LONGCONV_COMPLEX128);
    }
}

}  // namespace testing
