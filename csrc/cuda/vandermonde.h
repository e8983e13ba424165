// The kernels of y[l] = sum_n v[n] x[n]^l and of its gradients, with powers in registers alone.
//
// A lane begins a run of times with an exponential in double precision, from which x^4 leads on in double precision
// too; the three powers between are products with x, x^2 and x^3 in single precision. So no power has more than a
// rounding or two of error, however long the sequence is.

#ifndef LONGCONV_CUDA_VANDERMONDE_H
#define LONGCONV_CUDA_VANDERMONDE_H

#include "jobs.h"

namespace longconv {

constexpr int kPowers = 5;  // of a node: its logarithm and the node to the powers of 1 .. 4
constexpr int kStride = 4;

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
        four_ = powers[kStride];
    }
    LONGCONV_DEVICE Complex step(int j) const { return steps_[j - 1]; }  // j = 1, 2 or 3
    LONGCONV_DEVICE void advance() { power = power * four_; }

    ComplexOf<double> power;

  private:
    Complex steps_[kStride - 1];
    ComplexOf<double> four_;
};

// V: the numbers of y. A lane has kRun times of a row.
template <typename V>
struct Vandermonde {
    static constexpr int kRun = Parts<V>::kCount == 2 ? 16 : 32;
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
        V y[kRun] = {};
        for (int64_t n = 0; n < call.modes; ++n) {
            Powers x(table, set, n, l);
            x.power = x.power * v.template get<ComplexOf<double>>(v.place(set, row, n));
            LONGCONV_UNROLL
            for (int s = 0; s < kRun; s += kStride) {
                const Complex first = converted<Complex>(x.power);
                y[s] = y[s] + converted<V>(first);
                LONGCONV_UNROLL
                for (int j = 1; j < kStride; ++j) y[s + j] = plus_product(y[s + j], first, x.step(j));
                x.advance();
            }
        }
        const Strided to(call.y, call.sets, call.rows, call.length);
        const int64_t left = call.length - l;
        to.write(to.place(set, row, l), to.step(), left < kRun ? left : kRun, y);
        uint32_t beyond = 0;
        LONGCONV_UNROLL
        for (int s = 0; s < kRun; ++s) beyond |= static_cast<uint32_t>(s < left && !is_finite(y[s])) << s;
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
    static constexpr int kRun = 32;
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

    // Those of a run: g[l] conj(x^l), and (l + shift) g[l + shift] conj(x^l).
    LONGCONV_DEVICE void add(ComplexOf<double>& first, ComplexOf<double>& second, int64_t set, int64_t row,
                             int64_t mode, int64_t begin) const {
        Powers x(Strided(call.powers, call.sets, call.modes, kPowers), set, mode, begin);
        const int64_t end = begin + kRun < call.length ? begin + kRun : call.length;
        for (int64_t l = begin; l < end; l += kStride) {
            V g[kStride], later[kStride];
            read(set, row, l, g);
            read(set, row, l + call.shift, later);
            Complex sum = converted<Complex>(g[0]), weighted = scaled(later[0], l + call.shift);
            LONGCONV_UNROLL
            for (int j = 1; j < kStride; ++j) {
                const Complex power = conjugate(x.step(j));
                sum = plus_product(sum, converted<Complex>(g[j]), power);
                weighted = plus_product(weighted, scaled(later[j], l + j + call.shift), power);
            }
            // In double precision, for the power may be beyond single precision where no cotangent meets it.
            first = plus_product(first, converted<ComplexOf<double>>(sum), conjugate(x.power));
            second = plus_product(second, converted<ComplexOf<double>>(weighted), conjugate(x.power));
            x.advance();
        }
    }

    static LONGCONV_DEVICE Complex scaled(V g, int64_t weight) {
        const auto factor = static_cast<float>(weight);
        return {factor * real_part(g), factor * imaginary_part(g)};
    }

    LONGCONV_DEVICE void read(int64_t set, int64_t row, int64_t l, V (&g)[kStride]) const {
        const Strided y(call.y, call.sets, call.rows, call.length);
        const int64_t left = call.length - l, count = left < 0 ? 0 : left < kStride ? left : kStride;
        y.read(y.place(set, row, count ? l : 0), y.step(), count, g, V{});
    }

    LONGCONV_DEVICE void write(const LongconvNumbers& sums, int64_t part, int64_t index, int64_t mode,
                               ComplexOf<double> value) const {
        const Strided to(sums, parts(), call.sets * call.rows, call.modes);
        to.set(to.place(part, index, mode), value);
    }
};

}  // namespace longconv

#endif
