// y[l] = sum_n v[n] / (z[l] - w[n]) tile by tile, and its derivatives -dy/dz: far poles as a polynomial of the points,
// near ones by one division of |z - w|^2 each (see cauchy.h). Differences of numbers of higher precision than the sum's
// are formed in that. A near sum in single precision whose |z - w|^2 leaves the range is done again in double
// precision.

#include "cauchy.h"

namespace longconv {
namespace LONGCONV_ISA {

int32_t cauchy_poles(const LongconvCauchy& p, int64_t* work_bytes);

namespace {

// a = z - w for a vector of points, in T.
template <typename T, bool kWide, int W, typename Number>
LONGCONV_INLINE Vector<T, W> difference(const Number* z, const Number w) {
    if constexpr (!kWide) {
        return load_vector<T, W>(z) - w;
    } else {
        using Half = Vector<T, W / 2>;
        const Half low = __builtin_convertvector(load_vector<double, W / 2>(z) - w, Half);
        const Half high = __builtin_convertvector(load_vector<double, W / 2>(z + W / 2) - w, Half);
        return join<T, W / 2>(low, high, typename MakeIndices<W>::type{});
    }
}

// sums += sum over the listed poles of v / (z - w), or of v / (z - w)^2.
template <typename T, bool kSlope, bool kWide, typename Number>
void sum_near(const Planes<T>& sums, const Planes<Number>& z, const Planes<Number>& w, const Planes<T>& v,
              const int64_t* list, int64_t count, int64_t size) {
    constexpr int W = kVectorBytes / sizeof(T), kVectors = 2;
    using C = Complex<T, W>;
    using V = Vector<T, W>;
    for (int64_t l = 0; l < size; l += kVectors * W) {
        C y[kVectors] = {};
        for (int64_t i = 0; i < count; ++i) {
            const int64_t n = list[i];
            const T re = v.re[n], im = v.im[n];
            unroll<kVectors>([&](auto j) __attribute__((always_inline)) {
                const V a = difference<T, kWide, W>(z.re + l + j * W, w.re[n]);
                const V b = difference<T, kWide, W>(z.im + l + j * W, w.im[n]);
                const V square = a * a + b * b, over = T(1) / square;
                if constexpr (kSlope) {
                    const V c = a * over, d = b * over, e = c * c - d * d, f = c * d * T(-2);
                    y[j].re += re * e - im * f, y[j].im += im * e + re * f;
                } else {
                    y[j].re += (re * a + im * b) * over, y[j].im += (im * a - re * b) * over;
                }
            });
        }
        unroll<kVectors>([&](auto j) __attribute__((always_inline)) {
            sums.template store<W>(l + j * W, sums.template load<W>(l + j * W) + y[j]);
        });
    }
}

template <typename T, bool kSlope>
struct Values {
    static constexpr int W = Poles<T>::W, kAtOnce = 4;

    const LongconvCauchy& p;
    int64_t segment;  // points of a unit
    Points<T> points;
    Poles<T> poles;
    Planes<double> v;
    Planes<T> v_rounded;
    Planes<T> scaled, sums;        // of a tile: t, y
    Planes<double> wide_sums, dz;  // of a tile again, and of a segment
    T bound = 0;                   // of values that no near pole has spoilt
    int64_t loaded = -1;

    Values(const LongconvCauchy& p, Memory& memory)
        : p(p),
          segment(segment_of(p.length, kSlope)),
          points(segment, memory),
          poles(p.modes, memory),
          v(Planes<double>::take(memory, poles.padded)),
          v_rounded(Planes<T>::take(memory, poles.padded)),
          scaled(Planes<T>::take(memory, kMostPoints)),
          sums(Planes<T>::take(memory, kMostPoints)),
          wide_sums(Planes<double>::take(memory, kMostPoints)),
          dz(Planes<double>::take(memory, kSlope ? segment : 0)) {}

    // It does not depend on the threads, and so the results don't.
    static int64_t segment_of(int64_t length, bool slope) {
        const int64_t wanted = slope ? (length + 15) / 16 : length, most = 4096;
        return ((wanted < most ? wanted : most) + kMostPoints - 1) / kMostPoints * kMostPoints;
    }

    bool shared() const { return (kSlope ? p.dz.set : p.z.set) == 0; }
    int64_t segments() const { return (p.length + segment - 1) / segment; }
    // A sum over the sets that share the points is one unit.
    int64_t units() const { return segments() * (kSlope && shared() ? 1 : p.sets); }

    void run(int64_t unit) {
        const int64_t sets = units() / segments(), part = unit / sets, set = unit % sets;
        const int64_t first = part * segment, count = least(p.length - first, segment);
        const int64_t place = shared() ? part : unit;
        if (place != loaded) points.load(p.z, set * p.z.set + first * p.z.step, count);
        loaded = place;
        if constexpr (kSlope) {
            for (int64_t i = 0; i < segment; ++i) dz.re[i] = dz.im[i] = 0;
            for (int64_t s = set; s < (shared() ? p.sets : set + 1); ++s) run(s, first, count);
            for (int64_t i = 0; i < count; ++i) put(p.dz, set * p.dz.set + (first + i) * p.dz.step, dz.re[i], dz.im[i]);
        } else {
            run(set, first, count);
        }
    }

    void run(int64_t set, int64_t first, int64_t count) {
        poles.load(p.w, set);
        const int64_t size = poles.best_size(points);
        for (int64_t row = 0; row < p.rows; ++row) {
            load_row(set, row);
            for (int64_t l = 0; l < count; l += size) {
                const Circle circle = points.around(l, size);
                poles.look(circle, size);
                points.scale(scaled, circle, l, size);
                add_far(size);
                if (poles.near_count > 0) add_near(l, size, poles.too_far(circle));
                const int64_t at = set * p.y.set + row * p.y.row + first + l;
                if constexpr (kSlope)
                    add_slopes(l, at, least(count - l, size));
                else
                    write(at, least(count - l, size));
            }
        }
    }

    void load_row(int64_t set, int64_t row) {
        for (int64_t n = p.modes; n < poles.padded; ++n) v.re[n] = v.im[n] = 0;
        get_all(v.re, v.im, p.v, set * p.v.set + row * p.v.row, p.modes);
        round(v_rounded, v, poles.padded);
        double smallest = 1e30;
        for (int64_t n = 0; n < p.modes; ++n) {
            const double size = __builtin_fabs(v.re[n]) + __builtin_fabs(v.im[n]);
            smallest = size < smallest && size > 0 ? size : smallest;
        }
        bound = static_cast<T>(smallest * (kSlope ? 1e32 : 1e16) < 1e37 ? smallest * (kSlope ? 1e32 : 1e16) : 1e37);
    }

    // The polynomial of the far poles at the points.
    void add_far(int64_t size) {
        using C = Complex<T, W>;
        C coefficients[kTerms];
        find_coefficients(coefficients);
        T re[kTerms], im[kTerms];
        for (int k = 0; k < poles.terms; ++k)
            re[k] = lane_sum<T, W>(coefficients[k].re), im[k] = lane_sum<T, W>(coefficients[k].im);
        for (int64_t i = 0; i < size; i += kAtOnce * W) {
            C t[kAtOnce], y[kAtOnce] = {};
            unroll<kAtOnce>([&](auto j) __attribute__((always_inline)) { t[j] = scaled.template load<W>(i + j * W); });
            for (int k = poles.terms - 1; k >= 0; --k)
                unroll<kAtOnce>([&](auto j) __attribute__((always_inline)) {
                    y[j] = {y[j].re * t[j].re - (y[j].im * t[j].im - re[k]),
                            y[j].re * t[j].im + (y[j].im * t[j].re + im[k])};
                });
            unroll<kAtOnce>([&](auto j) __attribute__((always_inline)) { sums.template store<W>(i + j * W, y[j]); });
        }
    }

    // -v q s^k, or (k + 1) v q^2 s^k, summed over the poles up to lanes.
    void find_coefficients(Complex<T, W>* coefficients) const {
        using C = Complex<T, W>;
        for (int k = 0; k < poles.terms; ++k) coefficients[k] = C{};
        for (int64_t n = 0; n < poles.padded; n += W) {
            const C q = poles.inverse.template load<W>(n);
            C u = v_rounded.template load<W>(n).times(q.re, q.im);
            u = kSlope ? u.times(q.re, q.im) : C{-u.re, -u.im};
            const C s = poles.ratio.template load<W>(n);
            for (int k = 0; k < poles.terms; ++k, u = u.times(s.re, s.im)) {
                const T weight = kSlope ? T(k + 1) : T(1);
                coefficients[k].re += weight * u.re, coefficients[k].im += weight * u.im;
            }
        }
    }

    void add_near(int64_t l, int64_t size, bool too_far) {
        const Planes<double> z{points.z.re + l, points.z.im + l};
        const Planes<T> rounded{points.rounded.re + l, points.rounded.im + l};
        if (!too_far) {
            for (int64_t i = 0; i < poles.near_count; i += kList) {
                const int64_t* const list = poles.near + i;
                const int64_t count = least(poles.near_count - i, kList);
                if (p.wide && sizeof(T) == 4)
                    sum_near<T, kSlope, sizeof(T) == 4>(sums, z, poles.w, v_rounded, list, count, size);
                else
                    sum_near<T, kSlope, false>(sums, rounded, poles.rounded, v_rounded, list, count, size);
            }
            if (sizeof(T) == 8 || is_plausible(size)) return;
            add_far(size);
        }
        for (int64_t i = 0; i < size; ++i) wide_sums.re[i] = sums.re[i], wide_sums.im[i] = sums.im[i];
        sum_near<double, kSlope, false>(wide_sums, z, poles.w, v, poles.near, poles.near_count, size);
        round(sums, wide_sums, size);
    }

    // Whether no point is so near to a pole that the square of their difference is too small for T.
    bool is_plausible(int64_t size) const {
        int64_t doubtful = 0;
        for (int64_t i = 0; i < size; ++i)
            doubtful += !(__builtin_fabs(sums.re[i]) <= bound) + !(__builtin_fabs(sums.im[i]) <= bound);
        return doubtful == 0;
    }

    void write(int64_t at, int64_t count) {
        T* const y = static_cast<T*>(p.y.data);
        if (is_complex(p.y.element)) {
            for (int64_t i = 0; i < count; ++i) y[2 * (at + i)] = sums.re[i], y[2 * (at + i) + 1] = sums.im[i];
        } else {
            __builtin_memcpy(y + at, sums.re, sizeof(T) * count);
        }
    }

    // dz = -g conj(sums), over rows and sets.
    void add_slopes(int64_t l, int64_t at, int64_t count) {
        const T* const g = static_cast<const T*>(p.y.data);
        const bool both = is_complex(p.y.element);
        for (int64_t i = 0; i < count; ++i) {
            const double x = both ? g[2 * (at + i)] : g[at + i], y = both ? g[2 * (at + i) + 1] : T(0);
            dz.re[l + i] -= x * sums.re[i] + y * sums.im[i];
            dz.im[l + i] -= y * sums.re[i] - x * sums.im[i];
        }
    }
};

template <typename T>
int32_t run(const LongconvCauchy& p, int64_t* work_bytes) {
    if (!p.backward) return run_all<Values<T, false>>(p, work_bytes);
    int64_t bytes[2] = {};
    if (p.dz.data) {
        const int32_t status = run_all<Values<T, true>>(p, work_bytes ? bytes : nullptr);
        if (status) return status;
    }
    if (p.dv.data) {
        const int32_t status = cauchy_poles(p, work_bytes ? bytes + 1 : nullptr);
        if (status) return status;
    }
    if (work_bytes) *work_bytes = bytes[0] > bytes[1] ? bytes[0] : bytes[1];
    return LONGCONV_OK;
}

}  // namespace

int32_t cauchy(const LongconvCauchy& p, int64_t* work_bytes) {
    switch (p.element) {
        case LONGCONV_FLOAT32:
            return run<float>(p, work_bytes);
        case LONGCONV_FLOAT64:
            return run<double>(p, work_bytes);
    }
    return LONGCONV_BAD_ELEMENT;
}

}  // namespace LONGCONV_ISA
}  // namespace longconv
