// The outer stage of sequences that no block holds: the transform over m1 of m = columns m1 + m2, see
// LongconvCudaColumns, on the way into memory and on the way out of it. A block takes a tile of all rows and some
// columns, in which this is the first and the last product of a transform within a block.

#ifndef LONGCONV_CUDA_FFT_OUTER_H
#define LONGCONV_CUDA_FFT_OUTER_H

#include "fft_filter.h"
#include "fft_spectrum.h"

namespace longconv {

// Where the numbers of sequences lie: rows x columns complex ones each.
struct OuterShape {
    static constexpr int kTile = 64, kPeak = 1024;  // columns of a tile that is written, numbers of a peak
    int64_t rows, columns;

    LONGCONV_BOTH int64_t points() const { return rows * columns; }
    LONGCONV_BOTH int64_t tiles() const { return columns / kTile; }
    LONGCONV_BOTH int64_t place(int64_t sequence, int64_t row) const { return (sequence * rows + row) * columns; }

    // Twiddles of a row: at the first column of tiles, then at the columns of the first tile.
    LONGCONV_BOTH int64_t of_tile(int64_t row, int64_t tile) const { return row * tiles() + tile; }
    LONGCONV_BOTH int64_t of_column(int64_t row, int column) const { return rows * tiles() + row * kTile + column; }
    LONGCONV_BOTH int64_t twiddles() const { return rows * (tiles() + kTile); }
    // Tables: the twiddles, then the operands of the transform over rows, then those of the one over columns.
    static LONGCONV_BOTH const Complex* twiddles_of(const void* tables) { return static_cast<const Complex*>(tables); }
    LONGCONV_BOTH const void* operands_of(const void* tables) const { return twiddles_of(tables) + twiddles(); }

    LONGCONV_BOTH int64_t peaks() const { return points() / kPeak; }
    LONGCONV_BOTH int64_t peak_of_tile(int64_t sequence, int64_t stripe, int64_t tile) const {
        return sequence * peaks() + stripe * tiles() + tile;
    }
    LONGCONV_BOTH int64_t peak_of_row(int64_t sequence, int64_t row, int64_t part) const {
        return sequence * peaks() + row * (columns / kPeak) + part;
    }
};

// Two numbers of a row of complex ones in memory: floats or, in half precision, numbers that are to be multiplied by
// power_below(the peak).
class RowOfWork {
  public:
    LONGCONV_DEVICE RowOfWork(const void* work, int half, const OuterShape& shape, int64_t sequence, int64_t row)
        : data_(static_cast<char*>(const_cast<void*>(work)) + shape.place(sequence, row) * (half ? 4 : 8)),
          columns_(shape.columns),
          half_(half) {}

    LONGCONV_DEVICE Vector<Complex, 2> get(int64_t column) const {
        if (!half_) return wide().template vector<2>(column);
        const auto four = narrow().template vector<4>(2 * column);
        return {{{from_half(four.v[0]), from_half(four.v[1])}, {from_half(four.v[2]), from_half(four.v[3])}}};
    }
    LONGCONV_DEVICE void set(int64_t column, const Vector<Complex, 2>& pair) const {
        if (!half_) return wide().template set_vector<2>(column, pair);
        narrow().template set_vector<4>(
            2 * column, {to_half(pair.v[0].re), to_half(pair.v[0].im), to_half(pair.v[1].re), to_half(pair.v[1].im)});
    }

  private:
    LONGCONV_DEVICE Global<Complex> wide() const { return {reinterpret_cast<Complex*>(data_), columns_}; }
    LONGCONV_DEVICE Global<uint16_t> narrow() const { return {reinterpret_cast<uint16_t*>(data_), 2 * columns_}; }
    char* data_;
    int64_t columns_;
    int half_;
};

// The greatest magnitude in a stripe's tiles.
template <int R>
LONGCONV_DEVICE float greatest_part(const Tile (&re)[R][2], const Tile (&im)[R][2]) {
    Registers<float, 1> most;
    clear(most);
    LONGCONV_UNROLL
    for (int a = 0; a < R; ++a) enlarge(most, re[a], im[a]);
    return greatest(most);
}

// exp(-2 pi i m2 ((f1 - 1/4) / rows + 1/4) / columns), which makes of row f1 a polynomial modulo X^columns - i.
struct FillTwiddleTables {
    static constexpr int kMostWarps = kMostWarpsOfBlock;
    OuterShape shape;
    void* twiddles;

    LONGCONV_DEVICE void operator()(Block& block) const {
        const Global<Complex> out(static_cast<Complex*>(twiddles), shape.twiddles());
        block.phase([&](int warp) {
            each_lane([&](int lane) {
                const int64_t step = block.count() * block.warps() * 32;
                for (int64_t i = (block.index() * block.warps() + warp) * 32 + lane; i < shape.twiddles(); i += step) {
                    const int64_t of_tiles = shape.of_column(0, 0), of_columns = i - of_tiles;
                    const int64_t row = i < of_tiles ? i / shape.tiles() : of_columns / OuterShape::kTile;
                    const int64_t column =
                        i < of_tiles ? i % shape.tiles() * OuterShape::kTile : of_columns % OuterShape::kTile;
                    out.set(i, root(column * (4 * row - 1 + shape.rows), 4 * shape.points()));
                }
            });
        });
    }
};

// Phase: what tells the scales of the group's numbers, peak(i, j) for j < count, comes into shared memory.
template <typename L, typename Peak>
LONGCONV_DEVICE void load_peaks(Block& block, const L& layout, const Shared<float>& to, int count, const Peak& peak) {
    block.phase([&](int warp) {
        each_lane([&](int lane) {
            for (int k = 32 * warp + lane; k < layout.group * count; k += 32 * block.warps())
                to.set(k, peak(k / count, k % count));
        });
    });
}

// Phase: the planes of the group's complex numbers, of which source(i, t, by, re, im) tells eight from t on times
// by = factor(i), come into shared memory.
template <typename L, typename Source, typename Factor>
LONGCONV_DEVICE void load_planes(Block& block, const L& layout, const Source& source, const Factor& factor) {
    const int pieces = layout.points() / 256;
    block.phase([&](int warp) {
        for (int i = 0; i < layout.group; ++i) {
            const float by = factor(i);
            for (int piece = warp; piece < pieces; piece += block.warps())
                each_lane([&](int lane) {
                    const int t = piece * 256 + lane * 8;
                    float re[8] = {}, im[8] = {};
                    source(i, t, by, re, im);
                    set_eight<L>(layout.result_alone(i, false), t, re, 1);
                    set_eight<L>(layout.result_alone(i, true), t, im, 1);
                });
        }
    });
}

template <typename L>
struct Columns {
    static constexpr int kMostWarps = kMostWarpsOfBlock;
    static_assert(L::kColumns == OuterShape::kTile, "a peak is of a stripe of a tile");
    using Call = LongconvCudaColumns;
    L layout;
    Call call;

    LONGCONV_BOTH int shared_bytes() const { return layout.load_bytes(); }
    LONGCONV_BOTH OuterShape shape() const { return {call.rows, call.columns}; }
    LONGCONV_BOTH int64_t rows() const { return call.batch * call.channels * shape().tiles(); }

    LONGCONV_DEVICE void operator()(Block& block) const {
        for (int64_t first = block.index() * layout.group; first < rows(); first += block.count() * layout.group) {
            pass(block, first, false);
            if (!call.alone) pass(block, first, true);
        }
    }

  private:
    LONGCONV_DEVICE void read(int64_t unit, int t, bool before, float (&v)[8]) const {
        const int64_t sequence = unit / shape().tiles(), channel = sequence / call.batch,
                      at = t / L::kColumns * call.columns + unit % shape().tiles() * L::kColumns + t % L::kColumns -
                           (before ? shape().points() : 0);
        read_lags(call, sequence % call.batch, channel, at, v);
        if (at == 0 && call.skip) v[0] += Global<const float>(call.skip, call.channels).get(channel);
    }

    LONGCONV_DEVICE void pass(Block& block, int64_t first, bool before) const {
        load_sequences(block, layout, [&](int i, int t, float (&v)[8]) {
            if (first + i < rows()) return read(first + i, t, before, v);
            LONGCONV_UNROLL
            for (int j = 0; j < 8; ++j) v[j] = 0;
        });
        block.phase([&](int warp) {
            for (int job = warp; job < layout.group * layout.stripes; job += block.warps())
                if (first + job / layout.stripes < rows()) transform(job, first + job / layout.stripes, before);
        });
    }

    LONGCONV_DEVICE void transform(int job, int64_t unit, bool before) const {
        const int i = job / layout.stripes, stripe = job % layout.stripes;
        const int64_t sequence = unit / shape().tiles(), tile = unit % shape().tiles();
        const Tables<L> tables(shape().operands_of(call.tables), layout);
        const Global<const Complex> twiddles(shape().twiddles_of(call.tables), shape().twiddles());
        float by = scale_of(layout, i);
        const int64_t most_filled = (call.taps + 16 * call.columns - 1) / (16 * call.columns);
        const int filled = before || most_filled > layout.stripes ? layout.stripes : static_cast<int>(most_filled);
        Stripe<L> x;
        x.template begin<false>(layout, tables, stripe, filled, layout.sequence(i), layout.sequence(i));
        if constexpr (L::Math::kNarrow) {
            const float peak = by * greatest_part(x.re, x.im);
            set_peak(peak, sequence, stripe, tile, before);
            if (call.half) by /= power_below(peak);
        }
        LONGCONV_UNROLL
        for (int a = 0; a < L::R; ++a) {
            each_pair<L>(stripe, a, [&](int place, int half, int lane, int j) {
                const int64_t row = place / L::kColumns, column = tile * L::kColumns + place % L::kColumns;
                const Complex of_tile = twiddles.get(shape().of_tile(row, tile));
                const auto of_column = twiddles.template vector<2>(shape().of_column(row, place % L::kColumns));
                const RowOfWork out(call.work, call.half, shape(), sequence, row);
                Vector<Complex, 2> pair = {};
                if (before) pair = out.get(column);
                LONGCONV_UNROLL
                for (int k = 0; k < 2; ++k) {
                    const Complex v = Complex{by * x.re[a][half](lane, j + k), by * x.im[a][half](lane, j + k)} *
                                      (of_tile * of_column.v[k]);
                    pair.v[k] = before ? pair.v[k] + Complex{v.im, -v.re} : v;
                }
                out.set(column, pair);
            });
            forget();
        }
    }

    // Adds to a peak, or begins it; the twiddles make numbers of at most 1.5 of it.
    LONGCONV_DEVICE void set_peak(float peak, int64_t sequence, int64_t stripe, int64_t tile, bool before) const {
        const Global<float> peaks(call.peaks, call.batch * call.channels * shape().peaks());
        const int64_t place = shape().peak_of_tile(sequence, stripe, tile);
        each_lane([&](int lane) {
            if (lane == 0) peaks.set(place, before ? peaks.get(place) + peak : peak);
        });
    }
};

// The bytes of shared memory of fft_columns_back: the planes of a tile, and the peaks of its rows.
template <typename L>
LONGCONV_BOTH int back_bytes(const L& layout) {
    return layout.result_bytes() + layout.peak_bytes(16);
}

template <typename L>
struct ColumnsBack {
    static constexpr int kMostWarps = kMostWarpsOfBlock;
    using Call = LongconvCudaColumnsBack;
    L layout;
    Call call;

    LONGCONV_BOTH int shared_bytes() const { return back_bytes(layout); }
    LONGCONV_BOTH OuterShape shape() const { return {call.rows, call.columns}; }
    LONGCONV_BOTH int64_t tiles() const { return call.columns / L::kColumns; }
    LONGCONV_BOTH int64_t rows() const { return call.batch * call.channels * tiles(); }

    LONGCONV_DEVICE void operator()(Block& block) const {
        for (int64_t first = block.index() * layout.group; first < rows(); first += block.count() * layout.group) {
            if constexpr (L::Math::kNarrow)
                load_peaks(block, layout, peaks(), layout.rows(),
                           [&](int i, int row) { return first + i < rows() ? peak(first + i, row) : 0; });
            load_planes(
                block, layout,
                [&](int i, int t, float by, float (&re)[8], float (&im)[8]) {
                    if (first + i < rows()) read(i, first + i, t, by, re, im);
                },
                [&](int i) { return 1 / scale(i); });
            block.phase([&](int warp) {
                for (int job = warp; job < layout.group * layout.stripes; job += block.warps())
                    if (first + job / layout.stripes < rows()) write(job, first + job / layout.stripes);
            });
        }
    }

  private:
    LONGCONV_DEVICE int64_t first_column(int64_t unit) const { return unit % tiles() * L::kColumns; }

    // The peaks of rows, row after row of the group's tiles.
    LONGCONV_DEVICE Shared<float> peaks() const { return {layout.result_bytes(), layout.group * layout.rows()}; }
    LONGCONV_DEVICE float scale(int i) const {
        if constexpr (!L::Math::kNarrow) return 1;
        return power_below(greatest_of(layout.rows(), [&](int row) { return peaks().get(i * layout.rows() + row); }));
    }
    LONGCONV_DEVICE float peak(int64_t unit, int64_t row) const {
        return Global<const float>(call.peaks, call.batch * call.channels * shape().peaks())
            .get(shape().peak_of_row(unit / tiles(), row, first_column(unit) / OuterShape::kPeak));
    }

    LONGCONV_DEVICE void read(int i, int64_t unit, int t, float by, float (&re)[8], float (&im)[8]) const {
        const int row = t / L::kColumns;
        const int64_t column = first_column(unit) + t % L::kColumns;
        const Global<const Complex> twiddles(shape().twiddles_of(call.tables), shape().twiddles());
        const RowOfWork from(call.work, call.half, shape(), unit / tiles(), row);
        if (call.half) by *= power_below(peaks().get(i * layout.rows() + row));
        const Complex of_tile = twiddles.get(shape().of_tile(row, column / OuterShape::kTile));
        LONGCONV_UNROLL
        for (int j = 0; j < 8; j += 2) {
            const auto pair = from.get(column + j), of_column = twiddles.template vector<2>(shape().of_column(
                                                        row, static_cast<int>(column % OuterShape::kTile) + j));
            LONGCONV_UNROLL
            for (int k = 0; k < 2; ++k) {
                const Complex w = conjugate(of_tile * of_column.v[k]), v = pair.v[k] * Complex{by * w.re, by * w.im};
                re[j + k] = call.imaginary ? -v.im : v.re;
                im[j + k] = call.imaginary ? v.re : v.im;
            }
        }
    }

    LONGCONV_DEVICE void write(int job, int64_t unit) const {
        const int i = job / layout.stripes, stripe = job % layout.stripes;
        const int64_t sequence = unit / tiles();
        const auto time = [&](int place) {
            return place / L::kColumns * call.columns + first_column(unit) + place % L::kColumns - call.first;
        };
        if (time(16 * stripe * L::kColumns) >= call.length || time((16 * stripe + 16) * L::kColumns) < 0) return;
        Tile c[L::R][2];
        finish(c, layout, Tables<L>(shape().operands_of(call.tables), layout), stripe, layout.result_alone(i, false),
               layout.result_alone(i, true));
        write_gated<L>(call, c, scale(i) / static_cast<float>(call.rows), stripe, sequence % call.batch,
                       sequence / call.batch, time);
    }
};

}  // namespace longconv

#endif
