// y[l] = sum_n v[n] x[n]^l by blocks: with l = q T + r it is the product of the rows v x^(qT) with the columns x^r, for
// real numbers, as small matrices in registers. All powers are formed in double precision and rounded once; sums over n
// are cut after kChunk products, so that the error doesn't grow with their number.
//
// The rows of some blocks are formed at a time, from the modes that are not negligible there: beside the largest one
// of slower decay, which they never overtake, or beside the least number that there is.

#include "vandermonde.h"

namespace longconv {
namespace LONGCONV_ISA {
namespace {

constexpr int kChunk = 64;            // products
constexpr int kRows = 16, kTile = 4;  // rows that are formed, and multiplied, at a time
constexpr int64_t kSegment = 65536;   // numbers of a unit of work

#if defined(__aarch64__)
constexpr int kColumns = 4;  // vectors of a tile: there are 32 registers
#else
constexpr int kColumns = kVectorBytes == 64 ? 4 : 2;
#endif

// a[0], b[0], a[1], b[1], ...
template <typename T, int W, int... I>
LONGCONV_INLINE void weave(Vector<T, W>& low, Vector<T, W>& high, const Vector<T, W> a, const Vector<T, W> b,
                           Indices<I...>) {
    low = __builtin_shufflevector(a, b, (I / 2 + I % 2 * W)...);
    high = __builtin_shufflevector(a, b, (W / 2 + I / 2 + I % 2 * W)...);
}

// kTile rows (kChunk apart) of `count` numbers times a panel of the table, to be added to what is there or not. With
// kPairs even rows are real parts and odd ones imaginary parts of the same number.
template <typename T, bool kPairs>
void multiply(const T* rows, const T* panel, int64_t count, T* out, int64_t pitch, bool add) {
    constexpr int W = kVectorBytes / sizeof(T);
    using V = Vector<T, W>;
    V sums[kTile][kColumns] = {};
    for (int64_t k = 0; k < count; ++k, panel += kColumns * W) {
        V columns[kColumns];
        unroll<kColumns>(
            [&](auto j) __attribute__((always_inline)) { __builtin_memcpy(&columns[j], panel + j * W, sizeof(V)); });
        unroll<kTile>([&](auto i) __attribute__((always_inline)) {
            const T factor = rows[i * kChunk + k];
            unroll<kColumns>([&](auto j) __attribute__((always_inline)) { sums[i][j] += factor * columns[j]; });
        });
    }
    if constexpr (kPairs) {
        unroll<kTile / 2>([&](auto i) __attribute__((always_inline)) {
            unroll<kColumns>([&](auto j) __attribute__((always_inline)) {
                V pairs[2];
                weave<T, W>(pairs[0], pairs[1], sums[2 * i][j], sums[2 * i + 1][j], typename MakeIndices<W>::type{});
                unroll<2>([&](auto h) __attribute__((always_inline)) {
                    T* const to = out + i * pitch + (2 * j + h) * W;
                    V before{};
                    if (add) __builtin_memcpy(&before, to, sizeof(before));
                    pairs[h] += before;
                    __builtin_memcpy(to, &pairs[h], sizeof(V));
                });
            });
        });
    } else {
        unroll<kTile>([&](auto i) __attribute__((always_inline)) {
            unroll<kColumns>([&](auto j) __attribute__((always_inline)) {
                T* const to = out + i * pitch + j * W;
                V before{};
                if (add) __builtin_memcpy(&before, to, sizeof(before));
                sums[i][j] += before;
                __builtin_memcpy(to, &sums[i][j], sizeof(V));
            });
        });
    }
}

template <typename T>
struct Sum {
    static constexpr int W = Nodes<T>::W, kPanel = kColumns * W;
    static constexpr double kNegligible = sizeof(T) == 4 ? 0x1p-34 : 0x1p-64;
    static constexpr double kLeast = sizeof(T) == 4 ? 0x1p-126 : 0x1p-1022;

    const LongconvVandermonde& p;
    Nodes<T> nodes;
    int parts = is_complex(p.x.element) ? 2 : 1;    // of a power: all are real where the nodes are
    int outputs = is_complex(p.y.element) ? 2 : 1;  // rows of a block
    int64_t panels = nodes.period / kPanel, blocks = kRows / outputs;
    int64_t chunks = (parts * nodes.padded + kChunk - 1) / kChunk;
    int64_t loaded = -1;  // set
    Modes state;          // v x^l at the first block of what is done next
    T *table, *rows;      // [chunk][panel][product][column], [chunk][row][product]

    static int64_t period(int64_t length) { return length <= 2048 ? 64 : length <= 16384 ? 128 : 256; }

    Sum(const LongconvVandermonde& p, Memory& memory)
        : p(p),
          nodes(p, period(p.length), memory),
          state{memory.take<double>(2 * nodes.padded)},
          table(memory.take<T>(chunks * kChunk * nodes.period)),
          rows(memory.take<T>(chunks * kChunk * kRows)) {}

    int64_t segments() const { return (p.length + kSegment - 1) / kSegment; }
    int64_t units() const { return p.sets * segments(); }

    void run(int64_t unit) {
        const int64_t set = unit / segments(), segment = unit % segments();
        if (set != loaded) {
            nodes.load(set);
            for (int64_t g = 0; g < nodes.groups; ++g) fill_table(g);
            loaded = set;
        }
        for (int64_t row = 0; row < p.rows; ++row) sum(set, row, segment);
    }

    // The powers below T of the modes of a group.
    void fill_table(int64_t group) {
        Wide squares[8] = {nodes.nodes.load(group)};
        int bits = 0;
        for (; 1 << bits <= kDoubles; ++bits) squares[bits + 1] = times(squares[bits], squares[bits]);
        for (int i = 0; i < kDoubles; ++i) {
            Wide first = lane_powers(squares, i);
            const Wide half = {Doubles{} + squares[bits - 1].re[i], Doubles{} + squares[bits - 1].im[i]};
            const Wide step = {Doubles{} + squares[bits].re[i], Doubles{} + squares[bits].im[i]};
            Wide second = times(first, half);
            const int64_t product = parts * kDoubles * group + i;
            T* to = table + (product / kChunk * panels * kChunk + product % kChunk) * kPanel;
            for (int64_t panel = 0; panel < panels; ++panel, to += kChunk * kPanel)
                for (int column = 0; column < kPanel; column += 2 * kDoubles) {
                    store_rounded(to + column, first.re);
                    store_rounded(to + column + kDoubles, second.re);
                    if (parts == 2) {
                        store_rounded(to + kDoubles * kPanel + column, first.im);
                        store_rounded(to + kDoubles * kPanel + column + kDoubles, second.im);
                    }
                    first = times(first, step), second = times(second, step);
                }
        }
    }

    void sum(int64_t set, int64_t row, int64_t segment) {
        const int64_t begin = segment * kSegment, end = least(p.length, begin + kSegment);
        for (int64_t n = 0; n < nodes.padded; ++n) {
            double re = 0, im = 0;
            if (n < p.modes) get(p.v, set * p.v.set + row * p.v.row + nodes.order[n] * p.v.step, re, im);
            state.re(n) = re, state.im(n) = im;
        }
        if (begin > 0)
            for (int64_t g = 0; g < nodes.groups; ++g)
                state.store(g, times(state.load(g), power(nodes.steps.load(g), begin / nodes.period)));
        T* const y = static_cast<T*>(p.y.data) + outputs * (set * p.y.set + row * p.y.row);
        int64_t active = nodes.groups;
        for (int64_t l = begin; l < end; l += blocks * nodes.period) {
            active = still_active(active);
            for (int64_t g = 0; g < active; ++g) fill_rows(g);
            if (active > 0)
                products(active, y + outputs * l, end - l);
            else
                __builtin_memset(y + outputs * l, 0, sizeof(T) * outputs * least(end - l, blocks * nodes.period));
        }
    }

    // How many groups are not negligible.
    int64_t still_active(int64_t active) const {
        double largest = 0;
        int64_t count = 0;
        for (int64_t g = 0; g < active; ++g) {
            double size = 0, growth = 0;
            for (int64_t n = g * kDoubles; n < (g + 1) * kDoubles; ++n) {
                const double of_n = __builtin_fabs(state.re(n)) + __builtin_fabs(state.im(n));
                const double re = nodes.steps.re(n), im = nodes.steps.im(n), step = re * re + im * im;
                if (of_n > size || of_n != of_n) size = of_n;
                if (step > growth) growth = step;
            }
            const bool vanished = size == 0 || (size < kLeast && growth <= 1);
            if (!vanished && !(nodes.sorted() && size <= kNegligible * largest)) count = g + 1;
            if (size > largest) largest = size;
        }
        return count;
    }

    // The rows of a group, and its state after them.
    void fill_rows(int64_t group) {
        Wide x = state.load(group);
        const Wide step = nodes.steps.load(group);
        const int64_t product = parts * kDoubles * group;
        T* to = rows + product / kChunk * kRows * kChunk + product % kChunk;
        for (int64_t block = 0; block < blocks; ++block) {
            store_rounded(to, x.re);
            if (parts == 2) store_rounded(to + kDoubles, -x.im);
            to += kChunk;
            if (outputs == 2) {
                store_rounded(to, x.im);
                if (parts == 2) store_rounded(to + kDoubles, x.re);
                to += kChunk;
            }
            x = times(x, step);
        }
        state.store(group, x);
    }

    void products(int64_t active, T* y, int64_t room) const {
        const int64_t all = parts * kDoubles * active, span = nodes.period * kTile / outputs;
        for (int64_t first = 0; first < all; first += kChunk) {
            const int64_t count = least(kChunk, all - first);
            for (int64_t panel = 0; panel < panels; ++panel) {
                const T* const columns = table + (first * panels + panel * kChunk) * kPanel;
                for (int64_t tile = 0; tile < kRows / kTile; ++tile) {
                    const int64_t start = tile * span + panel * kPanel;
                    if (start >= room) break;
                    const T* const some = rows + first * kRows + tile * kTile * kChunk;
                    if (start + span - nodes.period + kPanel <= room)
                        multiply_tile(some, columns, count, y + outputs * start, outputs * nodes.period, first > 0);
                    else
                        multiply_edge(some, columns, count, y + outputs * start, room - start, first > 0);
                }
            }
        }
    }

    void multiply_tile(const T* some, const T* columns, int64_t count, T* y, int64_t pitch, bool add) const {
        if (outputs == 2)
            multiply<T, true>(some, columns, count, y, pitch, add);
        else
            multiply<T, false>(some, columns, count, y, pitch, add);
    }

    // A tile of which only the numbers below `room` are there.
    void multiply_edge(const T* some, const T* columns, int64_t count, T* y, int64_t room, bool add) const {
        T whole[kTile * kPanel];
        multiply_tile(some, columns, count, whole, outputs * kPanel, false);
        for (int64_t block = 0; block < kTile / outputs; ++block)
            for (int64_t i = 0; i < outputs * least(kPanel, room - block * nodes.period); ++i) {
                T& to = y[outputs * block * nodes.period + i];
                to = whole[outputs * block * kPanel + i] + (add ? to : T(0));
            }
    }
};

}  // namespace

int32_t vandermonde_backward(const LongconvVandermonde& p, int64_t* work_bytes);

int32_t vandermonde(const LongconvVandermonde& p, int64_t* work_bytes) {
    if (p.backward) return vandermonde_backward(p, work_bytes);
    switch (p.element) {
        case LONGCONV_FLOAT32:
            return run_all<Sum<float>>(p, work_bytes);
        case LONGCONV_FLOAT64:
            return run_all<Sum<double>>(p, work_bytes);
    }
    return LONGCONV_BAD_ELEMENT;
}

}  // namespace LONGCONV_ISA
}  // namespace longconv
