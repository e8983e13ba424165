// y[m, l] = C[m] A^l B of a dense matrix A, and its gradients, in double precision. With l = q T + r, T a power of two,
//
//     y[m, q T + r] = Y[q, m] X[r],    X[r] = A^r B,    Y[q] = C P^q,    P = A^T
//
// Squarings give P; one column and one row after the other give X and Y, each for the cost of a row of a squaring. The
// gradients run the same way back: with dY = g X and dX = g^T Y,
//
//     p[q] = dY[q] + p[q+1] P^T,    dC = p[0],    dP = sum_q Y[q]^T p[q+1]
//     z[r] = dX[r] + A^T z[r+1],    dB = z[0],    dA = sum_r z[r+1] X[r]^T + what dP gives
//
// and a square P = S S passes dS = dP S^T + S^T dP on. The gradients of matrices are kept as their transposes E, for
// which that is S E + E S: every product then has a second factor whose rows are read as they lie.

#include "products.h"
#include "workers.h"

namespace longconv {
namespace LONGCONV_ISA {
namespace {

inline void copy(double* to, const double* from, int64_t count) {
    __builtin_memcpy(to, from, sizeof(double) * count);
}

struct DenseTaps {
    static constexpr int64_t kTile = 64;  // rows of taps at once

    const LongconvDenseTaps& p;
    int64_t N = p.states, M = p.rows;
    int64_t columns = (N + kDoubles - 1) / kDoubles * kDoubles;  // those beyond N are 0
    int64_t pitch = columns + (columns % 64 ? 0 : 8);  // rows a power of two apart would share a cache line's place
    int64_t doublings = best_doublings(p);
    int64_t T = int64_t{1} << doublings, Q = (p.length + T - 1) / T;
    int64_t whole = p.length / T, rest = p.length - whole * T;  // blocks of T taps, and what is left
    int64_t tap_columns = (T + kDoubles - 1) / kDoubles * kDoubles;
    Rows powers;      // A, A^2, A^4, .., A^T
    Rows turned;      // A^T, then P^T
    Rows X, Y;        // (T, N), (Q M, N)
    Rows across;      // X as (N, T)
    Rows taps;        // (kTile, T)
    Rows dX, dY;      // then z and p
    Rows E, E_other;  // (N, N)

    DenseTaps(const LongconvDenseTaps& p, Memory& memory)
        : p(p),
          powers(take(memory, (doublings + 1) * N, pitch)),
          turned(take(memory, N, pitch)),
          X(take(memory, T, pitch)),
          Y(take(memory, Q * M, pitch)),
          across(take(memory, p.backward ? 0 : N, tap_columns)),
          taps(take(memory, p.backward ? 0 : kTile, tap_columns)),
          dX(take(memory, p.backward ? T : 0, pitch)),
          dY(take(memory, p.backward ? Q * M : 0, pitch)),
          E(take(memory, p.backward ? N : 0, pitch)),
          E_other(take(memory, p.backward ? N : 0, pitch)) {}

    static Rows take(Memory& memory, int64_t rows, int64_t pitch) {
        const int64_t aligned = (pitch + 7) / 8 * 8;
        return {memory.take<double>(rows * aligned), aligned};
    }

    // A squaring costs as many products as N columns or rows, which take longer each.
    static int64_t best_doublings(const LongconvDenseTaps& p) {
        int64_t best = 0, cost = 0;
        for (int64_t s = 0; s == 0 || int64_t{1} << (s - 1) < p.length; ++s) {
            const int64_t size = int64_t{1} << s, blocks = (p.length + size - 1) / size;
            const int64_t found = s * p.states + 2 * (size + p.rows * blocks);
            if (s == 0 || found < cost) best = s, cost = found;
        }
        return best;
    }

    int64_t units() const { return p.sets; }

    Rows power(int64_t doubling) const { return powers.from(doubling * N); }

    void run(int64_t set) {
        expand(set);
        if (p.backward)
            pull_back(set);
        else
            join(set);
    }

    // Powers, columns X and rows Y.
    void expand(int64_t set) {
        load(powers, p.A + set * N * N, N);
        for (int64_t i = 0; i < doublings; ++i) multiply(power(i + 1), N, columns, N, power(i).factor(), power(i));
        load(X, p.B + set * N, 1);
        if (T > 1) transpose(turned, powers, N, N);
        for (int64_t r = 1; r < T; ++r) multiply(X.from(r), 1, columns, N, X.from(r - 1).factor(), turned);
        load(Y, p.C + set * M * N, M);
        const Rows step = power(doublings);
        for (int64_t q = 1; q < Q; ++q) multiply(Y.from(q * M), M, columns, N, Y.from((q - 1) * M).factor(), step);
    }

    void load(const Rows& to, const double* from, int64_t rows) const {
        for (int64_t i = 0; i < rows; ++i) {
            copy(to.row(i), from + i * N, N);
            for (int64_t n = N; n < columns; ++n) to.row(i)[n] = 0;
        }
    }

    // The transpose of (rows, count) numbers, with zeros up to whole vectors.
    static void transpose(const Rows& to, const Rows& from, int64_t rows, int64_t count) {
        const int64_t padded = (rows + kDoubles - 1) / kDoubles * kDoubles;
        for (int64_t i = 0; i < padded; i += 8)
            for (int64_t n = 0; n < count; ++n)
                for (int64_t k = i; k < i + 8 && k < padded; ++k) to.row(n)[k] = k < rows ? from.row(k)[n] : 0;
    }

    // y = Y X.
    void join(int64_t set) {
        transpose(across, X, T, N);
        for (int64_t first = 0; first < Q * M; first += kTile) {
            const int64_t rows = least(Q * M - first, kTile);
            multiply(taps, rows, tap_columns, N, Y.from(first).factor(), across);
            for (int64_t i = 0; i < rows; ++i) {
                const int64_t q = (first + i) / M, m = (first + i) % M;
                copy(p.y + (set * M + m) * p.length + q * T, taps.row(i), q < whole ? T : rest);
            }
        }
    }

    void pull_back(int64_t set) {
        for (int64_t m = 0; m < M; ++m) join_adjoints(p.y + (set * M + m) * p.length, m);
        if (Q > 1) transpose(turned, power(doublings), N, N);
        for (int64_t q = Q - 2; q >= 0; --q)
            multiply(dY.from(q * M), M, columns, N, dY.from((q + 1) * M).factor(), turned, true);
        for (int64_t m = 0; m < M; ++m) copy(p.dC + (set * M + m) * N, dY.row(m), N);
        for (int64_t r = T - 2; r >= 0; --r) multiply(dX.from(r), 1, columns, N, dX.from(r + 1).factor(), powers, true);
        copy(p.dB + set * N, dX.row(0), N);

        multiply(E, N, columns, (Q - 1) * M, dY.from(M).transposed(), Y);
        for (int64_t i = doublings - 1; i >= 0; --i) {
            multiply(E_other, N, columns, N, power(i).factor(), E);
            multiply(E_other, N, columns, N, E.factor(), power(i), true);
            const Rows other = E;
            E = E_other, E_other = other;
        }
        multiply(E, N, columns, T - 1, X.transposed(), dX.from(1), true);
        for (int64_t i = 0; i < N; ++i)
            for (int64_t j = 0; j < N; ++j) p.dA[(set * N + i) * N + j] = E.row(j)[i];
    }

    // dY = g X of one of the M, and its part of dX = g^T Y.
    void join_adjoints(const double* g, int64_t m) {
        const Rows to{dY.row(m), M * dY.pitch}, of{Y.row(m), M * Y.pitch};
        multiply(to, whole, columns, T, {g, T, 1}, X);
        multiply(dX, T, columns, whole, {g, 1, T}, of, m > 0);
        if (rest) {
            multiply(to.from(whole), 1, columns, rest, {g + whole * T, T, 1}, X);
            multiply(dX, rest, columns, 1, {g + whole * T, 1, T}, of.from(whole), true);
        }
    }
};

}  // namespace

int32_t dense_taps(const LongconvDenseTaps& p, int64_t* work_bytes) {
    return run_all<DenseTaps>(p, work_bytes);
}

}  // namespace LONGCONV_ISA
}  // namespace longconv
