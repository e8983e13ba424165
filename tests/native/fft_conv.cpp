// The convolution and its gradients against their sums, in every mode.

#include <string.h>

#include <memory>

#include "testing.h"

namespace testing {
namespace {

struct Case {
    int64_t batch, channels, length, taps, reverse_taps;
    bool per_sample, circular, skip, pre_gate, post_gate, lengths, direct;
    int wanted;  // bits: du, dk, dk_reverse, dskip, dpre_gate, dpost_gate

    std::string text() const {
        std::string s = "fft_conv of " + std::to_string(batch) + " x " + std::to_string(channels) + " x " +
                        std::to_string(length) + ", taps " + std::to_string(taps) + " and " +
                        std::to_string(reverse_taps);
        const bool set[] = {per_sample, circular, skip, pre_gate, post_gate, lengths, direct};
        const char* names[] = {", per sample", ", circular", ", skip",  ", pre_gate",
                               ", post_gate",  ", lengths",  ", direct"};
        for (int i = 0; i < 7; ++i)
            if (set[i]) s += names[i];
        return s + ", gradients " + std::to_string(wanted);
    }
};

// The call with as much memory as it takes.
void call_with_memory(LongconvFftConv& call, const std::string& what) {
    int64_t bytes = 0;
    expect_ok(longconv_cpu_fft_conv(&call, &bytes), what);
    Buffer<char> work(bytes);
    call.work = work.data();
    expect_ok(longconv_cpu_fft_conv(&call, nullptr), what);
}

// Rows of a tensor (samples, channels, count), at strides of its own; or none.
template <typename T>
struct Rows {
    int64_t samples, channels, count, channel, batch;
    std::unique_ptr<Buffer<T>> memory;

    Rows(bool there, int64_t samples, int64_t channels, int64_t count)
        : samples(samples), channels(channels), count(count) {
        channel = count + random_int(0, 3), batch = channels * channel + random_int(0, 3);
        if (!there) return;
        const int64_t numbers = samples > 0 ? (samples - 1) * batch + (channels - 1) * channel + count : 0;
        memory.reset(new Buffer<T>(numbers, random_int(0, 1)));
    }
    Rows random() && {
        if (memory) memory->randomize();
        return std::move(*this);
    }
    LongconvRows view() { return memory ? LongconvRows{memory->data(), batch, channel} : LongconvRows{}; }
    T& at(int64_t b, int64_t h, int64_t n) { return (*memory)[b * batch + h * channel + n]; }
    double value(int64_t b, int64_t h, int64_t n, double absent) { return memory ? double(at(b, h, n)) : absent; }
};

// Sequences of S, filters of K; the arithmetic in T.
template <typename S, typename T, typename K>
struct Test {
    Case c;
    int64_t owners = c.per_sample ? c.batch : 1;
    std::vector<int64_t> lengths;
    Rows<S> u{Rows<S>(true, c.batch, c.channels, c.length).random()};
    Rows<K> k{Rows<K>(true, owners, c.channels, c.taps).random()};
    Rows<K> k_reverse{Rows<K>(c.reverse_taps > 0, owners, c.channels, c.reverse_taps).random()};
    Rows<T> skip{Rows<T>(c.skip, 1, c.channels, 1).random()};
    Rows<S> pre_gate{Rows<S>(c.pre_gate, c.batch, c.channels, c.length).random()};
    Rows<S> post_gate{Rows<S>(c.post_gate, c.batch, c.channels, c.length).random()};
    Rows<S> dy{Rows<S>(true, c.batch, c.channels, c.length).random()};
    Rows<S> y{true, c.batch, c.channels, c.length};
    Rows<S> du{(c.wanted & 1) != 0, c.batch, c.channels, c.length};
    Rows<T> dk{(c.wanted & 2) != 0, owners, c.channels, c.taps};
    Rows<T> dk_reverse{(c.wanted & 4) != 0 && c.reverse_taps > 0, owners, c.channels, c.reverse_taps};
    Rows<T> dskip{(c.wanted & 8) != 0 && c.skip, owners, c.channels, 1};
    Rows<S> dpre_gate{(c.wanted & 16) != 0 && c.pre_gate, c.batch, c.channels, c.length};
    Rows<S> dpost_gate{(c.wanted & 32) != 0 && c.post_gate, c.batch, c.channels, c.length};
    std::vector<double> w_y, w_du, w_dk, w_reverse, w_skip, w_pre, w_post;  // what they should be, contiguous

    explicit Test(const Case& given) : c(given) {
        for (int64_t b = 0; b < c.batch; ++b) lengths.push_back(c.lengths ? random_int(0, c.length) : c.length);
        for (int64_t b = 0; c.circular && c.lengths && b < c.batch; ++b)
            for (int64_t h = 0; h < c.channels; ++h)
                for (int64_t n = lengths[b]; n < c.taps; ++n) k.at(b, h, n) = K(0.0);
        const size_t rows = c.batch * c.channels * c.length, filters = owners * c.channels;
        for (auto* of : {&w_y, &w_du, &w_pre, &w_post}) of->assign(rows, 0.0);
        w_dk.assign(filters * c.taps, 0.0), w_reverse.assign(filters * c.reverse_taps, 0.0);
        w_skip.assign(filters, 0.0);
    }

    // One row: z[t] = sum_s filter[t - s] x[s] and its adjoint.
    void define(int64_t b, int64_t h) {
        const int64_t n = lengths[b], owner = c.per_sample ? b : 0, filter = owner * c.channels + h;
        const int64_t at = (b * c.channels + h) * c.length;
        std::vector<double> x(n), g(n), z(n), dx(n);
        for (int64_t t = 0; t < n; ++t) {
            x[t] = u.at(b, h, t) * pre_gate.value(b, h, t, 1);
            g[t] = dy.at(b, h, t) * post_gate.value(b, h, t, 1);
        }
        const double through = skip.value(0, h, 0, 0);
        for (int64_t t = 0; t < n; ++t) {
            z[t] += through * x[t], dx[t] += through * g[t], w_skip[filter] += g[t] * x[t];
            for (int64_t s = 0; s < n; ++s) {
                const int64_t lag = c.circular && t < s ? t - s + n : t - s;
                if (lag >= c.taps || -lag > c.reverse_taps) continue;
                const double tap = lag >= 0 ? double(k.at(owner, h, lag)) : double(k_reverse.at(owner, h, -lag - 1));
                z[t] += tap * x[s], dx[s] += tap * g[t];
                (lag >= 0 ? w_dk[filter * c.taps + lag] : w_reverse[filter * c.reverse_taps - lag - 1]) += g[t] * x[s];
            }
        }
        for (int64_t t = 0; t < n; ++t) {
            w_y[at + t] = z[t] * post_gate.value(b, h, t, 1), w_post[at + t] = z[t] * dy.at(b, h, t);
            w_du[at + t] = dx[t] * pre_gate.value(b, h, t, 1), w_pre[at + t] = dx[t] * u.at(b, h, t);
        }
    }

    template <typename R>
    void compare(Rows<R>& got, const std::vector<double>& want, const char* name, double extra = 0) {
        if (!got.memory) return;
        const bool own_period =
            c.circular && c.lengths && static_cast<void*>(&got) == &dk;  // nothing is promised beyond it
        Comparison all;
        for (int64_t b = 0; b < got.samples; ++b)
            for (int64_t h = 0; h < got.channels; ++h)
                for (int64_t n = 0; n < got.count; ++n)
                    if (!own_period || n < lengths[b])
                        all.add(double(got.at(b, h, n)), want[(b * got.channels + h) * got.count + n]);
        all.finish(Number<S>::kError, c.text() + ": " + name, extra);
    }

    // What a few numbers of a filter's gradient are sums of: their error is that of the terms, however small they are,
    // and nothing evens out that of one or two.
    double terms(int64_t taps) const {
        return taps < 16 ? __builtin_sqrt(static_cast<double>(c.batch * c.channels * c.length * taps)) : 0;
    }

    void run(int32_t element, int32_t arithmetic) {
        const bool periodic = c.circular && !c.lengths;
        int64_t bytes = 0;
        expect_ok(longconv_cpu_fft_plan(nullptr, c.length, periodic, arithmetic, &bytes), c.text());
        Buffer<char> plan(bytes);
        expect_ok(longconv_cpu_fft_plan(plan.data(), c.length, periodic, arithmetic, nullptr), c.text());
        LongconvFftConv call = {};
        call.plan = c.direct ? nullptr : plan.data(),
        call.filter_element = sizeof(K) < sizeof(T) ? element : arithmetic;
        call.lengths = c.lengths ? lengths.data() : nullptr;
        call.batch = c.batch, call.channels = c.channels, call.length = c.length;
        call.taps = c.taps, call.reverse_taps = c.reverse_taps;
        call.per_sample = c.per_sample, call.circular = c.circular, call.threads = threads(), call.element = element;
        call.u = u.view(), call.k = k.view(), call.k_reverse = k_reverse.view(), call.skip = skip.view();
        call.pre_gate = pre_gate.view(), call.post_gate = post_gate.view(), call.y = y.view();
        call_with_memory(call, c.text());
        call.y = {}, call.backward = 1, call.dy = dy.view();
        call.du = du.view(), call.dk = dk.view(), call.dk_reverse = dk_reverse.view(), call.dskip = dskip.view();
        call.dpre_gate = dpre_gate.view(), call.dpost_gate = dpost_gate.view();
        if (c.wanted == 1) call.u = {};
        call_with_memory(call, c.text());
        for (int64_t b = 0; b < c.batch; ++b)
            for (int64_t h = 0; h < c.channels; ++h) define(b, h);
        compare(y, w_y, "y"), compare(du, w_du, "du");
        compare(dpre_gate, w_pre, "dpre_gate"), compare(dpost_gate, w_post, "dpost_gate");
        compare(dk, w_dk, "dk", terms(c.taps)), compare(dk_reverse, w_reverse, "dk_reverse", terms(c.reverse_taps));
        compare(dskip, w_skip, "dskip", terms(1));
    }
};

Case random_case(int64_t length) {
    Case c = {};
    c.batch = random_int(1, 3), c.channels = random_int(1, length < 300 ? 3 : 1), c.length = length;
    c.taps = random_bool() ? length : random_int(1, length);
    c.circular = random_int(0, 2) == 0, c.lengths = random_int(0, 2) == 0;
    c.reverse_taps = c.circular || random_bool() ? 0 : random_int(0, length - 1);
    c.direct = random_bool();
    if (c.direct) c.taps = random_int(1, c.taps), c.reverse_taps = random_int(0, c.reverse_taps);
    c.per_sample = random_int(0, 2) == 0 || (c.circular && c.lengths);
    c.skip = random_bool(), c.pre_gate = random_bool(), c.post_gate = random_bool();
    c.wanted = random_bool() ? 63 : static_cast<int>(random_int(1, 63));
    return c;
}

// More filters than a worker takes at a time; and filters without samples, whose gradients are 0.
void shares() {
    Case c = {};
    c.channels = 100, c.length = 300, c.taps = 300, c.reverse_taps = 20;
    c.skip = c.pre_gate = c.post_gate = true, c.wanted = 63;
    for (int64_t batch : {3, 0})
        for (bool direct : {false, true}) {
            c.batch = batch, c.direct = direct;
            Test<float, float, float>(c).run(LONGCONV_FLOAT32, LONGCONV_FLOAT32);
        }
}

// A filter is read once for all samples that share it: rows of the first sample may then lie where the taps did.
void filters_serve_all_samples() {
    constexpr int64_t batch = 4, channels = 3, length = 600;  // a worker for each filter, with all of its samples
    Buffer<float> x(batch * channels * length), k(channels * length), apart(x.size()), over_taps(x.size());
    const auto rows = [](Buffer<float>& of) { return LongconvRows{of.data(), channels * length, length}; };
    int64_t bytes = 0;
    expect_ok(longconv_cpu_fft_plan(nullptr, length, 0, LONGCONV_FLOAT32, &bytes), "a plan");
    Buffer<char> plan(bytes);
    expect_ok(longconv_cpu_fft_plan(plan.data(), length, 0, LONGCONV_FLOAT32, nullptr), "a plan");
    x.randomize(), k.randomize();
    for (bool direct : {false, true})
        for (bool backward : {false, true}) {
            LongconvFftConv call = {};
            call.plan = direct ? nullptr : plan.data();
            call.batch = batch, call.channels = channels, call.length = length, call.taps = direct ? 40 : length;
            call.backward = backward, call.threads = threads();
            call.element = call.filter_element = LONGCONV_FLOAT32;
            (backward ? call.dy : call.u) = rows(x);
            call.k = rows(k), (backward ? call.du : call.y) = rows(apart);
            call_with_memory(call, "filters of their own");
            memcpy(over_taps.data(), k.data(), k.size() * sizeof(float));
            call.k = (backward ? call.du : call.y) = rows(over_taps);
            call_with_memory(call, "results over the taps");
            expect(memcmp(over_taps.data(), apart.data(), apart.size() * sizeof(float)) == 0,
                   "a filter is read once for all samples");
        }
}

void bad_calls() {
    int64_t bytes;
    expect(longconv_cpu_fft_plan(nullptr, 0, 0, LONGCONV_FLOAT32, &bytes) == LONGCONV_BAD_SIZE, "a length of 0");
    expect(longconv_cpu_fft_plan(nullptr, 8, 0, 99, &bytes) == LONGCONV_BAD_ELEMENT, "an unknown element");
    LongconvFftConv call = {};
    call.batch = call.channels = call.length = call.taps = call.threads = 1;
    for (int64_t* field : {&call.batch, &call.channels, &call.length, &call.taps, &call.reverse_taps}) {
        const int64_t before = *field;
        *field = -1;
        expect(longconv_cpu_fft_conv(&call, nullptr) == LONGCONV_BAD_SIZE, "a negative size");
        *field = before;
    }
    call.element = 99;
    expect(longconv_cpu_fft_conv(&call, nullptr) == LONGCONV_BAD_ELEMENT, "an unknown element");
    call.element = LONGCONV_FLOAT32, call.batch = 0;
    expect_ok(longconv_cpu_fft_conv(&call, nullptr), "no samples");
}

}  // namespace

void fft_conv() {
    bad_calls();
    std::vector<int64_t> lengths;
    for (int64_t length = 1; length <= 40; ++length) lengths.push_back(length);
    for (int i = 0; i < 40; ++i) lengths.push_back(random_int(41, 300));
    for (int64_t power : {64, 128, 192, 256, 320, 512, 768, 1024}) lengths.insert(lengths.end(), {power, power + 1});
    lengths.insert(lengths.end(), {97, 101, 243, 509, 625, 997, 1009, 1280, 2048});
    for (int64_t length : lengths) {
        Test<float, float, float>(random_case(length)).run(LONGCONV_FLOAT32, LONGCONV_FLOAT32);
        Test<double, double, double>(random_case(length)).run(LONGCONV_FLOAT64, LONGCONV_FLOAT64);
        Test<Bfloat16, float, float>(random_case(length)).run(LONGCONV_BFLOAT16, LONGCONV_FLOAT32);
        Test<Bfloat16, float, Bfloat16>(random_case(length)).run(LONGCONV_BFLOAT16, LONGCONV_FLOAT32);
        Test<Float16, float, Float16>(random_case(length)).run(LONGCONV_FLOAT16, LONGCONV_FLOAT32);
    }
    shares();
    filters_serve_all_samples();
}

}  // namespace testing
