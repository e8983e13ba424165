// The gradients of csrc/cpu/vandermonde.cpp. For real cotangents g, with l = q T + r and s_n the slopes of the powers
// x^r (r x^(r - 1), or r x^r where the nodes are given by their logarithms),
//
//     M[q] = sum_r g[q, r] x^r,    S[q] = sum_r g[q, r] s[r]
//     conj(dv) = sum_q x^(qT) M[q],    conj(dx) = v (sum_q x^(qT) S[q] + T / x sum_q q x^(qT) M[q])
//
// without the 1 / x for logarithms. M and S are products of small matrices in registers; what follows is done in double
// precision. Complex cotangents are two real ones. Modes that have become negligible beside their own past are left
// out.

#include "vandermonde.h"

namespace longconv {
namespace LONGCONV_ISA {
namespace {

constexpr int kBlocks = 16;  // that are done at a time
constexpr int kChain = 64;   // products that are summed in the precision of the cotangents

#if defined(__aarch64__)
constexpr int kTile = 4;  // blocks in registers: there are 32
#else
constexpr int kTile = kVectorBytes == 64 ? 4 : 2;
#endif

// sums[i][j] += sum_r g[i, r] table[r][j] over `count` samples for kTile blocks i and 4 vectors j.
template <typename T>
void contract(T* sums, const T* g, int64_t pitch, const T* table, int64_t count) {
    constexpr int W = kVectorBytes / sizeof(T);
    using V = Vector<T, W>;
    V totals[kTile][4] = {};
    for (int64_t r = 0; r < count; ++r, table += 4 * W) {
        V powers[4];
        unroll<4>([&](auto j)
                      __attribute__((always_inline)) { __builtin_memcpy(&powers[j], table + j * W, sizeof(V)); });
        unroll<kTile>([&](auto i) __attribute__((always_inline)) {
            const T factor = g[i * pitch + r];
            unroll<4>([&](auto j) __attribute__((always_inline)) { totals[i][j] += factor * powers[j]; });
        });
    }
    unroll<kTile>([&](auto i) __attribute__((always_inline)) {
        unroll<4>([&](auto j) __attribute__((always_inline)) {
            V before;
            __builtin_memcpy(&before, sums + (4 * i + j) * W, sizeof(V));
            totals[i][j] += before;
            __builtin_memcpy(sums + (4 * i + j) * W, &totals[i][j], sizeof(V));
        });
    });
}

template <typename T>
struct Gradient {
    static constexpr int W = Nodes<T>::W, kGroups = W / kDoubles;  // groups of a vector of modes
    static constexpr double kNegligible = sizeof(T) == 4 ? 0x1p-40 : 0x1p-72;

    const LongconvVandermonde& p;
    Nodes<T> nodes;
    int planes = is_complex(p.y.element) ? 2 : 1;
    int64_t vectors = nodes.padded / W;
    int64_t loaded = -1;           // set
    Modes state;                   // x^(qT) at the first block of what is done next
    Modes once, weighted, sloped;  // sum_q x^(qT) M[q], sum_q q x^(qT) M[q], sum_q x^(qT) S[q]
    Modes first, slope, total;     // conj(dv) and conj(dx) / v of the real cotangents; dx
    double* largest;               // of x^(qT) g until here
    T *table, *cotangents, *sums;  // [vector][r][re, im of power and slope][mode], [block][r], [block][4][mode]

    static int64_t period(int64_t length) { return length <= 8192 ? 64 : 128; }

    Gradient(const LongconvVandermonde& p, Memory& memory)
        : p(p),
          nodes(p, period(p.length), memory),
          state(modes(memory)),
          once(modes(memory)),
          weighted(modes(memory)),
          sloped(modes(memory)),
          first(modes(memory)),
          slope(modes(memory)),
          total(modes(memory)),
          largest(memory.take<double>(nodes.padded)),
          table(memory.take<T>(4 * nodes.padded * nodes.period)),
          cotangents(memory.take<T>(kBlocks * nodes.period)),
          sums(memory.take<T>(kBlocks * 4 * W)) {}

    Modes modes(Memory& memory) const { return {memory.take<double>(2 * nodes.padded)}; }

    int64_t units() const { return p.sets; }

    void run(int64_t set) {
        nodes.load(set);
        for (int64_t vector = 0; vector < vectors; ++vector) fill_table(vector);
        for (int64_t n = 0; n < 2 * nodes.padded; ++n) total.data[n] = 0;
        for (int64_t row = 0; row < p.rows; ++row) {
            const T* const g = static_cast<const T*>(p.y.data) + planes * (set * p.y.set + row * p.y.row);
            for (int plane = 0; plane < planes; ++plane) {
                contract_all(g + plane);
                gather(plane);
            }
            finish_row(set, row);
        }
        for (int64_t n = 0; n < p.modes; ++n)
            put(p.dx, set * p.dx.set + nodes.order[n] * p.dx.step, total.re(n), total.im(n));
    }

    // The powers below T of a vector of modes, and their slopes.
    void fill_table(int64_t vector) {
        for (int half = 0; half < kGroups; ++half) {
            const Wide x = nodes.nodes.load(kGroups * vector + half);
            Wide power = {Doubles{} + 1.0, Doubles{}}, before = {};
            T* to = table + vector * nodes.period * 4 * W + half * kDoubles;
            // Those that no cotangent meets may overflow: they are 0.
            const int64_t met = least(p.length, nodes.period);
            for (int64_t r = met; r < nodes.period; ++r)
                for (int j = 0; j < 4; ++j) store_rounded(to + (4 * r + j) * W, Doubles{});
            for (int64_t r = 0; r < met; ++r, to += 4 * W) {
                const double times_r = static_cast<double>(r);
                const Wide& base = p.logarithms ? power : before;
                store_rounded(to, power.re);
                store_rounded(to + W, power.im);
                store_rounded(to + 2 * W, base.re * times_r);
                store_rounded(to + 3 * W, base.im * times_r);
                before = power;
                power = times(power, x);
            }
        }
    }

    // The three sums over q for a plane of cotangents.
    void contract_all(const T* g) {
        for (int64_t n = 0; n < 2 * nodes.padded; ++n) once.data[n] = weighted.data[n] = sloped.data[n] = 0;
        for (int64_t n = 0; n < nodes.padded; ++n) largest[n] = 0;
        for (int64_t n = 0; n < nodes.padded; ++n) state.re(n) = 1, state.im(n) = 0;
        const int64_t span = kBlocks * nodes.period;
        for (int64_t l = 0; l < p.length; l += span) {
            const int64_t count = least(p.length - l, span), blocks = (count + nodes.period - 1) / nodes.period;
            const double size = copy_cotangents(g + planes * l, count);
            const int64_t active = still_active(size, l / nodes.period);
            for (int64_t vector = 0; vector < active; ++vector) {
                __builtin_memset(sums, 0, sizeof(T) * kBlocks * 4 * W);
                const T* const powers = table + vector * nodes.period * 4 * W;
                for (int64_t r = 0; r < nodes.period; r += kChain)
                    for (int64_t block = 0; block < blocks; block += kTile)
                        contract(sums + block * 4 * W, cotangents + block * nodes.period + r, nodes.period,
                                 powers + r * 4 * W, kChain);
                for (int half = 0; half < kGroups; ++half)
                    add_blocks(kGroups * vector + half, half, l / nodes.period, blocks);
            }
            for (int64_t g = active * kGroups; g < nodes.groups; ++g)
                state.store(g, times(state.load(g), power(nodes.steps.load(g), kBlocks)));
        }
    }

    // Into rows, with zeros beyond; their largest size, NaN if there is one.
    double copy_cotangents(const T* g, int64_t count) {
        using V = Vector<T, W>;
        const int64_t span = kBlocks * nodes.period;
        if (planes == 1)
            __builtin_memcpy(cotangents, g, sizeof(T) * count);
        else
            for (int64_t i = 0; i < count; ++i) cotangents[i] = g[2 * i];
        for (int64_t i = count; i < span; ++i) cotangents[i] = 0;
        V sizes{};
        for (int64_t i = 0; i < span; i += W) {
            V values;
            __builtin_memcpy(&values, cotangents + i, sizeof(V));
            values = values < 0 ? -values : values;
            sizes = sizes >= values ? sizes : values;
        }
        double size = 0;
        for (int i = 0; i < W; ++i) size = size >= sizes[i] || size != size ? size : sizes[i];
        return size;
    }

    // How many vectors of modes are not negligible beside what they have been: l-th powers of nodes within the unit
    // circle fall, and a slope weighs the l-th by l.
    int64_t still_active(double size, int64_t q) {
        int64_t count = 0;
        for (int64_t n = 0; n < nodes.padded; ++n) {
            const double here = size * (__builtin_fabs(state.re(n)) + __builtin_fabs(state.im(n)));
            const double re = nodes.steps.re(n), im = nodes.steps.im(n), step = re * re + im * im;
            const bool negligible = step <= 1 && here * static_cast<double>(q + kBlocks) <= kNegligible * largest[n];
            if (!negligible) count = n / W + 1;
            if (here > largest[n]) largest[n] = here;
        }
        return count;
    }

    void add_blocks(int64_t group, int half, int64_t q, int64_t blocks) {
        Wide x = state.load(group), a = once.load(group), b = weighted.load(group), c = sloped.load(group);
        const Wide step = nodes.steps.load(group);
        const T* from = sums + half * kDoubles;
        for (int64_t block = 0; block < blocks; ++block, from += 4 * W) {
            const double weight = static_cast<double>(q + block);
            const Wide m = times(x, Wide{load_wide(from), load_wide(from + W)});
            const Wide s = times(x, Wide{load_wide(from + 2 * W), load_wide(from + 3 * W)});
            a = a + m, c = c + s;
            b = {b.re + weight * m.re, b.im + weight * m.im};
            x = times(x, step);
        }
        state.store(group, x), once.store(group, a), weighted.store(group, b), sloped.store(group, c);
    }

    // The sums of a plane, conjugated, times 1 or i, to those of the row.
    void gather(int plane) {
        for (int64_t n = 0; n < p.modes; ++n) {
            double re = static_cast<double>(nodes.period), im = 0;  // T / x
            if (!p.logarithms) {
                const double x = nodes.nodes.re(n), y = nodes.nodes.im(n), square = x * x + y * y;
                // Of smaller nodes x^T is 0.
                const double inverse = square < 1e-60 ? 0 : re / square;
                re = x * inverse, im = -y * inverse;
            }
            const double u = weighted.re(n), v = weighted.im(n);
            const double sum_re = sloped.re(n) + re * u - im * v, sum_im = sloped.im(n) + re * v + im * u;
            if (plane == 0) {
                first.re(n) = once.re(n), first.im(n) = -once.im(n);
                slope.re(n) = sum_re, slope.im(n) = -sum_im;
            } else {
                first.re(n) += once.im(n), first.im(n) += once.re(n);
                slope.re(n) += sum_im, slope.im(n) += sum_re;
            }
        }
    }

    void finish_row(int64_t set, int64_t row) {
        for (int64_t n = 0; n < p.modes; ++n) {
            double re, im;
            get(p.v, set * p.v.set + row * p.v.row + nodes.order[n] * p.v.step, re, im);
            total.re(n) += re * slope.re(n) + im * slope.im(n);
            total.im(n) += re * slope.im(n) - im * slope.re(n);
            put(p.dv, set * p.dv.set + row * p.dv.row + nodes.order[n] * p.dv.step, first.re(n), first.im(n));
        }
    }
};

}  // namespace

int32_t vandermonde_backward(const LongconvVandermonde& p, int64_t* work_bytes) {
    switch (p.element) {
        case LONGCONV_FLOAT32:
            return run_all<Gradient<float>>(p, work_bytes);
        case LONGCONV_FLOAT64:
            return run_all<Gradient<double>>(p, work_bytes);
    }
    return LONGCONV_BAD_ELEMENT;
}

}  // namespace LONGCONV_ISA
}  // namespace longconv
