// The kernel of the linear recurrences h_t = a_t h_{t-1} + b_t, in one pass over memory.
//
// A row is one recurrence. A warp has some rows side by side, and its other lanes the times: kSteps of them a lane, one
// after the other, then the lanes, then the warps of the block, then one tile after the other. What joins them are maps
// h -> product h + sum, which in float64 keep the errors of long memories at rounding. Where rows are few, blocks have
// chunks of times: one call tells the maps of the chunks, another scans those, a third writes the states. No block
// waits for another.

#ifndef LONGCONV_CUDA_LINEAR_SCAN_H
#define LONGCONV_CUDA_LINEAR_SCAN_H

#include "strided.h"

namespace longconv {

// product h + sum; a product that has overflowed counts for nothing beside a state of 0.
template <typename V>
LONGCONV_DEVICE V applied(V product, V h, V sum) {
    const bool zero = real_part(h) == 0 && imaginary_part(h) == 0;
    return zero ? sum : product * h + sum;
}

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
            block.phase([&](int warp) { join(block, warp, states(warp), tile + warp * steps, end); });
        }
        if (call.products.data)
            block.phase([&](int warp) {
                if (warp == 0) write_map(states(0), chunk);
            });
    }

    LONGCONV_DEVICE void start(State& s, int64_t group, int64_t chunk) const {
        const Strided initial = numbers(call.initial, 1), ends = numbers(call.ends, chunks());
        each_lane([&](int lane) {
            const int64_t row = group * call.lanes + lane % call.lanes;
            const bool inside = row < call.sets * call.rows;
            const int64_t set = inside ? row / call.rows : -1, of_set = inside ? row % call.rows : 0;
            s.row(lane, 0) = set;
            s.row(lane, 1) = of_set;
            s.h(lane, 0) = Wide{};
            s.whole(lane, 0) = number<Wide>(1.0, 0.0);
            if (!inside) return;
            if (chunk == 0 && initial) s.h(lane, 0) = initial.template get<Wide>(initial.place(set, of_set, 0));
            if (chunk > 0 && ends) s.h(lane, 0) = ends.template get<Wide>(ends.place(set, of_set, chunk - 1));
        });
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
                sum = of_a[j] * sum + of_b[j];
            }
            s.product(lane, 0) = product;
            s.sum(lane, 0) = converted<Wide>(sum);
        });
        for (int distance = call.lanes; distance < 32; distance *= 2) {
            const auto product = lanes_before(s.product, distance), sum = lanes_before(s.sum, distance);
            each_lane([&](int lane) {
                if (lane < distance) return;
                s.sum(lane, 0) = applied(s.product(lane, 0), sum(lane, 0), s.sum(lane, 0));
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
    LONGCONV_DEVICE void join(const Block& block, int warp, State& s, int64_t t, int64_t end) const {
        const Strided h = numbers(call.h, call.length);
        const Shared<Wide> all_products = products(block), all_sums = sums(block);
        each_lane([&](int lane) {
            Wide state = s.h(lane, 0), before = state, whole = s.whole(lane, 0);
            for (int w = 0; w < block.warps(); ++w) {
                if (w == warp) before = state;
                const int place = w * call.lanes + lane % call.lanes;
                const Wide product = all_products.get(place);
                state = applied(product, state, all_sums.get(place));
                whole = whole * product;
            }
            s.h(lane, 0) = state;
            s.whole(lane, 0) = whole;
            const int64_t some = count(s, lane, t, end);
            if (!h || some == 0) return;
            V x = converted<V>(applied(s.product(lane, 0), before, s.sum(lane, 0))), states[kSteps];
            LONGCONV_UNROLL
            for (int j = 0; j < kSteps; ++j) states[j] = x = s.a(lane, j) * x + s.b(lane, j);
            const int64_t place = h.place(s.row(lane, 0), s.row(lane, 1), time(first(lane, t)));
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
