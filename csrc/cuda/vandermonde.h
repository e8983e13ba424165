// The kernels of y[l] = sum_n v[n] x[n]^l and of its gradients, with powers in registers alone.
//
// A lane begins a run of times with an exponential in double precision, from which x^32, or x^8, leads on in double
// precision too; the powers between are products with x^8, x^16 or x^24, and with x, x^2, ... or x^7 in single
// precision. So no power has more than four roundings of error, however long the sequence is. Runs are long enough
// that the exponential is a small part of the work.

#ifndef LONGCONV_CUDA_VANDERMONDE_H
#define LONGCONV_CUDA_VANDERMONDE_H

#include "jobs.h"

namespace longconv {

constexpr int kStride = 8, kStrides = 4, kLeap = kStride * kStrides;
// Of a node: its logarithm and the node to the powers of 1, 2, .. kStride, 2 kStride, .. kLeap.
constexpr int kPowers = kStride + kStrides;

// A node to the powers of l, l + 1, ...
class Powers {
  public:
    LONGCONV_DEVICE Powers(const Strided& table, int64_t set, int64_t mode, int64_t l) {
        ComplexOf<double> powers[kPowers];
        table.read(table.place(set, mode, 0), table.step(), kPowers, powers, ComplexOf<double>{});
        const double size = exponential(powers[0].re * static_cast<double>(l));
        double sine, cosine;
        sine_cosine_of(powers[0].im * static_cast<double>(l), &sine, &cosine);
        power = {size * cosine, size * sine};
        LONGCONV_UNROLL
        for (int j = 1; j < kStride; ++j) steps_[j - 1] = converted<Complex>(powers[j]);
        LONGCONV_UNROLL
        for (int j = 1; j < kStrides; ++j) strides_[j - 1] = converted<Complex>(powers[kStride + j - 1]);
        stride_ = powers[kStride];
        leap_ = powers[kPowers - 1];
    }
    LONGCONV_DEVICE Complex step(int j) const { return steps_[j - 1]; }      // 1 <= j < kStride
    LONGCONV_DEVICE Complex stride(int j) const { return strides_[j - 1]; }  // 1 <= j < kStrides
    LONGCONV_DEVICE void stride() { power = power * stride_; }
    LONGCONV_DEVICE void leap() { power = power * leap_; }

    ComplexOf<double> power;

  private:
    Complex steps_[kStride - 1];
    Complex strides_[kStrides - 1];
    ComplexOf<double> stride_, leap_;
};

// V: the numbers of y. A lane has kRun times of a row.
template <typename V>
struct Vandermonde {
    static constexpr int kRun = Parts<V>::kCount == 2 ? 32 : 64;
    using Call = LongconvCudaVandermonde;
    Call call;

    LONGCONV_BOTH int64_t tiles() const {
        const int64_t times = 32 / call.lanes * kRun;
        return (call.length + times - 1) / times;
    }
    LONGCONV_BOTH int64_t jobs() const { return (call.sets * call.rows + call.lanes - 1) / call.lanes * tiles(); }

    LONGCONV_DEVICE void run(int64_t job) const {
        each_lane([&](int lane) { sum(lane, job); });
    }

  private:
    LONGCONV_DEVICE void sum(int lane, int64_t job) const {
        const int64_t index = job / tiles() * call.lanes + lane % call.lanes;
        const int64_t l = (job % tiles() * (32 / call.lanes) + lane / call.lanes) * kRun;
        if (index >= call.sets * call.rows || l >= call.length) return;
        const int64_t set = index / call.rows, row = index % call.rows;
        const Strided v(call.v, call.sets, call.rows, call.modes), table(call.powers, call.sets, call.modes, kPowers);
        const int64_t left = call.length - l;
        V y[kRun] = {};
        for (int64_t n = 0; n < call.modes; ++n) {
            Powers x(table, set, n, l);
            x.power = x.power * v.template get<ComplexOf<double>>(v.place(set, row, n));
            LONGCONV_UNROLL
            for (int s = 0; s < kRun; s += kLeap) {
                const Complex first = converted<Complex>(x.power);
                LONGCONV_UNROLL
                for (int b = 0; b < kStrides; ++b) {
                    const int from = s + b * kStride;
                    if (from >= left) continue;
                    const Complex power = b ? first * x.stride(b) : first;
                    y[from] = y[from] + converted<V>(power);
                    LONGCONV_UNROLL
                    for (int j = 1; j < kStride; ++j) y[from + j] = plus_product(y[from + j], power, x.step(j));
                }
                x.leap();
            }
        }
        const Strided to(call.y, call.sets, call.rows, call.length);
        to.write(to.place(set, row, l), to.step(), left < kRun ? left : kRun, y);
        uint64_t beyond = 0;
        LONGCONV_UNROLL
        for (int s = 0; s < kRun; ++s) beyond |= static_cast<uint64_t>(s < left && !is_finite(y[s])) << s;
        for (int s = 0; beyond; ++s, beyond >>= 1)
            if (beyond & 1) to.set(to.place(set, row, l + s), wide_sum(v, table, set, row, l + s));
    }

    // In double precision, for terms beyond the range of single precision may be inf - inf there.
    LONGCONV_DEVICE V wide_sum(const Strided& v, const Strided& table, int64_t set, int64_t row, int64_t l) const {
        ComplexOf<double> sum{};
        for (int64_t n = 0; n < call.modes; ++n)
            sum = plus_product(sum, v.template get<ComplexOf<double>>(v.place(set, row, n)),
                               Powers(table, set, n, l).power);
        return converted<V>(sum);
    }
};

// The sums over times of the gradients, in parts. A lane has a mode, and every parts-th run of its times.
template <typename V>
struct VandermondeSums {
    static constexpr int kRun = 128;
    using Call = LongconvCudaVandermonde;
    Call call;

    LONGCONV_BOTH int64_t groups() const { return (call.modes + call.lanes - 1) / call.lanes; }
    LONGCONV_BOTH int64_t parts() const { return call.splits * (32 / call.lanes); }
    LONGCONV_BOTH int64_t jobs() const { return call.sets * call.rows * groups() * call.splits; }

    LONGCONV_DEVICE void run(int64_t job) const {
        each_lane([&](int lane) { sum(lane, job); });
    }

  private:
    LONGCONV_DEVICE void sum(int lane, int64_t job) const {
        const int64_t part = job % call.splits * (32 / call.lanes) + lane / call.lanes;
        const int64_t mode = job / call.splits % groups() * call.lanes + lane % call.lanes;
        const int64_t index = job / call.splits / groups(), set = index / call.rows, row = index % call.rows;
        if (mode >= call.modes) return;
        ComplexOf<double> first{}, second{};
        for (int64_t l = part * kRun; l < call.length; l += parts() * kRun) add(first, second, set, row, mode, l);
        write(call.first, part, index, mode, first);
        write(call.second, part, index, mode, second);
    }

    // Those of a run: g[l] conj(x^l), and (l + shift) g[l + shift] conj(x^l), shift <= 1.
    LONGCONV_DEVICE void add(ComplexOf<double>& first, ComplexOf<double>& second, int64_t set, int64_t row,
                             int64_t mode, int64_t begin) const {
        const Strided table(call.powers, call.sets, call.modes, kPowers);
        const Powers x(table, set, mode, begin);
        const int64_t end = begin + kRun < call.length ? begin + kRun : call.length;
        if (is_finite(x.step(kStride - 1))) return add_run(first, second, set, row, x, begin, end);
        add_wide(first, second, set, row, table, mode, begin, end);
    }

    // In double precision, for steps beyond single precision; powers beyond that too are left out where no cotangent
    // meets them.
    LONGCONV_DEVICE void add_wide(ComplexOf<double>& first, ComplexOf<double>& second, int64_t set, int64_t row,
                                  const Strided& table, int64_t mode, int64_t begin, int64_t end) const {
        const Strided y(call.y, call.sets, call.rows, call.length);
        for (int64_t l = begin; l < end; ++l) {
            const auto x = conjugate(Powers(table, set, mode, l).power);
            const int64_t next = l + call.shift;
            const auto g = y.template get<ComplexOf<double>>(y.place(set, row, l));
            const auto later =
                next < call.length ? y.template get<ComplexOf<double>>(y.place(set, row, next)) : ComplexOf<double>{};
            const auto weight = static_cast<double>(next);
            if (g.re != 0 || g.im != 0) first = plus_product(first, g, x);
            if (later.re != 0 || later.im != 0)
                second = plus_product(second, ComplexOf<double>{weight * later.re, weight * later.im}, x);
        }
    }

    LONGCONV_DEVICE void add_run(ComplexOf<double>& first, ComplexOf<double>& second, int64_t set, int64_t row,
                                 Powers x, int64_t begin, int64_t end) const {
        V g[kStride + 1];
        read(set, row, begin, g);
        for (int64_t l = begin; l < end; l += kStride) {
            V next[kStride];
            const bool last = !call.shift && l + kStride >= end;  // what follows the run is not wanted
            read(set, row, last ? call.length : l + kStride, next);
            g[kStride] = next[0];
            const auto weight = static_cast<float>(l + call.shift);
            Complex sum{}, weighted{};
            LONGCONV_UNROLL
            for (int j = 0; j < kStride; ++j) {
                const V later = scaled(call.shift ? g[j + 1] : g[j], weight + static_cast<float>(j));
                if (j == 0) {
                    sum = converted<Complex>(g[j]);
                    weighted = converted<Complex>(later);
                } else {
                    sum = plus_product(sum, g[j], conjugate(x.step(j)));
                    weighted = plus_product(weighted, later, conjugate(x.step(j)));
                }
            }
            // In double precision, for the power may be beyond single precision where no cotangent meets it.
            first = plus_product(first, converted<ComplexOf<double>>(sum), conjugate(x.power));
            second = plus_product(second, converted<ComplexOf<double>>(weighted), conjugate(x.power));
            x.stride();
            LONGCONV_UNROLL
            for (int j = 0; j < kStride; ++j) g[j] = next[j];
        }
    }

    static LONGCONV_DEVICE V scaled(V g, float factor) {
        return number<V>(factor * real_part(g), factor * imaginary_part(g));
    }

    // The cotangents from a time on, zeros behind the end, in the first of g.
    template <int N>
    LONGCONV_DEVICE void read(int64_t set, int64_t row, int64_t l, V (&g)[N]) const {
        const Strided y(call.y, call.sets, call.rows, call.length);
        const int64_t left = call.length - l, count = left < 0 ? 0 : left < kStride ? left : kStride;
        V some[kStride];
        y.read(y.place(set, row, count ? l : 0), y.step(), count, some, V{});
        LONGCONV_UNROLL
        for (int j = 0; j < kStride; ++j) g[j] = some[j];
    }

    LONGCONV_DEVICE void write(const LongconvNumbers& sums, int64_t part, int64_t index, int64_t mode,
                               ComplexOf<double> value) const {
        const Strided to(sums, parts(), call.sets * call.rows, call.modes);
        to.set(to.place(part, index, mode), value);
    }
};

}  // namespace longconv

#endif
