// Every op in every instruction set of this processor, alone and on three threads, whose results must be the same.

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <thread>

#include "testing.h"

namespace testing {
namespace {

uint64_t seed = 1, state, hash;
int64_t comparisons = 0;
int32_t most_threads = 1;

int32_t three_threads(int64_t begin, int64_t end, int64_t, LongconvTask task, void* context) {
    std::vector<std::thread> pool;
    for (int64_t i = 0; i < 3; ++i) {
        const int64_t from = begin + i * (end - begin) / 3, to = begin + (i + 1) * (end - begin) / 3;
        if (from < to) pool.emplace_back(task, from, to, context);
    }
    for (std::thread& thread : pool) thread.join();
    return 0;
}

uint64_t run_all() {
    hash = 0;
    for (const auto op :
         {cauchy, dense_taps, fft_conv, linear_scan, short_conv, state_space_step, transpose, vandermonde}) {
        start_random();  // so that the calls of one don't depend on those of another
        op();
    }
    return hash;
}

int run() {
    expect(longconv_cpu_abi() == LONGCONV_ABI, "the library has the interface of longconv.h");
    expect(longconv_cpu_isa() == nullptr, "no instruction set is chosen at the start");
    expect(longconv_cpu_isa_select("none") == LONGCONV_UNKNOWN_ISA, "an unknown instruction set is refused");
    start_random();
    cuda_layer();
    int instruction_sets = 0;
    for (int32_t i = 0; const char* name = longconv_cpu_isa_name(i); ++i) {
        if (longconv_cpu_isa_check(name) != LONGCONV_OK) {
            expect(longconv_cpu_isa_select(name) == LONGCONV_UNSUPPORTED_ISA, "a missing instruction set is refused");
            printf("%s: this processor lacks it\n", name);
            continue;
        }
        expect_ok(longconv_cpu_isa_select(name), name);
        expect(strcmp(longconv_cpu_isa(), name) == 0, "the chosen instruction set is in use");
        longconv_cpu_threads(nullptr);
        most_threads = 1;
        const uint64_t alone = run_all();
        longconv_cpu_threads(three_threads);
        most_threads = 3;
        expect(run_all() == alone, std::string(name) + ": threads change nothing");
        printf("%s: passed\n", name);
        ++instruction_sets;
    }
    expect(instruction_sets > 0, "the processor has one of the instruction sets");
    printf("%lld comparisons\n", static_cast<long long>(comparisons));
    return 0;
}

}  // namespace

void expect(bool holds, const std::string& what) {
    if (holds) return;
    const char* isa = longconv_cpu_isa();
    fprintf(stderr, "FAILED (%s, %d threads): %s\n", isa ? isa : "no instruction set", most_threads, what.c_str());
    exit(1);
}

void expect_ok(int32_t status, const std::string& what) {
    expect(status == LONGCONV_OK, what + ": " + longconv_cpu_error(status));
}

int32_t threads() {
    return most_threads;
}

void start_random() {
    state = seed;
}

uint64_t random_bits() {  // splitmix64
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

int64_t random_int(int64_t least, int64_t most) {
    return least + static_cast<int64_t>(random_bits() % static_cast<uint64_t>(most - least + 1));
}

bool random_bool() {
    return random_bits() >> 63;
}

double random_normal() {  // twelve uniform numbers have variance 1
    double sum = -6;
    for (int i = 0; i < 4; ++i) {
        const uint64_t bits = random_bits();
        for (int j = 0; j < 3; ++j) sum += static_cast<double>(bits >> (21 * j) & 0x1fffff) / 0x200000;
    }
    return sum;
}

Bfloat16::Bfloat16(double value) {
    const float single = static_cast<float>(value);
    uint32_t x;
    memcpy(&x, &single, sizeof(x));
    bits = value != value ? 0x7fc0 : static_cast<uint16_t>((x + 0x7fff + (x >> 16 & 1)) >> 16);
}

Bfloat16::operator double() const {
    const uint32_t x = static_cast<uint32_t>(bits) << 16;
    float single;
    memcpy(&single, &x, sizeof(single));
    return single;
}

Float16::Float16(double value) {
    const double size = fabs(value);
    const int exponent = size > 0 && ilogb(size) > -14 ? ilogb(size) : -14;
    const int significand = size < 65520 ? static_cast<int>(nearbyint(ldexp(size, 10 - exponent))) : 0;
    bits = static_cast<uint16_t>(value != value  ? 0x7e00
                                 : size >= 65520 ? 0x7c00
                                                 : 1024 * (exponent + 14) + significand);
    if (signbit(value)) bits |= 0x8000;
}

Float16::operator double() const {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double size = exponent == 31  ? (fraction ? NAN : INFINITY)
                        : exponent == 0 ? ldexp(fraction, -24)
                                        : ldexp(1024 + fraction, exponent - 25);
    return bits & 0x8000 ? -size : size;
}

void Comparison::add(std::complex<double> got, std::complex<double> want) {
    error_ += std::norm(got - want), norm_ += std::norm(want);
    const double parts[2] = {got.real(), got.imag()};
    for (const double& part : parts) {
        uint64_t bits;
        memcpy(&bits, &part, sizeof(bits));
        hash = (hash ^ bits) * 0x100000001b3u;
    }
}

void Comparison::finish(double bound, const std::string& what, double extra) {
    ++comparisons;
    const double error = sqrt(error_), most = bound * fmax(sqrt(norm_), extra);
    if (!(error <= most)) expect(false, what + ": error " + std::to_string(error / most) + " times the bound");
}

}  // namespace testing

int main(int argc, char** argv) {  // the seed, or 1
    if (argc > 1) testing::seed = strtoull(argv[1], nullptr, 10);
    return testing::run();
}
