// What the C++ tests share: random calls, memory that ends where it should, and comparisons with double precision.

#ifndef LONGCONV_TESTS_TESTING_H
#define LONGCONV_TESTS_TESTING_H

#include <stdint.h>
#include <stdlib.h>

#include <complex>
#include <string>
#include <vector>

#include "longconv.h"

namespace testing {

// The tests of one op in the chosen instruction set.
void cauchy();
void cuda_layer();
void dense_taps();
void fft_conv();
void linear_scan();
void short_conv();
void state_space_step();
void transpose();
void vandermonde();

// End the program with a message unless it holds, or unless the status is LONGCONV_OK.
void expect(bool holds, const std::string& what);
void expect_ok(int32_t status, const std::string& what);

// How many threads a call may ask for.
int32_t threads();

// The same numbers after every start_random.
void start_random();
uint64_t random_bits();
int64_t random_int(int64_t least, int64_t most);
bool random_bool();
double random_normal();

// The 16-bit numbers, rounded to nearest.
struct Bfloat16 {
    uint16_t bits;
    explicit Bfloat16(double value);
    operator double() const;
};
struct Float16 {
    uint16_t bits;
    explicit Float16(double value);
    operator double() const;
};

// The relative L2 error of an op.
template <typename T>
constexpr double kErrorOf = sizeof(T) == 4 ? 1e-6 : 1e-13;
template <>
inline constexpr double kErrorOf<Bfloat16> = 1e-2;
template <>
inline constexpr double kErrorOf<Float16> = 2e-3;

template <typename T>
struct Number {
    static constexpr double kError = kErrorOf<T>;
    static T random() { return static_cast<T>(random_normal()); }
};
template <typename R>
struct Number<std::complex<R>> {
    static constexpr double kError = Number<R>::kError;
    static std::complex<R> random() {
        const R re = Number<R>::random();
        return {re, Number<R>::random()};
    }
};

// Numbers up to the very end of their memory, `shift` of them after an address that is aligned to 64 bytes; NaN first.
template <typename T>
class Buffer {
  public:
    explicit Buffer(int64_t count, int64_t shift = 0) : count_(count), shift_(shift) {
        if (posix_memalign(&start_, 64, (count + shift) * sizeof(T) + 1) != 0) abort();
        for (T& x : *this) x = T(__builtin_nan(""));
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { free(start_); }

    void randomize() {
        for (T& x : *this) x = Number<T>::random();
    }
    T* data() { return static_cast<T*>(start_) + shift_; }
    T* begin() { return data(); }
    T* end() { return data() + count_; }
    int64_t size() const { return count_; }
    T& operator[](int64_t i) { return data()[i]; }

  private:
    void* start_ = nullptr;
    int64_t count_, shift_;
};

// Compares results with what they should be, number by number: ||got - want|| <= bound max(||want||, extra).
class Comparison {
  public:
    void add(std::complex<double> got, std::complex<double> want);
    void finish(double bound, const std::string& what, double extra = 0);

  private:
    double error_ = 0, norm_ = 0;
};

}  // namespace testing

#endif
