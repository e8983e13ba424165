// The warp layer on the device; warp_host.h is its twin, and the kernels are written once over both.

#ifndef LONGCONV_CUDA_WARP_DEVICE_H
#define LONGCONV_CUDA_WARP_DEVICE_H

#include <type_traits>

#include "number.h"
#include "status.h"

namespace longconv {

// N numbers of each lane.
template <typename T, int N>
struct Registers {
    T v[N];
    LONGCONV_DEVICE T& operator()(int, int i) { return v[i]; }
    LONGCONV_DEVICE const T& operator()(int, int i) const { return v[i]; }
};

template <typename F>
LONGCONV_DEVICE void each_lane(const F& f) {
    f(static_cast<int>(threadIdx.x & 31));
}

template <typename T, int N>
struct alignas(sizeof(T) * N) Vector {
    T v[N];
};

// `count` numbers in global memory; a vector lies at a multiple of its size.
template <typename T>
class Global {
  public:
    using Plain = std::remove_const_t<T>;
    LONGCONV_DEVICE Global(T* data, int64_t) : data_(data) {}
    LONGCONV_DEVICE Plain get(int64_t i) const { return data_[i]; }
    LONGCONV_DEVICE void set(int64_t i, Plain value) const { data_[i] = value; }
    template <int N>
    LONGCONV_DEVICE Vector<Plain, N> vector(int64_t i) const {
        return *reinterpret_cast<const Vector<Plain, N>*>(data_ + i);
    }
    template <int N>
    LONGCONV_DEVICE void set_vector(int64_t i, const Vector<Plain, N>& value) const {
        *reinterpret_cast<Vector<Plain, N>*>(data_ + i) = value;
    }

  private:
    T* data_;
};

extern __shared__ __align__(128) unsigned char longconv_shared[];

// `count` numbers in the block's shared memory, from a byte on.
template <typename T>
class Shared {
  public:
    LONGCONV_DEVICE Shared(int first_byte, int) : data_(reinterpret_cast<T*>(longconv_shared + first_byte)) {}
    LONGCONV_DEVICE T get(int i) const { return data_[i]; }
    LONGCONV_DEVICE void set(int i, T value) const { data_[i] = value; }
    template <int N>
    LONGCONV_DEVICE Vector<T, N> vector(int i) const {
        return *reinterpret_cast<const Vector<T, N>*>(data_ + i);
    }
    template <int N>
    LONGCONV_DEVICE void set_vector(int i, const Vector<T, N>& value) const {
        *reinterpret_cast<Vector<T, N>*>(data_ + i) = value;
    }
    LONGCONV_DEVICE uint32_t address(int i) const { return static_cast<uint32_t>(__cvta_generic_to_shared(data_ + i)); }

  private:
    T* data_;
};

// The block that runs. A phase is f(warp) on every warp and a barrier after it: within a phase no warp may see, or
// write over, what another one writes.
class Block {
  public:
    LONGCONV_DEVICE int64_t index() const { return blockIdx.x; }
    LONGCONV_DEVICE int64_t count() const { return gridDim.x; }
    LONGCONV_DEVICE int warps() const { return static_cast<int>(blockDim.x >> 5); }
    template <typename F>
    LONGCONV_DEVICE void phase(const F& f) {
        f(static_cast<int>(threadIdx.x >> 5));
        __syncthreads();
    }
};

// What a warp keeps from one phase to the next.
template <typename T>
class Kept {
  public:
    LONGCONV_DEVICE explicit Kept(const Block&) {}
    LONGCONV_DEVICE T& operator()(int) { return value_; }

  private:
    T value_;
};

// What was read from memory is read anew after this, not kept in registers.
LONGCONV_DEVICE void forget() {
    asm volatile("" ::: "memory");
}

// d += a b for 16 x 16 times 16 x 8 half-precision numbers (PTX: mma.m16n8k16).
LONGCONV_DEVICE void mma_half(Registers<float, 4>& d, const Registers<uint32_t, 4>& a,
                              const Registers<uint32_t, 2>& b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d.v[0]), "+f"(d.v[1]), "+f"(d.v[2]), "+f"(d.v[3])
        : "r"(a.v[0]), "r"(a.v[1]), "r"(a.v[2]), "r"(a.v[3]), "r"(b.v[0]), "r"(b.v[1]));
}

// d += a b for 16 x 8 times 8 x 8 tf32 numbers (PTX: mma.m16n8k8); a from its register 4 step on, b from 2 step on.
template <int A, int B>
LONGCONV_DEVICE void mma_tf32(Registers<float, 4>& d, const Registers<float, A>& a, const Registers<float, B>& b,
                              int step) {
    const uint32_t *x = reinterpret_cast<const uint32_t*>(a.v) + 4 * step,
                   *y = reinterpret_cast<const uint32_t*>(b.v) + 2 * step;
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d.v[0]), "+f"(d.v[1]), "+f"(d.v[2]), "+f"(d.v[3])
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
}

// Four 8 x 8 blocks of 16-bit numbers, transposed (PTX: ldmatrix.x4.trans): row j of block i begins at place(8 i + j).
template <typename F>
LONGCONV_DEVICE Registers<uint32_t, 4> load_transposed(const Shared<uint16_t>& from, const F& place) {
    Registers<uint32_t, 4> r;
    const uint32_t address = from.address(place(static_cast<int>(threadIdx.x & 31)));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r.v[0]), "=r"(r.v[1]), "=r"(r.v[2]), "=r"(r.v[3])
                 : "r"(address)
                 : "memory");
    return r;
}

// The greatest of the lanes' numbers.
LONGCONV_DEVICE float greatest(const Registers<float, 1>& x) {
    float most = x.v[0];
    LONGCONV_UNROLL
    for (int distance = 16; distance; distance /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, distance));
    return most;
}

// The number of the lane that is `distance` lanes before; a lane's own where there is none.
LONGCONV_DEVICE float lane_before(float x, int distance) {
    return __shfl_up_sync(~0u, x, distance);
}
LONGCONV_DEVICE double lane_before(double x, int distance) {
    return __shfl_up_sync(~0u, x, distance);
}
template <typename T>
LONGCONV_DEVICE ComplexOf<T> lane_before(ComplexOf<T> x, int distance) {
    return {lane_before(x.re, distance), lane_before(x.im, distance)};
}
template <typename T>
LONGCONV_DEVICE Registers<T, 1> lanes_before(const Registers<T, 1>& x, int distance) {
    return {{lane_before(x.v[0], distance)}};
}

LONGCONV_DEVICE float larger(float a, float b) {
    return fmaxf(a, b);
}
LONGCONV_DEVICE float magnitude(float a) {
    return fabsf(a);
}

template <typename Kernel>
__global__ void __launch_bounds__(Kernel::kMostWarps * 32) run_kernel(const Kernel kernel) {
    Block block;
    kernel(block);
}

// The bytes of shared memory that a block may have.
inline int32_t most_shared_memory(int device, int* bytes) {
    LONGCONV_CHECK(cudaDeviceGetAttribute(bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    return LONGCONV_OK;
}

// Queues kernel(block) for a number of blocks.
template <typename Kernel>
int32_t launch(const Kernel& kernel, int64_t blocks, int warps, int shared_bytes, void* stream) {
    if (blocks == 0) return LONGCONV_OK;
    const int64_t most = 0x7fffffff;
    if (shared_bytes > 48 * 1024) {  // more than every block may have; the most, for other threads set it as well
        int device = 0, bytes = 0;
        LONGCONV_CHECK(cudaGetDevice(&device));
        if (const int32_t status = most_shared_memory(device, &bytes)) return status;
        LONGCONV_CHECK(cudaFuncSetAttribute(run_kernel<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    }
    run_kernel<Kernel><<<static_cast<unsigned>(blocks < most ? blocks : most), warps * 32, shared_bytes,
                         static_cast<cudaStream_t>(stream)>>>(kernel);
    LONGCONV_CHECK(cudaGetLastError());
    return LONGCONV_OK;
}

}  // namespace longconv

#endif
