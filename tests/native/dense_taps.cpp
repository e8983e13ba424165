// y[set, row, l] = C[set, row] A[set]^l B[set] and its gradients, of matrices whose powers neither vanish nor grow.

#include "testing.h"

namespace testing {
namespace {

struct Sizes {
    int64_t sets, rows, states, length;
};

struct Test {
    Sizes n;
    int64_t square = n.states * n.states, of_rows = n.rows * n.states;
    Buffer<double> A{n.sets * square}, B{n.sets * n.states}, C{n.sets * of_rows};
    Buffer<double> dA{A.size()}, dB{B.size()}, dC{C.size()};
    Buffer<double> y{n.sets * n.rows * n.length}, g{y.size()};
    std::vector<double> w_y, w_dA, w_dB, w_dC;

    explicit Test(const Sizes& n) : n(n) {
        A.randomize(), B.randomize(), C.randomize(), g.randomize();
        for (int64_t i = 0; i < A.size(); ++i) {  // a rotation of the states, disturbed by no more than its decay
            const int64_t row = i / n.states % n.states, column = i % n.states;
            A[i] *= 0.02 / static_cast<double>(n.states);
            if (column == (row + 1) % n.states) A[i] += 0.98;
        }
        w_y.resize(y.size()), w_dA.resize(A.size()), w_dB.resize(B.size()), w_dC.resize(C.size());
    }

    // The states of a set, one after the other, and their adjoints back.
    void define(int64_t set) {
        const double *a = &A[set * square], *c = &C[set * of_rows];
        std::vector<double> x(n.length * n.states), p(n.states);
        for (int64_t i = 0; i < n.states; ++i) x[i] = B[set * n.states + i];
        for (int64_t l = 1; l < n.length; ++l)
            for (int64_t i = 0; i < n.states; ++i)
                for (int64_t j = 0; j < n.states; ++j)
                    x[l * n.states + i] += a[i * n.states + j] * x[(l - 1) * n.states + j];
        for (int64_t l = n.length - 1; l >= 0; --l) {
            const double* const state = &x[l * n.states];
            std::vector<double> before(n.states);
            for (int64_t i = 0; i < n.states; ++i)
                for (int64_t j = 0; j < n.states; ++j) {
                    w_dA[set * square + i * n.states + j] += p[i] * state[j];
                    before[j] += a[i * n.states + j] * p[i];
                }
            p = before;
            for (int64_t m = 0; m < n.rows; ++m) {
                const double cotangent = g[(set * n.rows + m) * n.length + l];
                double& tap = w_y[(set * n.rows + m) * n.length + l];
                for (int64_t i = 0; i < n.states; ++i) {
                    tap += c[m * n.states + i] * state[i];
                    w_dC[set * of_rows + m * n.states + i] += cotangent * state[i];
                    p[i] += cotangent * c[m * n.states + i];
                }
            }
        }
        for (int64_t i = 0; i < n.states; ++i) w_dB[set * n.states + i] = p[i];
    }

    void call(LongconvDenseTaps& call, const std::string& what) {
        int64_t bytes = 0;
        expect_ok(longconv_cpu_dense_taps(&call, &bytes), what);
        Buffer<uint8_t> work(bytes * threads());
        call.work = work.data();
        expect_ok(longconv_cpu_dense_taps(&call, nullptr), what);
    }

    void run() {
        const std::string what = "dense_taps of " + std::to_string(n.sets) + " x " + std::to_string(n.rows) + ", " +
                                 std::to_string(n.states) + " states, length " + std::to_string(n.length);
        LongconvDenseTaps c = {};
        c.A = A.data(), c.B = B.data(), c.C = C.data(), c.y = y.data();
        c.sets = n.sets, c.rows = n.rows, c.states = n.states, c.length = n.length, c.threads = threads();
        call(c, what);
        c.backward = 1, c.y = g.data(), c.dA = dA.data(), c.dB = dB.data(), c.dC = dC.data();
        call(c, what + ", backward");
        for (int64_t set = 0; set < n.sets; ++set) define(set);
        compare(y, w_y, what);
        compare(dA, w_dA, what + ", dA");
        compare(dB, w_dB, what + ", dB");
        compare(dC, w_dC, what + ", dC");
    }

    static void compare(Buffer<double>& got, const std::vector<double>& want, const std::string& what) {
        Comparison of;
        for (int64_t i = 0; i < got.size(); ++i) of.add(got[i], want[i]);
        of.finish(kErrorOf<double>, what);
    }
};

}  // namespace

void dense_taps() {
    for (int i = 0; i < 40; ++i) {
        const int64_t length = i % 4 == 0 ? random_int(1, 700) : random_int(1, 40);
        Test({random_int(1, 4), random_int(1, 5), random_int(1, i % 8 == 0 ? 70 : 20), length}).run();
    }
}

}  // namespace testing
