// The warp layer on the host, for tests: a warp is 32 lanes in lock step, the matrix instructions follow the fragment
// layouts of the PTX manual, the warps of a phase run in random order, and every access is watched. Shared memory that
// is read before it is written, touched by two warps within a phase, of which one writes, or left, is a fault.

#ifndef LONGCONV_CUDA_WARP_HOST_H
#define LONGCONV_CUDA_WARP_HOST_H

#include <algorithm>
#include <cstdio>
#include <random>
#include <type_traits>
#include <vector>

#include "longconv.h"
#include "number.h"

namespace longconv {

constexpr int32_t kFault = LONGCONV_CUDA_ERROR;

// The block that runs and the first fault of the last call.
struct Machine {
    struct Byte {
        int written = -1, writer = -1, read = -1, reader = -1;  // last phase and warp; reader -2: several
    };
    std::vector<unsigned char> shared;
    std::vector<Byte> trace;
    std::mt19937 random{20251121};
    int phase = 0, warp = 0;
    int64_t products = 0;  // the matrix instructions of all calls
    const char* watched = nullptr;
    int64_t watched_bytes = 0, reads = 0;  // a piece of global memory, and how often a number of it was read
    int most_shared = 232448;              // bytes of a block, those of an H100 unless a test says otherwise
    char fault[160] = "";

    void fail(const char* what, long long place, long long limit) {
        if (!*fault) std::snprintf(fault, sizeof(fault), "%s: %lld of %lld, warp %d", what, place, limit, warp);
    }
    void write(int byte) {
        Byte& b = trace[byte];
        if (b.written == phase && b.writer != warp) fail("written by two warps in a phase", byte, shared.size());
        if (b.read == phase && b.reader != warp) fail("written while another warp reads", byte, shared.size());
        b.written = phase, b.writer = warp;
    }
    void read(int byte) {
        Byte& b = trace[byte];
        if (b.written < 0) fail("read before it is written", byte, shared.size());
        if (b.written == phase && b.writer != warp) fail("read while another warp writes", byte, shared.size());
        b.reader = b.read == phase && b.reader != warp ? -2 : warp;
        b.read = phase;
    }
    void count(const char* place) { reads += place >= watched && place < watched + watched_bytes; }
};

inline Machine& machine() {
    static thread_local Machine one;
    return one;
}

template <typename T, int N>
struct Registers {
    T v[32][N];
    T& operator()(int lane, int i) { return v[lane][i]; }
    const T& operator()(int lane, int i) const { return v[lane][i]; }
};

template <typename F>
inline void each_lane(const F& f) {
    for (int lane = 0; lane < 32; ++lane) f(lane);
}

template <typename T, int N>
struct Vector {
    T v[N];
};

// What both memories share: single numbers and vectors by `Memory`'s load(i) and store(i, value).
template <typename Memory, typename T, typename Index>
class Access {
  public:
    using Plain = std::remove_const_t<T>;
    Plain get(Index i) const { return self().load(i); }
    void set(Index i, Plain value) const { self().store(i, value); }
    template <int N>
    Vector<Plain, N> vector(Index i) const {
        self().template aligned<N>(i);
        Vector<Plain, N> result;
        for (int j = 0; j < N; ++j) result.v[j] = self().load(i + j);
        return result;
    }
    template <int N>
    void set_vector(Index i, const Vector<Plain, N>& value) const {
        self().template aligned<N>(i);
        for (int j = 0; j < N; ++j) self().store(i + j, value.v[j]);
    }

  private:
    const Memory& self() const { return static_cast<const Memory&>(*this); }
};

template <typename T>
class Global : public Access<Global<T>, T, int64_t> {
  public:
    Global(T* data, int64_t count) : data_(data), count_(count) {}
    using Plain = std::remove_const_t<T>;
    Plain load(int64_t i) const {
        if (!inside(i)) return Plain{};
        machine().count(reinterpret_cast<const char*>(data_ + i));
        return data_[i];
    }
    void store(int64_t i, Plain value) const {
        if (inside(i)) data_[i] = value;
    }
    template <int N>
    void aligned(int64_t i) const {
        if (reinterpret_cast<uintptr_t>(data_ + i) % (N * sizeof(T))) machine().fail("unaligned vector", i, count_);
    }

  private:
    bool inside(int64_t i) const {
        if (i < 0 || i >= count_) machine().fail("outside global memory", i, count_);
        return i >= 0 && i < count_;
    }
    T* data_;
    int64_t count_;
};

template <typename T>
class Shared : public Access<Shared<T>, T, int> {
  public:
    Shared(int first_byte, int count) : first_(first_byte), count_(count) {
        const int size = static_cast<int>(machine().shared.size());
        if (first_byte < 0 || first_byte + count * static_cast<int>(sizeof(T)) > size)
            machine().fail("array beyond shared memory", first_byte + count * static_cast<int>(sizeof(T)), size);
    }
    T load(int i) const {
        T value{};
        if (!inside(i)) return value;
        for (unsigned j = 0; j < sizeof(T); ++j) machine().read(byte(i) + j);
        std::memcpy(&value, &machine().shared[byte(i)], sizeof(T));
        return value;
    }
    void store(int i, T value) const {
        if (!inside(i)) return;
        for (unsigned j = 0; j < sizeof(T); ++j) machine().write(byte(i) + j);
        std::memcpy(&machine().shared[byte(i)], &value, sizeof(T));
    }
    template <int N>
    void aligned(int i) const {
        if (byte(i) % (N * sizeof(T))) machine().fail("unaligned vector", i, count_);
    }

  private:
    int byte(int i) const { return first_ + i * static_cast<int>(sizeof(T)); }
    bool inside(int i) const {
        const bool in = i >= 0 && i < count_ && byte(i + 1) <= static_cast<int>(machine().shared.size());
        if (!in) machine().fail("outside shared memory", i, count_);
        return in;
    }
    int first_, count_;
};

class Block {
  public:
    Block(int64_t index, int64_t count, int warps) : index_(index), count_(count) {
        for (int w = 0; w < warps; ++w) order_.push_back(w);
    }
    int64_t index() const { return index_; }
    int64_t count() const { return count_; }
    int warps() const { return static_cast<int>(order_.size()); }
    template <typename F>
    void phase(const F& f) {
        std::shuffle(order_.begin(), order_.end(), machine().random);
        for (const int w : order_) {
            machine().warp = w;
            f(w);
        }
        ++machine().phase;
    }

  private:
    int64_t index_, count_;
    std::vector<int> order_;
};

template <typename T>
class Kept {
  public:
    explicit Kept(const Block& block) : values_(block.warps()) {}
    T& operator()(int warp) { return values_[warp]; }

  private:
    std::vector<T> values_;
};

inline void forget() {}

// d += a b with a (16 x K) and b (K x 8), the sums in double and rounded once.
template <int K>
inline void multiply_add(Registers<float, 4>& d, const float (&a)[16][K], const float (&b)[K][8]) {
    for (int row = 0; row < 16; ++row) {
        double sums[8] = {};
        for (int k = 0; k < K; ++k)
            for (int col = 0; col < 8; ++col) sums[col] += static_cast<double>(a[row][k]) * b[k][col];
        for (int col = 0; col < 8; ++col) {
            float& out = d(row % 8 * 4 + col / 2, row / 8 * 2 + col % 2);
            out = static_cast<float>(out + sums[col]);
        }
    }
}

inline void mma_half(Registers<float, 4>& d, const Registers<uint32_t, 4>& a, const Registers<uint32_t, 2>& b) {
    float x[16][16], y[16][8];
    for (int lane = 0; lane < 32; ++lane) {
        const int group = lane / 4, in_group = lane % 4;
        for (int i = 0; i < 8; ++i)
            x[group + (i / 2 % 2 ? 8 : 0)][in_group * 2 + i % 2 + (i >= 4 ? 8 : 0)] =
                from_half(static_cast<uint16_t>(a(lane, i / 2) >> i % 2 * 16));
        for (int i = 0; i < 4; ++i)
            y[in_group * 2 + i % 2 + (i >= 2 ? 8 : 0)][group] =
                from_half(static_cast<uint16_t>(b(lane, i / 2) >> i % 2 * 16));
    }
    multiply_add(d, x, y);
    ++machine().products;
}

// The hardware reads the upper 19 bits of a register.
inline float upper_bits(float x) {
    return float_of(bits_of(x) & ~0x1fffu);
}

template <int A, int B>
inline void mma_tf32(Registers<float, 4>& d, const Registers<float, A>& a, const Registers<float, B>& b, int step) {
    float x[16][8], y[8][8];
    for (int lane = 0; lane < 32; ++lane) {
        const int group = lane / 4, in_group = lane % 4;
        for (int i = 0; i < 4; ++i)
            x[group + (i % 2 ? 8 : 0)][in_group + (i >= 2 ? 4 : 0)] = upper_bits(a(lane, 4 * step + i));
        for (int i = 0; i < 2; ++i) y[in_group + (i ? 4 : 0)][group] = upper_bits(b(lane, 2 * step + i));
    }
    multiply_add(d, x, y);
    ++machine().products;
}

template <typename F>
inline Registers<uint32_t, 4> load_transposed(const Shared<uint16_t>& from, const F& place) {
    Registers<uint32_t, 4> r;
    for (int block = 0; block < 4; ++block)
        for (int row = 0; row < 8; ++row) {
            const Vector<uint16_t, 8> numbers = from.vector<8>(place(8 * block + row));
            for (int col = 0; col < 8; ++col) {  // to the lane of its column, the low or the high half by its row
                uint32_t& out = r(col * 4 + row / 2, block);
                out = row % 2 ? (out & 0xffffu) | static_cast<uint32_t>(numbers.v[col]) << 16 : numbers.v[col];
            }
        }
    return r;
}

template <typename T>
inline Registers<T, 1> lanes_before(const Registers<T, 1>& x, int distance) {
    Registers<T, 1> r = x;
    for (int lane = distance; lane < 32; ++lane) r(lane, 0) = x(lane - distance, 0);
    return r;
}

inline float larger(float a, float b) {
    return std::fmax(a, b);
}
inline float magnitude(float a) {
    return std::fabs(a);
}
inline float greatest(const Registers<float, 1>& x) {
    float most = x(0, 0);
    for (int lane = 1; lane < 32; ++lane) most = larger(most, x(lane, 0));
    return most;
}

inline int32_t most_shared_memory(int, int* bytes) {
    *bytes = machine().most_shared;
    return LONGCONV_OK;
}

template <typename Kernel>
int32_t launch(const Kernel& kernel, int64_t blocks, int warps, int shared_bytes, void*) {
    Machine& m = machine();
    m.fault[0] = 0;
    if (warps < 1 || warps > Kernel::kMostWarps || shared_bytes > m.most_shared)
        m.fail("bad launch", warps, shared_bytes);
    for (int64_t i = 0; i < blocks && !*m.fault; ++i) {
        m.shared.assign(shared_bytes, 0xff);
        m.trace.assign(shared_bytes, {});
        Block block(i, blocks, warps);
        kernel(block);
    }
    return *m.fault ? kFault : LONGCONV_OK;
}

// There is one device, the host.
class DeviceScope {
  public:
    int32_t enter(int) { return LONGCONV_OK; }
};

}  // namespace longconv

#endif
