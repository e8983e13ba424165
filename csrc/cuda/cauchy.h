// The kernels of y[l] = sum_n v[n] / (z[l] - w[n]) and of its gradients, with resolvents q = 1 / (z - w) in registers
// alone: those of a lane's points, or of its pole, serve kRows rows of residues. What all lanes read, poles and
// residues or points and cotangents, comes kBatch numbers at a time, in vectors where they lie side by side.
//
// The difference is formed in the precision D of the points and poles, then rounded to S, that of the sums.

#ifndef LONGCONV_CUDA_CAUCHY_H
#define LONGCONV_CUDA_CAUCHY_H

#include "jobs.h"

namespace longconv {

constexpr int kRows = 4, kBatch = 4;

template <typename S, typename D>
LONGCONV_DEVICE ComplexOf<S> resolvent(ComplexOf<D> z, ComplexOf<D> w) {
    const S a = static_cast<S>(z.re - w.re), b = static_cast<S>(z.im - w.im), r = 1 / (a * a + b * b);
    return {r * a, -(r * b)};
}

// What the kernels share: the arguments, and how many rows are there from one on.
template <typename D>
struct CauchyArguments {
    LongconvCudaCauchy call;

    LONGCONV_BOTH int64_t row_groups() const { return (call.rows + kRows - 1) / kRows; }
    LONGCONV_DEVICE int rows_from(int64_t row) const {
        return static_cast<int>(call.rows - row < kRows ? call.rows - row : kRows);
    }
    LONGCONV_DEVICE Strided v() const { return {call.v, call.sets, call.rows, call.modes}; }
    LONGCONV_DEVICE Strided y() const { return {call.y, call.sets, call.rows, call.length}; }
    // The points, or the poles, from one on.
    template <int N>
    LONGCONV_DEVICE void points(ComplexOf<D> (&z)[N], int count, int64_t set, int64_t l) const {
        const Strided from(call.z, call.sets, 1, call.length);
        from.read(from.place(set, 0, l), from.step(), count, z, ComplexOf<D>{});
    }
    template <int N>
    LONGCONV_DEVICE void poles(ComplexOf<D> (&w)[N], int count, int64_t set, int64_t n) const {
        const Strided from(call.w, call.sets, 1, call.modes);
        from.read(from.place(set, 0, n), from.step(), count, w, ComplexOf<D>{});
    }
};

// The values at points, or the gradients to these. A lane has kRun points.
template <typename D, typename S>
struct CauchyPoints {
    static constexpr int kRun = 2;
    using V = ComplexOf<S>;
    CauchyArguments<D> from;

    // The gradient to a point is a sum over all rows.
    LONGCONV_BOTH int64_t groups() const { return from.call.dz.data ? 1 : from.row_groups(); }
    LONGCONV_BOTH int64_t tiles() const { return (from.call.length + 32 * kRun - 1) / (32 * kRun); }
    LONGCONV_BOTH int64_t jobs() const { return from.call.sets * groups() * tiles(); }

    LONGCONV_DEVICE void run(int64_t job) const {
        each_lane([&](int lane) { of_lane(lane, job); });
    }

  private:
    LONGCONV_DEVICE void of_lane(int lane, int64_t job) const {
        const int64_t l = (job % tiles() * 32 + lane) * kRun, set = job / tiles() / groups();
        const int64_t left = from.call.length - l;
        if (left <= 0) return;
        const int count = left < kRun ? static_cast<int>(left) : kRun;
        ComplexOf<D> z[kRun];
        from.points(z, count, set, l);
        if (from.call.dz.data)
            differentiate(z, count, set, l);
        else
            evaluate(z, count, set, job / tiles() % groups() * kRows, l);
    }

    // The sums over n of v q, or of v q^2, for the rows from one on.
    LONGCONV_DEVICE void sum(V (&sums)[kRows][kRun], const ComplexOf<D> (&z)[kRun], int64_t set, int64_t row,
                             bool squared) const {
        const Strided v = from.v();
        const int rows = from.rows_from(row);
        LONGCONV_UNROLL
        for (int m = 0; m < kRows; ++m) LONGCONV_UNROLL
        for (int s = 0; s < kRun; ++s) sums[m][s] = V{};
        for (int64_t n = 0; n < from.call.modes; n += kBatch) {
            const int64_t left = from.call.modes - n;
            const int count = left < kBatch ? static_cast<int>(left) : kBatch;
            ComplexOf<D> w[kBatch];
            from.poles(w, count, set, n);
            V q[kBatch][kRun];
            LONGCONV_UNROLL
            for (int j = 0; j < kBatch; ++j) LONGCONV_UNROLL
            for (int s = 0; s < kRun; ++s) {
                q[j][s] = j < count ? resolvent<S>(z[s], w[j]) : V{};
                if (squared) q[j][s] = q[j][s] * q[j][s];
            }
            LONGCONV_UNROLL
            for (int m = 0; m < kRows; ++m) {
                if (m >= rows) continue;
                V residues[kBatch];
                v.read(v.place(set, row + m, n), v.step(), count, residues, V{});
                LONGCONV_UNROLL
                for (int j = 0; j < kBatch; ++j) LONGCONV_UNROLL
                for (int s = 0; s < kRun; ++s) sums[m][s] = plus_product(sums[m][s], residues[j], q[j][s]);
            }
        }
    }

    LONGCONV_DEVICE void evaluate(const ComplexOf<D> (&z)[kRun], int count, int64_t set, int64_t row, int64_t l) const {
        const Strided y = from.y();
        const int rows = from.rows_from(row);
        const bool real = from.call.y.element == LONGCONV_FLOAT32 || from.call.y.element == LONGCONV_FLOAT64;
        V sums[kRows][kRun];
        sum(sums, z, set, row, false);
        LONGCONV_UNROLL
        for (int m = 0; m < kRows; ++m) {
            if (m >= rows) continue;
            const int64_t place = y.place(set, row + m, l);
            if (real) {
                const S parts[kRun] = {sums[m][0].re, sums[m][1].re};
                y.write(place, y.step(), count, parts);
            } else {
                y.write(place, y.step(), count, sums[m]);
            }
        }
    }

    // -sum_m g[m, l] conj(sum_n v[m, n] q[n, l]^2)
    LONGCONV_DEVICE void differentiate(const ComplexOf<D> (&z)[kRun], int count, int64_t set, int64_t l) const {
        const Strided g = from.y(), to(from.call.dz, from.call.sets, 1, from.call.length);
        ComplexOf<double> dz[kRun] = {};
        for (int64_t row = 0; row < from.call.rows; row += kRows) {
            const int rows = from.rows_from(row);
            V sums[kRows][kRun];
            sum(sums, z, set, row, true);
            LONGCONV_UNROLL
            for (int m = 0; m < kRows; ++m) {
                if (m >= rows) continue;
                V cotangents[kRun];
                g.read(g.place(set, row + m, l), g.step(), count, cotangents, V{});
                LONGCONV_UNROLL
                for (int s = 0; s < kRun; ++s)
                    dz[s] = dz[s] - converted<ComplexOf<double>>(cotangents[s] * conjugate(sums[m][s]));
            }
        }
        to.write(to.place(set, 0, l), to.step(), count, dz);
    }
};

// The sums over points that the gradients to residues and poles are made of, in parts. A lane has a pole, and every
// parts-th run of the points.
template <typename D, typename S>
struct CauchyPoles {
    static constexpr int kRun = 32;
    using V = ComplexOf<S>;
    using Wide = ComplexOf<double>;
    CauchyArguments<D> from;

    LONGCONV_BOTH int64_t groups() const { return (from.call.modes + from.call.lanes - 1) / from.call.lanes; }
    LONGCONV_BOTH int64_t parts() const { return from.call.splits * (32 / from.call.lanes); }
    LONGCONV_BOTH int64_t jobs() const { return from.call.sets * from.row_groups() * groups() * from.call.splits; }

    LONGCONV_DEVICE void run(int64_t job) const {
        each_lane([&](int lane) { of_lane(lane, job); });
    }

  private:
    LONGCONV_DEVICE void of_lane(int lane, int64_t job) const {
        const int lanes = from.call.lanes;
        const int64_t part = job % from.call.splits * (32 / lanes) + lane / lanes;
        const int64_t mode = job / from.call.splits % groups() * lanes + lane % lanes;
        const int64_t others = job / from.call.splits / groups();
        const int64_t set = others / from.row_groups(), row = others % from.row_groups() * kRows;
        if (mode >= from.call.modes) return;
        ComplexOf<D> w[1];
        from.poles(w, 1, set, mode);
        Wide first[kRows] = {}, second[kRows] = {};
        for (int64_t l = part * kRun; l < from.call.length; l += parts() * kRun) add(first, second, w[0], set, row, l);
        const int rows = from.rows_from(row);
        LONGCONV_UNROLL
        for (int m = 0; m < kRows; ++m) {
            if (m >= rows) continue;
            write(from.call.first, part, set * from.call.rows + row + m, mode, first[m]);
            write(from.call.second, part, set * from.call.rows + row + m, mode, second[m]);
        }
    }

    // Those of a run: g conj(q) and g conj(q)^2.
    LONGCONV_DEVICE void add(Wide (&first)[kRows], Wide (&second)[kRows], ComplexOf<D> w, int64_t set, int64_t row,
                             int64_t begin) const {
        const Strided g = from.y();
        const int rows = from.rows_from(row);
        const int64_t end = begin + kRun < from.call.length ? begin + kRun : from.call.length;
        V sums[kRows] = {}, squares[kRows] = {};
        for (int64_t l = begin; l < end; l += kBatch) {
            const int count = end - l < kBatch ? static_cast<int>(end - l) : kBatch;
            ComplexOf<D> z[kBatch];
            from.points(z, count, set, l);
            V q[kBatch], squared[kBatch];
            LONGCONV_UNROLL
            for (int j = 0; j < kBatch; ++j) {
                q[j] = j < count ? conjugate(resolvent<S>(z[j], w)) : V{};
                squared[j] = q[j] * q[j];
            }
            LONGCONV_UNROLL
            for (int m = 0; m < kRows; ++m) {
                if (m >= rows) continue;
                V cotangents[kBatch];
                g.read(g.place(set, row + m, l), g.step(), count, cotangents, V{});
                LONGCONV_UNROLL
                for (int j = 0; j < kBatch; ++j) {
                    sums[m] = plus_product(sums[m], cotangents[j], q[j]);
                    squares[m] = plus_product(squares[m], cotangents[j], squared[j]);
                }
            }
        }
        LONGCONV_UNROLL
        for (int m = 0; m < kRows; ++m) {
            first[m] = first[m] + converted<Wide>(sums[m]);
            second[m] = second[m] + converted<Wide>(squares[m]);
        }
    }

    LONGCONV_DEVICE void write(const LongconvNumbers& sums, int64_t part, int64_t index, int64_t mode,
                               Wide value) const {
        const Strided to(sums, parts(), from.call.sets * from.call.rows, from.call.modes);
        to.set(to.place(part, index, mode), value);
    }
};

}  // namespace longconv

#endif
