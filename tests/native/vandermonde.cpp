// y[set, row, l] = sum_n v[set, row, n] x[set, n]^l and its gradients, for powers and for logarithms.

#include "testing.h"

namespace testing {
namespace {

using Wide = std::complex<double>;

struct Sizes {
    int64_t sets, rows, modes, length;
    bool logarithms, real_y;
};

template <typename Real>
LongconvNumbers view(Buffer<std::complex<Real>>& of, int64_t set, int64_t row, int64_t step) {
    return {of.data(), set, row, step, sizeof(Real) == 4 ? LONGCONV_COMPLEX64 : LONGCONV_COMPLEX128};
}

template <typename Real>
struct Test {
    using Complex = std::complex<Real>;

    Sizes n;
    Buffer<Complex> v{n.sets * n.rows * n.modes}, x{n.sets * n.modes};
    Buffer<Complex> dv{n.sets * n.rows * n.modes}, dx{n.sets * n.modes};
    Buffer<Real> y{n.sets * n.rows * n.length * (n.real_y ? 1 : 2)}, g{y.size()};
    std::vector<Wide> w_y = {}, w_dv = {}, w_dx = {};
    double terms[3] = {};  // of these sums, the squares of their sizes

    // What y holds at l, or the cotangent there.
    Wide at(Buffer<Real>& of, int64_t l) { return n.real_y ? Wide(of[l]) : Wide(of[2 * l], of[2 * l + 1]); }

    void add(Wide& sum, const Wide& term, int of) { sum += term, terms[of] += std::norm(term); }

    void define() {
        w_y.assign(n.sets * n.rows * n.length, 0), w_dv.assign(v.size(), 0), w_dx.assign(x.size(), 0);
        for (int64_t s = 0; s < n.sets; ++s)
            for (int64_t m = 0; m < n.modes; ++m) {
                const Wide node = x[s * n.modes + m], base = n.logarithms ? std::exp(node) : node;
                Wide power = 1, before = 0;  // base^l, and d power / d node
                for (int64_t l = 0; l < n.length; ++l) {
                    for (int64_t r = 0; r < n.rows; ++r) {
                        const int64_t row = s * n.rows + r, of_v = row * n.modes + m, of_y = row * n.length + l;
                        add(w_y[of_y], Wide(v[of_v]) * power, 0);
                        add(w_dv[of_v], at(g, of_y) * std::conj(power), 1);
                        add(w_dx[s * n.modes + m], at(g, of_y) * std::conj(Wide(v[of_v]) * before), 2);
                    }
                    before = n.logarithms ? static_cast<double>(l + 1) * power * base : power + before * base;
                    power *= base;
                }
            }
    }

    void call(LongconvVandermonde& call, const std::string& what) {
        int64_t bytes = 0;
        expect_ok(longconv_cpu_vandermonde(&call, &bytes), what);
        Buffer<uint8_t> work(bytes * threads());
        call.work = work.data();
        expect_ok(longconv_cpu_vandermonde(&call, nullptr), what);
    }

    void run(int32_t element) {
        v.randomize(), x.randomize(), g.randomize();
        for (Complex& node : x)
            node = n.logarithms ? Complex(-std::abs(node.real()) / 20, node.imag())
                                : node / (Real(1) + static_cast<Real>(std::abs(node)) * Real(0.8));
        for (Complex& node : x)
            if (!n.logarithms && std::abs(node) > 1) node /= static_cast<Real>(std::abs(node) * 1.01);
        const std::string what = "vandermonde of " + std::to_string(n.sets) + " x " + std::to_string(n.rows) + ", " +
                                 std::to_string(n.modes) + " modes, length " + std::to_string(n.length) +
                                 (n.logarithms ? ", logarithms" : "") + (n.real_y ? ", real part" : "");
        const int32_t of_y = n.real_y                      ? element
                             : element == LONGCONV_FLOAT32 ? LONGCONV_COMPLEX64
                                                           : LONGCONV_COMPLEX128;
        LongconvVandermonde c = {};
        c.v = view(v, n.rows * n.modes, n.modes, 1), c.x = view(x, n.modes, 0, 1);
        c.y = {y.data(), n.rows * n.length, n.length, 1, of_y};
        c.sets = n.sets, c.rows = n.rows, c.modes = n.modes, c.length = n.length;
        c.logarithms = n.logarithms, c.threads = threads(), c.element = element;
        call(c, what);
        c.backward = 1, c.y.data = g.data();
        c.dv = view(dv, n.rows * n.modes, n.modes, 1), c.dx = view(dx, n.modes, 0, 1);
        call(c, what + ", backward");
        define();
        Comparison of[3];
        for (size_t l = 0; l < w_y.size(); ++l) of[0].add(at(y, l), n.real_y ? w_y[l].real() : w_y[l]);
        for (int64_t i = 0; i < v.size(); ++i) of[1].add(dv[i], w_dv[i]);
        for (int64_t i = 0; i < x.size(); ++i) of[2].add(dx[i], w_dx[i]);
        // A sum of many terms is as exact as they are, and one number of it may be much less than they.
        const char* names[3] = {"", ", dv", ", dx"};
        for (int i = 0; i < 3; ++i) of[i].finish(Number<Real>::kError, what + names[i], std::sqrt(terms[i]));
    }
};

}  // namespace

void vandermonde() {
    for (int i = 0; i < 60; ++i) {
        const int64_t length = i % 6 == 0 ? random_int(1, 2000) : random_int(1, 80);
        const Sizes n = {random_int(1, 5), random_int(1, 3), random_int(1, 40), length, random_bool(), random_bool()};
        Test<float>{n}.run(LONGCONV_FLOAT32);
        Test<double>{n}.run(LONGCONV_FLOAT64);
    }
}

}  // namespace testing
