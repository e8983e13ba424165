// y[set, row, l] = sum_n v[set, row, n] / (z[set, l] - w[set, n]) and its gradients, with points near poles and far
// from them, shared by the sets or their own, and of higher precision than the sums.

#include "testing.h"

namespace testing {
namespace {

using Wide = std::complex<double>;

struct Sizes {
    int64_t sets, rows, modes, length;
    bool shared, real_y;
};

template <typename Real>
constexpr int32_t kComplex = sizeof(Real) == 4 ? LONGCONV_COMPLEX64 : LONGCONV_COMPLEX128;

template <typename Real>
LongconvNumbers view(Buffer<std::complex<Real>>& of, int64_t set, int64_t row) {
    return {of.data(), set, row, 1, kComplex<Real>};
}

// Sums in Real of points and poles in Place.
template <typename Real, typename Place>
struct Test {
    Sizes n;
    int64_t points = n.shared ? n.length : n.sets * n.length, z_set = n.shared ? 0 : n.length;
    Buffer<std::complex<Real>> v{n.sets * n.rows * n.modes}, dv{v.size()};
    Buffer<std::complex<Place>> z{points}, w{n.sets * n.modes}, dz{points}, dw{w.size()};
    Buffer<Real> y{n.sets * n.rows * n.length * (n.real_y ? 1 : 2)}, g{y.size()};
    std::vector<Wide> w_y = {}, w_dv = {}, w_dz = {}, w_dw = {};

    Wide at(Buffer<Real>& of, int64_t l) { return n.real_y ? Wide(of[l]) : Wide(of[2 * l], of[2 * l + 1]); }

    // Points on the imaginary axis in order, poles to the left of it: every fourth one close by.
    void randomize() {
        v.randomize(), g.randomize(), w.randomize();
        for (int64_t l = 0; l < points; ++l)
            z[l] = {0,
                    static_cast<Place>(20.0 * static_cast<double>(l % n.length) / static_cast<double>(n.length) - 10)};
        for (int64_t m = 0; m < w.size(); ++m)
            w[m] = {static_cast<Place>((m % 4 ? -0.5 : -0.01) * (1 + random_int(0, 9))), w[m].imag() * 5};
    }

    void define() {
        w_y.assign(n.sets * n.rows * n.length, 0), w_dv.assign(v.size(), 0);
        w_dz.assign(points, 0), w_dw.assign(w.size(), 0);
        for (int64_t row = 0; row < n.sets * n.rows; ++row)
            for (int64_t m = 0; m < n.modes; ++m)
                for (int64_t l = 0; l < n.length; ++l) {
                    const int64_t set = row / n.rows, of_w = set * n.modes + m, of_v = row * n.modes + m;
                    const int64_t of_z = set * z_set + l;
                    const Wide over = 1.0 / (Wide(z[of_z]) - Wide(w[of_w])), slope = Wide(v[of_v]) * over * over;
                    const Wide cotangent = at(g, row * n.length + l);
                    w_y[row * n.length + l] += Wide(v[of_v]) * over;
                    w_dv[of_v] += cotangent * std::conj(over);
                    w_dw[of_w] += cotangent * std::conj(slope);
                    w_dz[of_z] -= cotangent * std::conj(slope);
                }
    }

    void call(LongconvCauchy& call, const std::string& what) {
        int64_t bytes = 0;
        expect_ok(longconv_cpu_cauchy(&call, &bytes), what);
        Buffer<uint8_t> work(bytes * threads());
        call.work = work.data();
        expect_ok(longconv_cpu_cauchy(&call, nullptr), what);
    }

    void run(int32_t element) {
        randomize();
        const std::string what = "cauchy of " + std::to_string(n.sets) + " x " + std::to_string(n.rows) + ", " +
                                 std::to_string(n.modes) + " modes, length " + std::to_string(n.length) + ", " +
                                 std::to_string(sizeof(Real)) + " and " + std::to_string(sizeof(Place)) + " bytes" +
                                 (n.shared ? ", shared points" : "") + (n.real_y ? ", real part" : "");
        LongconvCauchy c = {};
        c.v = view(v, n.rows * n.modes, n.modes), c.z = view(z, z_set, 0), c.w = view(w, n.modes, 0);
        c.y = {y.data(), n.rows * n.length, n.length, 1, n.real_y ? element : kComplex<Real>};
        c.sets = n.sets, c.rows = n.rows, c.modes = n.modes, c.length = n.length;
        c.wide = sizeof(Place) > sizeof(Real), c.threads = threads(), c.element = element;
        call(c, what);
        c.backward = 1, c.y.data = g.data();
        c.dv = view(dv, n.rows * n.modes, n.modes), c.dz = view(dz, z_set, 0), c.dw = view(dw, n.modes, 0);
        call(c, what + ", backward");
        define();
        Comparison of[4];
        for (size_t l = 0; l < w_y.size(); ++l) of[0].add(at(y, l), n.real_y ? w_y[l].real() : w_y[l]);
        for (int64_t i = 0; i < v.size(); ++i) of[1].add(dv[i], w_dv[i]);
        for (int64_t i = 0; i < points; ++i) of[2].add(dz[i], w_dz[i]);
        for (int64_t i = 0; i < w.size(); ++i) of[3].add(dw[i], w_dw[i]);
        const char* const names[4] = {"", ", dv", ", dz", ", dw"};
        for (int i = 0; i < 4; ++i) of[i].finish(Number<Real>::kError, what + names[i]);
    }
};

}  // namespace

void cauchy() {
    for (int i = 0; i < 40; ++i) {
        const int64_t length = i % 4 == 0 ? random_int(1, 1500) : random_int(1, 80);
        const Sizes n = {random_int(1, 4), random_int(1, 3), random_int(1, 40), length, random_bool(), random_bool()};
        Test<float, float>{n}.run(LONGCONV_FLOAT32);
        Test<float, double>{n}.run(LONGCONV_FLOAT32);
        Test<double, double>{n}.run(LONGCONV_FLOAT64);
    }
}

}  // namespace testing
