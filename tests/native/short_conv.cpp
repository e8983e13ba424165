// The short convolution with bias and activation, and its gradients, in rows and in columns.

#include <math.h>

#include "testing.h"

namespace testing {
namespace {

struct Case {
    int64_t batch, channels, length, taps;
    int32_t activation;
    bool columns, bias, initial;
};

// The activation and its derivative.
void activate(int32_t activation, double z, double& value, double& slope) {
    const double sigmoid = 1 / (1 + exp(-z)), normal = erfc(-z / sqrt(2.0)) / 2;
    value = z, slope = 1;
    switch (activation) {
        case LONGCONV_SILU:
            value = z * sigmoid, slope = sigmoid * (1 + z * (1 - sigmoid));
            break;
        case LONGCONV_GELU:
            value = z * normal, slope = normal + z * exp(-z * z / 2) / 2.5066282746310005;
            break;
        case LONGCONV_RELU:
            value = z > 0 ? z : 0, slope = z > 0;
            break;
        case LONGCONV_TANH:
            value = tanh(z), slope = 1 - value * value;
            break;
        case LONGCONV_SIGMOID:
            value = sigmoid, slope = sigmoid * (1 - sigmoid);
            break;
    }
}

// Numbers (batch, channels, times) in rows or columns.
template <typename T>
struct Sequence {
    int64_t channel, time, batch;
    Buffer<T> memory;

    Sequence(const Case& c, int64_t times)
        : channel(c.columns ? 1 : times + random_int(0, 2)),
          time(c.columns ? c.channels + random_int(0, 2) : 1),
          batch(c.columns ? times * time : c.channels * channel),
          memory(c.batch * batch, random_int(0, 1)) {
        memory.randomize();
    }
    LongconvSequence view() { return {memory.data(), batch, channel, time}; }
    T& at(int64_t b, int64_t h, int64_t t) { return memory[b * batch + h * channel + t * time]; }
};

template <typename T>
struct Test {
    Case c;
    int64_t past = c.taps - 1;
    Sequence<T> u{c, c.length}, initial{c, past}, y{c, c.length}, dy{c, c.length}, du{c, c.length}, dinitial{c, past};
    Buffer<T> w{c.channels * c.taps}, bias{c.channels}, dw{c.channels * c.taps}, dbias{c.channels};
    Comparison all_y = {}, all_du = {}, all_dinitial = {}, all_dw = {}, all_dbias = {};

    // One channel against its sums.
    void compare(int64_t h) {
        std::vector<double> of_w(c.taps);
        double of_bias = 0;
        for (int64_t b = 0; b < c.batch; ++b) {
            std::vector<double> x(past + c.length), dx(past + c.length);
            for (int64_t t = 0; t < past; ++t) x[t] = c.initial ? initial.at(b, h, t) : 0;
            for (int64_t t = 0; t < c.length; ++t) x[past + t] = u.at(b, h, t);
            for (int64_t t = 0; t < c.length; ++t) {
                double z = c.bias ? bias[h] : 0, value, slope;
                for (int64_t k = 0; k < c.taps; ++k) z += double(w[h * c.taps + k]) * x[t + k];
                activate(c.activation, z, value, slope);
                all_y.add(double(y.at(b, h, t)), value);
                const double dz = slope * dy.at(b, h, t);
                for (int64_t k = 0; k < c.taps; ++k) dx[t + k] += dz * w[h * c.taps + k], of_w[k] += dz * x[t + k];
                of_bias += dz;
            }
            for (int64_t t = 0; c.initial && t < past; ++t) all_dinitial.add(double(dinitial.at(b, h, t)), dx[t]);
            for (int64_t t = 0; t < c.length; ++t) all_du.add(double(du.at(b, h, t)), dx[past + t]);
        }
        for (int64_t k = 0; k < c.taps; ++k) all_dw.add(double(dw[h * c.taps + k]), of_w[k]);
        if (c.bias) all_dbias.add(double(dbias[h]), of_bias);
    }

    void call(LongconvShortConv& call, const std::string& what) {
        int64_t bytes = 0;
        expect_ok(longconv_cpu_short_conv(&call, &bytes), what);
        Buffer<uint8_t> work(bytes);
        call.work = work.data();
        expect_ok(longconv_cpu_short_conv(&call, nullptr), what);
    }

    void run(int32_t element) {
        w.randomize(), bias.randomize();
        for (T& tap : w)
            tap /= std::sqrt(T(c.taps));  // sums of unit scale, where the slope of an activation is no tail
        const std::string what = "short_conv of " + std::to_string(c.batch) + " x " + std::to_string(c.channels) +
                                 " x " + std::to_string(c.length) + ", " + std::to_string(c.taps) +
                                 " taps, activation " + std::to_string(c.activation) + (c.columns ? ", columns" : "");
        LongconvShortConv s = {};
        s.w = w.data(), s.bias = c.bias ? bias.data() : nullptr;
        s.batch = c.batch, s.channels = c.channels, s.length = c.length, s.taps = c.taps, s.activation = c.activation;
        s.columns = c.columns, s.threads = threads(), s.element = element;
        s.u = u.view(), s.y = y.view();
        if (c.initial && past > 0) s.initial = initial.view();
        call(s, what);
        s.backward = 1, s.y = {}, s.dy = dy.view(), s.du = du.view(), s.dw = dw.data();
        if (c.bias) s.dbias = dbias.data();
        if (c.initial && past > 0) s.dinitial = dinitial.view();
        call(s, what + ", backward");
        for (int64_t h = 0; h < c.channels; ++h) compare(h);
        const double bound = 2 * Number<T>::kError, few = sqrt(double(c.batch * c.length));
        all_y.finish(bound, what), all_du.finish(bound, what + ", du");
        all_dinitial.finish(bound, what + ", dinitial", 1);
        all_dw.finish(bound, what + ", dw", few), all_dbias.finish(bound, what + ", dbias", few);
    }
};

}  // namespace

void short_conv() {
    for (int i = 0; i < 90; ++i) {
        Case c = {};
        c.batch = random_int(1, 3), c.channels = random_int(1, i % 3 ? 5 : 40);
        c.length = random_int(1, i % 6 ? 60 : 700), c.taps = i % 5 ? random_int(1, 8) : random_int(1, 130);
        c.activation = static_cast<int32_t>(random_int(LONGCONV_NONE, LONGCONV_SIGMOID));
        c.columns = random_bool(), c.bias = random_bool(), c.initial = random_bool();
        Test<float>{c}.run(LONGCONV_FLOAT32);
        Test<double>{c}.run(LONGCONV_FLOAT64);
    }
}

}  // namespace testing
