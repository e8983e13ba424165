// One sample through complex modes with a correction of low rank.

#include "testing.h"

namespace testing {
namespace {

using Wide = std::complex<double>;

struct Sizes {
    int64_t batch, features, modes, channels, rank;
};

struct System {
    Buffer<Wide> A, B, C, left, right;

    explicit System(const Sizes& n)
        : A(n.features * n.modes),
          B(n.features * n.modes),
          C(n.channels * n.features * n.modes),
          left(n.rank * n.features * n.modes),
          right(n.rank * n.features * n.modes) {
        A.randomize(), B.randomize(), C.randomize(), left.randomize(), right.randomize();
    }
};

template <typename Real>
int32_t call(Buffer<std::complex<Real>>& next, Buffer<Real>& y, Buffer<std::complex<Real>>& x, Buffer<Real>& u,
             System& s, const Sizes& n) {
    const auto numbers = [](Buffer<Wide>& of) { return reinterpret_cast<double*>(of.data()); };
    return longconv_cpu_state_space_step(next.data(), y.data(), x.data(), u.data(), numbers(s.A), numbers(s.B),
                                         numbers(s.C), numbers(s.left), numbers(s.right), n.batch, n.features, n.modes,
                                         n.channels, n.rank, sizeof(Real));
}

template <typename Real>
void run(const Sizes& n) {
    System s(n);
    Buffer<std::complex<Real>> x(n.batch * n.features * n.modes), next(x.size());
    Buffer<Real> u(n.batch * n.features), y(n.batch * n.channels * n.features);
    x.randomize(), u.randomize();
    const std::string what = "state_space_step of " + std::to_string(n.modes) + " modes, rank " +
                             std::to_string(n.rank) + ", " + std::to_string(sizeof(Real)) + " bytes";
    expect_ok(call(next, y, x, u, s, n), what);
    Comparison states, outputs;
    const int64_t row = n.features * n.modes;
    for (int64_t b = 0; b < n.batch; ++b)
        for (int64_t h = 0; h < n.features; ++h) {
            const int64_t at = (b * n.features + h) * n.modes, own = h * n.modes;
            for (int64_t i = 0; i < n.modes; ++i) {
                Wide want = s.A[own + i] * Wide(x[at + i]) + s.B[own + i] * static_cast<double>(u[b * n.features + h]);
                for (int64_t r = 0; r < n.rank; ++r) {
                    double sum = 0;
                    for (int64_t m = 0; m < n.modes; ++m) sum += (s.right[r * row + own + m] * Wide(x[at + m])).real();
                    want += s.left[r * row + own + i] * sum;
                }
                states.add(next[at + i], want);
            }
            for (int64_t c = 0; c < n.channels; ++c) {
                double want = 0;
                for (int64_t i = 0; i < n.modes; ++i) want += (s.C[c * row + own + i] * Wide(next[at + i])).real();
                outputs.add(y[(b * n.channels + c) * n.features + h], want);
            }
        }
    states.finish(Number<Real>::kError, what + ", the state");
    outputs.finish(Number<Real>::kError, what + ", the output");
    Buffer<Real> again(y.size());
    expect_ok(call(x, again, x, u, s, n), what + ", in place");
    Comparison in_place;
    for (int64_t i = 0; i < x.size(); ++i) in_place.add(x[i], next[i]);
    for (int64_t i = 0; i < y.size(); ++i) in_place.add(again[i], y[i]);
    in_place.finish(0, what + ", in place");
}

}  // namespace

void state_space_step() {
    const auto status = [](int64_t batch, int64_t rank, int32_t bytes) {
        return longconv_cpu_state_space_step(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                                             nullptr, batch, 1, 1, 1, rank, bytes);
    };
    expect(status(-1, 0, 4) == LONGCONV_BAD_SIZE, "a negative batch");
    expect(status(1, LONGCONV_MOST_RANK + 1, 4) == LONGCONV_BAD_RANK, "a rank that is too high");
    expect(status(1, 0, 2) == LONGCONV_BAD_ELEMENT, "2 bytes");
    expect_ok(status(0, 0, 4), "no samples");
    for (int i = 0; i < 60; ++i) {
        const Sizes n = {random_int(1, 3), random_int(1, 9), random_int(0, 40), random_int(1, 3),
                         i % 10 == 0 ? LONGCONV_MOST_RANK : random_int(0, 3)};
        run<float>(n);
        run<double>(n);
    }
    const Sizes wide = {16, 300, 32, 1, 1};  // worth several threads
    run<float>(wide);
}

}  // namespace testing
