// The kernel of the linear recurrences h_t = a_t h_{t-1} + b_t, in one pass over memory.
//
// A row is one recurrence. A warp has some rows side by side, and its other lanes the times: kSteps of them a lane, one
// after the other, then the lanes, then the warps of the block, then one tile after the other. What joins them are maps
// h -> product h + sum, which in float64 keep the errors of long memories at rounding. Where rows are few, blocks have
// chunks of times: one call tells the maps of the chunks, another scans those, a third writes the states. No block
// waits for another.
//
// A product may overflow where no state does: beside a tiny one, or before a coefficient of 0. Then the state goes on
// step by step. A product that underflows counts as 0.

#ifndef LONGCONV_CUDA_LINEAR_SCAN_H
#define LONGCONV_CUDA_LINEAR_SCAN_H

#include "strided.h"

namespace longconv {

// V: the numbers of the arithmetic.
template <typename V>
struct LinearScan {
    static constexpr int kMostWarps = 8, kSteps = sizeof(V) == 4 ? 8 : 4;
    using Call = LongconvCudaLinearScan;
    using Wide = std::conditional_t<Parts<V>::kCount == 2, ComplexOf<double>, double>;
    Call call;

    LONGCONV_BOTH int segments() const { return 32 / call.lanes; }
    LONGCONV_BOTH int64_t groups() const { return (call.sets * call.rows + call.lanes - 1) / call.lanes; }
    LONGCONV_BOTH int64_t chunks() const { return (call.length + call.chunk - 1) / call.chunk; }
    LONGCONV_BOTH int warps() const {
        const int64_t times = call.length < call.chunk ? call.length : call.chunk;
        const int64_t wished = (times + segments() * kSteps - 1) / (segments() * kSteps);
        return static_cast<int>(wished < kMostWarps ? wished : kMostWarps);
    }
    LONGCONV_BOTH int shared_bytes() const { return 2 * warps() * call.lanes * static_cast<int>(sizeof(Wide)); }

    LONGCONV_DEVICE void operator()(Block& block) const {
        for (int64_t job = block.index(); job < groups() * chunks(); job += block.count())
            run(block, job % groups(), job / groups());
    }

  private:
    // What a warp knows of its rows and of a tile.
    struct State {
        Registers<int64_t, 2> row;        // set and row, the set -1 beyond the last
        Registers<V, kSteps> a, b;        // of the times of a lane
        Registers<Wide, 1> product, sum;  // the map of the warp's times before those of the lane
        Registers<Wide, 1> h, whole;      // the state before the tile, and the product of all coefficients before it
    };

    LONGCONV_DEVICE Strided numbers(const LongconvNumbers& x, int64_t steps) const {
        return {x, call.sets, call.rows, steps};
    }
    LONGCONV_DEVICE int64_t time(int64_t t) const { return call.reverse ? call.length - 1 - t : t; }
    LONGCONV_DEVICE Shared<Wide> products(const Block& block) const { return {0, block.warps() * call.lanes}; }
    LONGCONV_DEVICE Shared<Wide> sums(const Block& block) const {
        const int count = block.warps() * call.lanes;
        return {count * static_cast<int>(sizeof(Wide)), count};
    }

    LONGCONV_DEVICE void run(Block& block, int64_t group, int64_t chunk) const {
        const int64_t begin = chunk * call.chunk;
        const int64_t end = begin + call.chunk < call.length ? begin + call.chunk : call.length;
        Kept<State> states(block);
        block.phase([&](int warp) { start(states(warp), group, chunk); });
        const int steps = segments() * kSteps;
        for (int64_t tile = begin; tile < end; tile += block.warps() * steps) {
            block.phase([&](int warp) { read(block, warp, states(warp), tile + warp * steps, end); });
            block.phase([&](int warp) { join(block, warp, states(warp), tile, end); });
        }
        if (call.products.data)
            block.phase([&](int warp) {
                if (warp == 0) write_map(states(0), chunk);
            });
    }

    LONGCONV_DEVICE void start(State& s, int64_t group, int64_t chunk) const {
        each_lane([&](int lane) {
            const int64_t row = group * call.lanes + lane % call.lanes;
            const bool inside = row < call.sets * call.rows;
            const int64_t set = inside ? row / call.rows : -1, of_set = inside ? row % call.rows : 0;
            s.row(lane, 0) = set;
            s.row(lane, 1) = of_set;
            s.h(lane, 0) = inside ? state_before(set, of_set, chunk) : Wide{};
            s.whole(lane, 0) = number<Wide>(1.0, 0.0);
        });
    }

    // The state before a chunk; if an overflow hides it, from the last one that is known.
    LONGCONV_DEVICE Wide state_before(int64_t set, int64_t row, int64_t chunk) const {
        const Strided initial = numbers(call.initial, 1), ends = numbers(call.ends, chunks());
        if (chunk > 0 && !ends) return Wide{};
        Wide state{};
        int64_t known = chunk;
        for (; known > 0; --known) {
            state = ends.template get<Wide>(ends.place(set, row, known - 1));
            if (is_finite(state)) break;
        }
        if (known == 0) state = initial ? initial.template get<Wide>(initial.place(set, row, 0)) : Wide{};
        for (; known < chunk && is_finite(state); ++known)
            state = walked(state, set, row, known * call.chunk, (known + 1) * call.chunk);
        return state;
    }

    // The state after the times [from, to), one after the other.
    LONGCONV_DEVICE Wide walked(Wide state, int64_t set, int64_t row, int64_t from, int64_t to) const {
        const Strided a = numbers(call.a, call.length), b = numbers(call.b, call.length);
        for (int64_t t = from; t < to; ++t)
            state = plus_product(b.template get<Wide>(b.place(set, row, time(t))),
                                 a.template get<Wide>(a.place(set, row, time(t))), state);
        return state;
    }

    // How many of the times of a lane are there, and the first of them.
    LONGCONV_DEVICE int64_t first(int lane, int64_t t) const { return t + lane / call.lanes * kSteps; }
    LONGCONV_DEVICE int64_t count(const State& s, int lane, int64_t t, int64_t end) const {
        const int64_t left = end - first(lane, t);
        return s.row(lane, 0) < 0 || left < 0 ? 0 : left < kSteps ? left : kSteps;
    }

    // The numbers of a warp, from the time t on; the map of all goes to shared memory.
    LONGCONV_DEVICE void read(const Block& block, int warp, State& s, int64_t t, int64_t end) const {
        const Strided a = numbers(call.a, call.length), b = numbers(call.b, call.length);
        const int sign = call.reverse ? -1 : 1;
        each_lane([&](int lane) {
            const int64_t some = count(s, lane, t, end), from = time(some ? first(lane, t) : 0);
            const int64_t set = some ? s.row(lane, 0) : 0, row = s.row(lane, 1);
            V of_a[kSteps], of_b[kSteps];
            a.read(a.place(set, row, from), sign * a.step(), some, of_a, number<V>(1, 0));
            b.read(b.place(set, row, from), sign * b.step(), some, of_b, V{});
            Wide product = number<Wide>(1.0, 0.0);
            V sum{};
            LONGCONV_UNROLL
            for (int j = 0; j < kSteps; ++j) {
                s.a(lane, j) = of_a[j];
                s.b(lane, j) = of_b[j];
                product = product * converted<Wide>(of_a[j]);
                sum = plus_product(of_b[j], of_a[j], sum);
            }
            s.product(lane, 0) = product;
            s.sum(lane, 0) = converted<Wide>(sum);
        });
        for (int distance = call.lanes; distance < 32; distance *= 2) {
            const auto product = lanes_before(s.product, distance), sum = lanes_before(s.sum, distance);
            each_lane([&](int lane) {
                if (lane < distance) return;
                s.sum(lane, 0) = plus_product(s.sum(lane, 0), s.product(lane, 0), sum(lane, 0));
                s.product(lane, 0) = product(lane, 0) * s.product(lane, 0);
            });
        }
        const Shared<Wide> all_products = products(block), all_sums = sums(block);
        each_lane([&](int lane) {
            if (lane < 32 - call.lanes) return;
            const int place = warp * call.lanes + lane % call.lanes;
            all_products.set(place, s.product(lane, 0));
            all_sums.set(place, s.sum(lane, 0));
        });
        s.product = lanes_before(s.product, call.lanes);
        s.sum = lanes_before(s.sum, call.lanes);
        each_lane([&](int lane) {
            if (lane >= call.lanes) return;
            s.product(lane, 0) = number<Wide>(1.0, 0.0);
            s.sum(lane, 0) = Wide{};
        });
    }

    // The states of a warp's times, and the state after the tile.
    LONGCONV_DEVICE void join(const Block& block, int warp, State& s, int64_t tile, int64_t end) const {
        const int64_t steps = segments() * kSteps, t = tile + warp * steps;
        const Strided h = numbers(call.h, call.length);
        const Shared<Wide> all_products = products(block), all_sums = sums(block);
        each_lane([&](int lane) {
            const int64_t set = s.row(lane, 0), row = s.row(lane, 1);
            Wide state = s.h(lane, 0), before = state, whole = s.whole(lane, 0);
            for (int w = 0; w < block.warps(); ++w) {
                if (w == warp) before = state;
                const int place = w * call.lanes + lane % call.lanes;
                const int64_t from = tile + w * steps, to = from + steps < end ? from + steps : end;
                const Wide product = all_products.get(place);
                state = is_finite(product) ? plus_product(all_sums.get(place), product, state)
                                           : walked(state, set, row, from, to);
                whole = whole * product;
            }
            s.h(lane, 0) = state;
            s.whole(lane, 0) = whole;
            const int64_t some = count(s, lane, t, end);
            if (!h || some == 0) return;
            const Wide own = is_finite(s.product(lane, 0)) ? plus_product(s.sum(lane, 0), s.product(lane, 0), before)
                                                           : walked(before, set, row, t, first(lane, t));
            V x = converted<V>(own), states[kSteps];
            LONGCONV_UNROLL
            for (int j = 0; j < kSteps; ++j) states[j] = x = plus_product(s.b(lane, j), s.a(lane, j), x);
            const int64_t place = h.place(set, row, time(first(lane, t)));
            h.write(place, (call.reverse ? -1 : 1) * h.step(), some, states);
        });
    }

    LONGCONV_DEVICE void write_map(const State& s, int64_t chunk) const {
        const Strided to_products = numbers(call.products, chunks()), to_sums = numbers(call.sums, chunks());
        each_lane([&](int lane) {
            if (lane >= call.lanes || s.row(lane, 0) < 0) return;
            const int64_t set = s.row(lane, 0), row = s.row(lane, 1);
            to_products.set(to_products.place(set, row, chunk), s.whole(lane, 0));
            to_sums.set(to_sums.place(set, row, chunk), s.h(lane, 0));
        });
    }
};

}  // namespace longconv

#endif
