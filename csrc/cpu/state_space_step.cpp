// One sample through a state space of complex modes with a correction of low rank: the inner loop of generation.
//
// Complex numbers stay interleaved. Of the five products only A x is a complex one; the others are a complex number by
// a real one, or the real part of a dot product, and need no shuffle.

#include "kernels.h"
#include "vector.h"

namespace longconv {
namespace LONGCONV_ISA {
namespace {

constexpr int kWidth = kVectorBytes / sizeof(double);
constexpr int64_t kFeatures = 4;      // their parameters stay in the L1 cache while the batch passes
constexpr int64_t kGrain = 16 << 10;  // modes that are worth a task

template <int W, typename Real>
inline Vector<double, W> load(const Real* in) {
    Vector<Real, W> v;
    __builtin_memcpy(&v, in, sizeof(v));
    return __builtin_convertvector(v, Vector<double, W>);
}

template <int W, typename Real>
inline void store(Real* out, const Vector<double, W> v) {
    const Vector<Real, W> rounded = __builtin_convertvector(v, Vector<Real, W>);
    __builtin_memcpy(out, &rounded, sizeof(rounded));
}

template <int W, int... I>
inline Vector<double, W> multiply(const Vector<double, W> a, const Vector<double, W> x, Indices<I...>) {
    const Vector<double, W> real = __builtin_shufflevector(a, a, (I & ~1)...);
    const Vector<double, W> imaginary = __builtin_shufflevector(a, a, (I | 1)...);
    const Vector<double, W> swapped = __builtin_shufflevector(x, x, (I ^ 1)...);
    return real * x + imaginary * Vector<double, W>{(I % 2 ? 1.0 : -1.0)...} * swapped;
}

// Re sum_n a[n] x[n] over the numbers (two a mode) from begin to end.
template <int W, typename Real>
inline double dot(const double* a, const Real* x, int64_t begin, int64_t end) {
    Vector<double, W> products{};
    for (int64_t i = begin; i < end; i += W) products += load<W>(a + i) * load<W>(x + i);
    double sum = 0;
    for (int i = 0; i < W; i += 2) sum += products[i] - products[i + 1];
    return sum;
}

template <typename Real>
struct Step {
    const StateSpaceStep& p;
    int64_t numbers = 2 * p.modes;  // of a feature
    int64_t whole = numbers / kWidth * kWidth;
    int64_t row = p.features * numbers;  // of a sample, and of each parameter

    double dot(const double* a, const Real* x) const {
        return LONGCONV_ISA::dot<kWidth>(a, x, 0, whole) + LONGCONV_ISA::dot<2>(a, x, whole, numbers);
    }

    // out[n] = A[n] x[n] + B[n] u + sum_r left[r, n] s[r].
    template <int W>
    void advance(Real* out, const Real* x, int64_t feature, double u, const double* s, int64_t begin,
                 int64_t end) const {
        const int64_t at = feature * numbers;
        for (int64_t i = begin; i < end; i += W) {
            auto next = multiply<W>(load<W>(p.A + at + i), load<W>(x + i), typename MakeIndices<W>::type{});
            next += load<W>(p.B + at + i) * u;
            for (int64_t r = 0; r < p.rank; ++r) next += load<W>(p.left + r * row + at + i) * s[r];
            store<W>(out + i, next);
        }
    }

    void one(int64_t sample, int64_t feature) const {
        const int64_t at = feature * numbers;
        const Real* x = static_cast<const Real*>(p.x) + sample * row + at;
        Real* out = static_cast<Real*>(p.next) + sample * row + at;
        double s[LONGCONV_MOST_RANK];
        for (int64_t r = 0; r < p.rank; ++r) s[r] = dot(p.right + r * row + at, x);
        const double u = static_cast<const Real*>(p.u)[sample * p.features + feature];
        advance<kWidth>(out, x, feature, u, s, 0, whole);
        advance<2>(out, x, feature, u, s, whole, numbers);
        Real* y = static_cast<Real*>(p.y) + sample * p.channels * p.features + feature;
        for (int64_t c = 0; c < p.channels; ++c) y[c * p.features] = static_cast<Real>(dot(p.C + c * row + at, out));
    }

    void range(int64_t begin, int64_t end) const {
        for (int64_t tile = begin; tile < end; tile += kFeatures) {
            const int64_t stop = tile + kFeatures < end ? tile + kFeatures : end;
            for (int64_t sample = 0; sample < p.batch; ++sample)
                for (int64_t feature = tile; feature < stop; ++feature) one(sample, feature);
        }
    }

    static void task(int64_t begin, int64_t end, void* context) {
        static_cast<const Step*>(context)->range(begin, end);
    }
};

template <typename Real>
int32_t run(const StateSpaceStep& p) {
    if (p.batch == 0) return LONGCONV_OK;
    Step<Real> step{p};
    return parallel_for(p.features, kGrain / (p.batch * (p.modes + 1)) + 1, Step<Real>::task, &step);
}

}  // namespace

int32_t state_space_step(const StateSpaceStep& p, int32_t element_size) {
    switch (element_size) {
        case 4:
            return run<float>(p);
        case 8:
            return run<double>(p);
    }
    return LONGCONV_BAD_ELEMENT;
}

}  // namespace LONGCONV_ISA
}  // namespace longconv
