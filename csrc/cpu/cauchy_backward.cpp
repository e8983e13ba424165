// The gradients of csrc/cpu/cauchy.cpp to v and w, for h = conj(g):
//
//     conj(dv[n]) = sum_l h[l] / (z[l] - w[n]),    conj(dw[n]) = v[n] sum_l h[l] / (z[l] - w[n])^2
//
// tile by tile: for a far pole with the moments m[k] = sum_l h[l] t[l]^k these are -q sum_k m[k] s^k and
// q^2 sum_k (k + 1) m[k] s^k; sums over tiles are in double precision.

#include "cauchy.h"

namespace longconv {
namespace LONGCONV_ISA {
namespace {

template <typename T>
struct PoleSums {
    static constexpr int W = Poles<T>::W;
    static constexpr int64_t kSegment = 4096;

    const LongconvCauchy& p;
    Points<T> points;
    Poles<T> poles;
    Planes<T> scaled, h;           // of a tile
    Planes<double> first, second;  // of the poles, for a row
    Planes<double> dw;
    int64_t loaded = -1;

    PoleSums(const LongconvCauchy& p, Memory& memory)
        : p(p),
          points(least(kSegment, (p.length + kMostPoints - 1) / kMostPoints * kMostPoints), memory),
          poles(p.modes, memory),
          scaled(Planes<T>::take(memory, kMostPoints)),
          h(Planes<T>::take(memory, kMostPoints)),
          first(Planes<double>::take(memory, p.rows * poles.padded)),
          second(Planes<double>::take(memory, p.rows * poles.padded)),
          dw(Planes<double>::take(memory, poles.padded)) {}

    int64_t units() const { return p.sets; }

    void run(int64_t set) {
        poles.load(p.w, set);
        for (int64_t i = 0; i < p.rows * poles.padded; ++i) first.re[i] = first.im[i] = second.re[i] = second.im[i] = 0;
        for (int64_t start = 0; start < p.length; start += kSegment) {
            const int64_t count = least(p.length - start, kSegment), place = set * p.z.set + start * p.z.step;
            if (place != loaded) points.load(p.z, place, count);
            loaded = place;
            const int64_t size = poles.best_size(points);
            for (int64_t l = 0; l < count; l += size) {
                const Circle circle = points.around(l, size);
                poles.look(circle, size);
                const bool too_far = poles.near_count > 0 && poles.too_far(circle);
                points.scale(scaled, circle, l, size);
                for (int64_t row = 0; row < p.rows; ++row) {
                    load_cotangents(set * p.y.set + row * p.y.row + start + l, least(count - l, size), size);
                    if (poles.terms > 0) add_far(size, row * poles.padded);
                    for (int64_t i = 0; i < poles.near_count; ++i)
                        add_near(l, size, row * poles.padded, poles.near[i], too_far);
                }
            }
        }
        finish(set);
    }

    void load_cotangents(int64_t at, int64_t count, int64_t size) {
        const T* const g = static_cast<const T*>(p.y.data);
        if (is_complex(p.y.element))
            for (int64_t i = 0; i < count; ++i) h.re[i] = g[2 * (at + i)], h.im[i] = -g[2 * (at + i) + 1];
        else
            for (int64_t i = 0; i < count; ++i) h.re[i] = g[at + i], h.im[i] = 0;
        for (int64_t i = count; i < size; ++i) h.re[i] = h.im[i] = 0;
    }

    void add_far(int64_t size, int64_t row) {
        using C = Complex<T, W>;
        C moments[kTerms];
        for (int k = 0; k < poles.terms; ++k) moments[k] = C{};
        for (int64_t i = 0; i < size; i += 4 * W) {
            C t[4], x[4];
            unroll<4>([&](auto j) __attribute__((always_inline)) {
                t[j] = scaled.template load<W>(i + j * W), x[j] = h.template load<W>(i + j * W);
            });
            for (int k = 0; k < poles.terms; ++k) {
                moments[k] = moments[k] + ((x[0] + x[1]) + (x[2] + x[3]));
                unroll<4>([&](auto j) __attribute__((always_inline)) { x[j] = x[j].times(t[j].re, t[j].im); });
            }
        }
        T re[kTerms], im[kTerms];
        for (int k = 0; k < poles.terms; ++k)
            re[k] = lane_sum<T, W>(moments[k].re), im[k] = lane_sum<T, W>(moments[k].im);
        for (int64_t n = 0; n < poles.padded; n += W) {
            const C s = poles.ratio.template load<W>(n);
            C a = {}, b = {};
            for (int k = poles.terms - 1; k >= 0; --k) {
                const T weight = T(k + 1), weighted_re = weight * re[k], weighted_im = weight * im[k];
                a = {a.re * s.re - (a.im * s.im - re[k]), a.re * s.im + (a.im * s.re + im[k])};
                b = {b.re * s.re - (b.im * s.im - weighted_re), b.re * s.im + (b.im * s.re + weighted_im)};
            }
            add(row + n, n, a, b);
        }
    }

    // first -= q a, second += q^2 b.
    void add(int64_t to, int64_t n, const Complex<T, W>& a, const Complex<T, W>& b) const {
        const Complex<T, W> q = poles.inverse.template load<W>(n);
        const Complex<T, W> x = a.times(q.re, q.im), y = b.times(q.re, q.im).times(q.re, q.im);
        for (int i = 0; i < W; ++i) {
            first.re[to + i] -= x.re[i], first.im[to + i] -= x.im[i];
            second.re[to + i] += y.re[i], second.im[to + i] += y.im[i];
        }
    }

    void add_near(int64_t l, int64_t size, int64_t row, int64_t n, bool too_far) {
        double sums[4] = {};
        bool done = false;
        if (!too_far && sizeof(T) == 4 && !p.wide)
            done = sum_near<T>(sums, points.rounded, l, size, poles.rounded.re[n], poles.rounded.im[n]);
        else if (!too_far)
            done = sum_near<T>(sums, points.z, l, size, poles.w.re[n], poles.w.im[n]);
        if (!done) sum_near<double>(sums, points.z, l, size, poles.w.re[n], poles.w.im[n]);
        first.re[row + n] += sums[0], first.im[row + n] += sums[1];
        second.re[row + n] += sums[2], second.im[row + n] += sums[3];
    }

    // The sums of h / (z - w) and h / (z - w)^2, formed in F; whether |z - w|^2 stayed within the range.
    template <typename F, typename Number>
    bool sum_near(double* sums, const Planes<Number>& z, int64_t l, int64_t size, Number re, Number im) const {
        constexpr int V = kVectorBytes / (sizeof(F) > sizeof(Number) ? sizeof(F) : sizeof(Number));
        using Lanes = Vector<F, V>;
        constexpr F kLeast = sizeof(F) == 4 ? F(1e-36) : F(0);
        Complex<F, V> a = {}, b = {};
        Lanes smallest = Lanes{} + F(1);
        for (int64_t i = 0; i < size; i += V) {
            const Lanes x = __builtin_convertvector(load_vector<Number, V>(z.re + l + i) - re, Lanes);
            const Lanes y = __builtin_convertvector(load_vector<Number, V>(z.im + l + i) - im, Lanes);
            const Lanes square = x * x + y * y, over = F(1) / square, c = x * over, d = -y * over;
            const Lanes g = __builtin_convertvector(load_vector<T, V>(h.re + i), Lanes);
            const Lanes f = __builtin_convertvector(load_vector<T, V>(h.im + i), Lanes);
            const Complex<F, V> once = Complex<F, V>{g, f}.times(c, d);
            a = a + once, b = b + once.times(c, d);
            smallest = square < smallest ? square : smallest;
        }
        for (int i = 0; i < V; ++i)
            if (smallest[i] < kLeast) return false;
        sums[0] = lane_sum<F, V>(a.re), sums[1] = lane_sum<F, V>(a.im);
        sums[2] = lane_sum<F, V>(b.re), sums[3] = lane_sum<F, V>(b.im);
        return true;
    }

    void finish(int64_t set) {
        for (int64_t n = 0; n < p.modes; ++n) {
            double total_re = 0, total_im = 0;
            for (int64_t row = 0; row < p.rows; ++row) {
                double re, im;
                const int64_t i = row * poles.padded + n;
                get(p.v, set * p.v.set + row * p.v.row + n * p.v.step, re, im);
                total_re += re * second.re[i] - im * second.im[i];
                total_im -= re * second.im[i] + im * second.re[i];
                put(p.dv, set * p.dv.set + row * p.dv.row + n * p.dv.step, first.re[i], -first.im[i]);
            }
            put(p.dw, set * p.dw.set + n * p.dw.step, total_re, total_im);
        }
    }
};

}  // namespace

int32_t cauchy_poles(const LongconvCauchy& p, int64_t* work_bytes) {
    switch (p.element) {
        case LONGCONV_FLOAT32:
            return run_all<PoleSums<float>>(p, work_bytes);
        case LONGCONV_FLOAT64:
            return run_all<PoleSums<double>>(p, work_bytes);
    }
    return LONGCONV_BAD_ELEMENT;
}

}  // namespace LONGCONV_ISA
}  // namespace longconv
