// The C interface of longconv's two shared libraries. longconv/_native.py is its only user and mirrors it in ctypes.
//
// Every function returns a status: 0, a Status below, or LONGCONV_CUDA_ERROR + a cudaError_t. Pointers are borrowed for
// the call (CUDA: until the stream has passed it), strides and sizes are in elements, and no function allocates.

#ifndef LONGCONV_H
#define LONGCONV_H

#include <stdint.h>

// Raised when something in this file changes or goes; _native.py refuses a library of another number. A function that
// is new and that an older library lacks is only missing there.
#define LONGCONV_ABI 3

#ifdef __cplusplus
extern "C" {
#endif

#define LONGCONV_API __attribute__((visibility("default")))

enum LongconvStatus {
    LONGCONV_OK = 0,
    LONGCONV_BAD_SIZE = 1,         // a negative size
    LONGCONV_BAD_ELEMENT = 2,      // an element size or type that the function has no code for
    LONGCONV_UNKNOWN_ISA = 3,      // no such instruction set in this library
    LONGCONV_UNSUPPORTED_ISA = 4,  // this processor lacks the instruction set
    LONGCONV_BAD_RANK = 5,         // more than LONGCONV_MOST_RANK
    LONGCONV_POOL_FAILED = 6,      // the function given to longconv_cpu_threads returned an error
    LONGCONV_CUDA_ERROR = 1000,    // + the cudaError_t
};

enum LongconvElement {
    LONGCONV_FLOAT32 = 0,
    LONGCONV_FLOAT64 = 1,
    LONGCONV_COMPLEX64 = 2,
    LONGCONV_COMPLEX128 = 3,
    LONGCONV_BFLOAT16 = 4,
    LONGCONV_FLOAT16 = 5,
};

enum LongconvActivation {
    LONGCONV_NONE = 0,
    LONGCONV_SILU = 1,
    LONGCONV_GELU = 2,  // with the error function
    LONGCONV_RELU = 3,
    LONGCONV_TANH = 4,
    LONGCONV_SIGMOID = 5,
};

// Rows of a low-rank correction that longconv_cpu_state_space_step takes.
#define LONGCONV_MOST_RANK 16

// A task run over [begin, end), and what runs it: libtorch_cpu's torch_parallel_for has this signature.
typedef void (*LongconvTask)(int64_t begin, int64_t end, void* context);
typedef int32_t (*LongconvParallelFor)(int64_t begin, int64_t end, int64_t grain, LongconvTask task, void* context);

// ---- liblongconv_cpu

LONGCONV_API int32_t longconv_cpu_abi(void);
LONGCONV_API const char* longconv_cpu_error(int32_t status);

// The names of the instruction sets that are compiled in, widest first; NULL beyond the last.
LONGCONV_API const char* longconv_cpu_isa_name(int32_t index);
// LONGCONV_OK if this processor has the instruction set.
LONGCONV_API int32_t longconv_cpu_isa_check(const char* name);
// Choose the instruction set (NULL: the widest that this processor has). Not for use while another call runs.
LONGCONV_API int32_t longconv_cpu_isa_select(const char* name);
// The chosen instruction set; NULL before the first select.
LONGCONV_API const char* longconv_cpu_isa(void);
// Give the thread pool; NULL, the initial state, runs everything in the calling thread.
LONGCONV_API void longconv_cpu_threads(LongconvParallelFor parallel_for);

// out[b, c, r] = in[b, r, c] for b < batch, r < rows, c < cols; rows of in and of out are contiguous, no overlap.
LONGCONV_API int32_t longconv_cpu_transpose(void* out, const void* in, int64_t batch, int64_t rows, int64_t cols,
                                            int64_t out_batch_stride, int64_t out_row_stride, int64_t in_batch_stride,
                                            int64_t in_row_stride, int32_t element_size);

// h[o, t, i] = a[o, t, i] h[o, t - 1, i] + b[o, t, i] for o < outer, t < length, i < inner (reverse: h[o, t + 1, i]),
// with initial[o, i] (NULL: 0) before the first step. h is contiguous and overlaps nothing; a_strides and b_strides are
// those of o, t and i, initial_strides those of o and i; 0 repeats. threads is how many parts are wished for. element
// is a LongconvElement.
LONGCONV_API int32_t longconv_cpu_linear_scan(void* h, const void* a, const void* b, const void* initial, int64_t outer,
                                              int64_t length, int64_t inner, const int64_t a_strides[3],
                                              const int64_t b_strides[3], const int64_t initial_strides[2],
                                              int32_t reverse, int32_t threads, int32_t element);

// One sample through the state space, for b < batch, h < features, c < channels, sums over n < modes and r < rank:
//   next[b, h, n] = A[h, n] x[b, h, n] + B[h, n] u[b, h] + sum_r left[r, h, n] Re sum_m right[r, h, m] x[b, h, m]
//   y[b, c, h] = Re sum_n C[c, h, n] next[b, h, n]
// All are contiguous; A, B, C (channels, ...), left and right (rank, ...) are complex double; x and next are complex, u
// and y real, of element_size 4 or 8 bytes a real number. next is rounded before y is taken of it; it may be x.
LONGCONV_API int32_t longconv_cpu_state_space_step(void* next, void* y, const void* x, const void* u, const double* A,
                                                   const double* B, const double* C, const double* left,
                                                   const double* right, int64_t batch, int64_t features, int64_t modes,
                                                   int64_t channels, int64_t rank, int32_t element_size);

// The tables of a transform for sequences of a length >= 1 in the chosen instruction set (they fit no other one), and
// their bytes; either may be NULL. Tables are aligned to 64 bytes, as all memory below. periodic: for sequences that
// all have this length for their period. element is a real LongconvElement.
LONGCONV_API int32_t longconv_cpu_fft_plan(void* tables, int64_t length, int32_t periodic, int32_t element,
                                           int64_t* bytes);

// Contiguous rows of real numbers at data + sample * batch + channel * channel_stride; data NULL: there are none.
struct LongconvRows {
    void* data;
    int64_t batch, channel;
};

// y = post_gate (k * x + k_reverse * x + skip x), x = pre_gate u, for sequences (batch, channels, length), and its
// gradients. Filters have one row a channel, or one a sample and channel (per_sample); so have dk, dk_reverse and
// dskip. In circular mode y[t] also takes what k * x is at t + length (the sample's own, with `lengths`, from where on
// its filter must be 0; k_reverse must be absent). Absent gates count as 1, absent k_reverse and skip as 0, absent
// gradients are not computed. element is that of the sequences, filter_element that of k and k_reverse: the same, or
// float under 16 bits, as skip and the gradients of all three are.
struct LongconvFftConv {
    const void* plan;  // tables of longconv_cpu_fft_plan (periodic if circular without lengths); NULL: without a
                       // transform, by sums over the taps
    void* work;
    const int64_t* lengths;  // of the samples, or NULL: u counts as 0 and y is 0 from there on
    int64_t batch, channels, length;
    int64_t taps, reverse_taps;  // 1 .. length, 0 .. length - 1
    int32_t per_sample, circular, backward, threads, element, filter_element;
    struct LongconvRows u, k, k_reverse, skip, pre_gate, post_gate;
    struct LongconvRows y;                                                     // forward
    struct LongconvRows dy, du, dk, dk_reverse, dskip, dpre_gate, dpost_gate;  // backward; u may be absent for du alone
};

// With memory not NULL it is given the bytes of `work` that the call takes, and nothing else is done.
LONGCONV_API int32_t longconv_cpu_fft_conv(const struct LongconvFftConv* call, int64_t* memory);

// Numbers of an element at data + set * .. + row * .. + step * ..
struct LongconvNumbers {
    void* data;
    int64_t set, row, step;
    int32_t element;
};

// y[set, row, l] = sum_n v[set, row, n] x[set, n]^l for l < length and n < modes, the real part alone if y is real; or,
// with logarithms, exp(l x[set, n]) in the place of the power. Backward: y holds the cotangents, and dv (..., modes)
// and dx (sets, modes) are written, complex as v and x are. y has steps of 1, is of element (a real LongconvElement) or
// complex of that precision, and of any length >= 1.
struct LongconvVandermonde {
    struct LongconvNumbers v, x, y, dv, dx;
    void* work;  // of `threads` workers, aligned to 64 bytes
    int64_t sets, rows, modes, length;
    int32_t logarithms, backward, threads, element;
};

// With work_bytes not NULL only the memory of a worker is told.
LONGCONV_API int32_t longconv_cpu_vandermonde(const struct LongconvVandermonde* call, int64_t* work_bytes);

// Real numbers at data + sample * batch + channel * channel + time * time; data NULL: there are none.
struct LongconvSequence {
    void* data;
    int64_t batch, channel, time;
};

// y[t] = activation(bias + sum_k w[k] x[t - (taps - 1) + k]) for sequences (batch, channels, length), x being u after
// the taps - 1 samples `initial`, and its gradients. w (channels, taps), bias (channels) and their gradients are
// contiguous, and float under 16 bits; element is that of the sequences. The times of u, y, dy and du, or with
// `columns` their channels, lie side by side. Absent bias and initial count as 0, absent gradients are not computed.
struct LongconvShortConv {
    void* work;
    const void *w, *bias;
    void *dw, *dbias;
    int64_t batch, channels, length, taps;
    int32_t activation, columns, backward, threads, element;
    struct LongconvSequence u, initial, y;     // forward
    struct LongconvSequence dy, du, dinitial;  // backward
};

// With memory not NULL it is given the bytes of `work` (aligned to 64) that the call takes, and nothing else is done.
LONGCONV_API int32_t longconv_cpu_short_conv(const struct LongconvShortConv* call, int64_t* memory);

// y[set, row, l] = sum_n v[set, row, n] / (z[set, l] - w[set, n]) for l < length and n < modes, the real part alone if
// y is real. Backward: y holds the cotangents, and those of dv (..., modes) and dw (sets, modes), which go together,
// and of dz (sets, length; one in all if dz.set is 0) that have data are written, complex as v, w and z are. y has
// steps of 1, is of element (a real LongconvElement) or complex of that precision. wide: z or w is of higher precision
// than that.
struct LongconvCauchy {
    struct LongconvNumbers v, z, w, y, dv, dz, dw;
    void* work;  // of `threads` workers, aligned to 64 bytes
    int64_t sets, rows, modes, length;
    int32_t wide, backward, threads, element;
};

// With work_bytes not NULL only the memory of a worker is told.
LONGCONV_API int32_t longconv_cpu_cauchy(const struct LongconvCauchy* call, int64_t* work_bytes);

// y[set, row, l] = C[set, row] A[set]^l B[set] for l < length, a matrix of states x states each. Backward: y holds the
// cotangents, and dA, dB and dC are written. All are contiguous: A, dA (sets, states, states), B, dB (sets, states),
// C, dC (sets, rows, states), y (sets, rows, length).
struct LongconvDenseTaps {
    const double *A, *B, *C;
    double *y, *dA, *dB, *dC;
    void* work;  // of `threads` workers, aligned to 64 bytes
    int64_t sets, rows, states, length;
    int32_t backward, threads;
};

// With work_bytes not NULL only the memory of a worker is told.
LONGCONV_API int32_t longconv_cpu_dense_taps(const struct LongconvDenseTaps* call, int64_t* work_bytes);

// ---- liblongconv_cuda: each call queues its work on a stream (a cudaStream_t) of a device and returns at once

LONGCONV_API int32_t longconv_cuda_abi(void);
LONGCONV_API const char* longconv_cuda_error(int32_t status);

LONGCONV_API int32_t longconv_cuda_transpose(void* out, const void* in, int64_t batch, int64_t rows, int64_t cols,
                                             int64_t out_batch_stride, int64_t out_row_stride, int64_t in_batch_stride,
                                             int64_t in_row_stride, int32_t element_size, int32_t device, void* stream);

#include "longconv_cuda_fft.h"

// For longconv_cuda_sparse_*: a convolution in the ring X^n + i, n = n1 n2 >= length, by the frequencies
// f = f1 + n1 f2 that a mask keeps. f1 is one of `rows` rows, f2 one of `columns` columns; a spectrum has those alone,
// n' = 256 ceil(rows / 16) ceil(columns / 16) complex floats.
struct LongconvCudaSparse {
    const void* tables;
    const int32_t* kept;   // the rows, then the columns; for the tables alone
    const uint8_t* alive;  // (n'), for each number of a spectrum whether it is kept: others are 0
    void *spectrum, *scratch;
    float* norms;
    int64_t batch, channels, length, taps, parts;
    int32_t n1, n2, rows, columns, arithmetic, element, per_sample, conjugate;
    struct LongconvRows x, y;
};
// Bytes of the tables and of a block's shared memory, how much of it a device has, and n'. Needs the sizes and the
// arithmetic of the call.
struct LongconvCudaSparseSize {
    int64_t table_bytes, shared_bytes, most_shared_bytes, spectrum;
};
LONGCONV_API int32_t longconv_cuda_sparse_size(const struct LongconvCudaSparse* call,
                                               struct LongconvCudaSparseSize* size, int32_t device);
LONGCONV_API int32_t longconv_cuda_sparse_tables(const struct LongconvCudaSparse* call, int32_t device, void* stream);
// spectrum[channel, sample] of the first `taps` numbers of x, and in norms the greatest magnitude.
LONGCONV_API int32_t longconv_cuda_sparse_spectrum(const struct LongconvCudaSparse* call, int32_t device, void* stream);
// y = the convolution of x with the filters of the spectra (channels, batch if per_sample), or (conjugate) its adjoint.
LONGCONV_API int32_t longconv_cuda_sparse_filter(const struct LongconvCudaSparse* call, int32_t device, void* stream);
// spectrum[channel, part] = the sum of conj(T(x)) T(y) over the samples from part * batch / parts up to
// (part + 1) * batch / parts; scratch is of the same size.
LONGCONV_API int32_t longconv_cuda_sparse_correlate(const struct LongconvCudaSparse* call, int32_t device,
                                                    void* stream);
// y = the first `taps` numbers, in float, of T^-1 of the sums over parts of a spectrum (channels, batch, parts).
LONGCONV_API int32_t longconv_cuda_sparse_taps(const struct LongconvCudaSparse* call, int32_t device, void* stream);

// h[set, row, t] = a[set, row, t] h[set, row, t - 1] + b[set, row, t] for t < length (reverse: h[set, row, t + 1]),
// with initial[set, row, 0] before the first step. Times are taken in chunks: before the first step of chunk i > 0 the
// state is ends[set, row, i - 1], or, if that is not finite, what the steps from the last finite one on lead to.
// Instead of states, or beside them, products and sums (sets, rows, chunks) are written: the state after a chunk is its
// product times that before it plus, from 0, its sum. Absent initial and ends count as 0. element is that of the
// arithmetic, complex if any of the numbers are. A warp has `lanes` rows, a power of two.
struct LongconvCudaLinearScan {
    struct LongconvNumbers h, a, b, initial, ends, products, sums;
    int64_t sets, rows, length, chunk;
    int32_t lanes, reverse, element;
};
LONGCONV_API int32_t longconv_cuda_linear_scan(const struct LongconvCudaLinearScan* call, int32_t device, void* stream);

// y[t] = activation(bias + sum_k w[k] x[t - (taps - 1) + k]) for t < length of sequences (sets are samples, rows
// channels, steps times), x being preceded by the taps - 1 samples `past`; with dy, dy times the derivative of the
// activation instead. Reverse: y[t] = sum_k w[k] x[t + (taps - 1) - k], of which past_y are those from t = -(taps - 1)
// on, and x counts as 0 beyond its end. w has rows and steps, bias has rows. Absent past and bias count as 0; y or
// past_y may be absent. element is that of the arithmetic; a warp has `lanes` rows, a power of two.
struct LongconvCudaShortConv {
    struct LongconvNumbers y, past_y, dy, x, past, w, bias;
    int64_t batch, channels, length, taps;
    int32_t activation, reverse, lanes, element;
};
LONGCONV_API int32_t longconv_cuda_short_conv(const struct LongconvCudaShortConv* call, int32_t device, void* stream);

// sums[split, channel, k] = the sum of dz[t] x[t - (taps - 1) + k], and at k = taps that of dz[t], over a part of the
// samples and times.
struct LongconvCudaShortConvSums {
    struct LongconvNumbers sums, dz, x, past;
    int64_t batch, channels, length, taps, splits;
    int32_t lanes, element;
};
LONGCONV_API int32_t longconv_cuda_short_conv_sums(const struct LongconvCudaShortConvSums* call, int32_t device,
                                                   void* stream);

// y[set, row, l] = sum_n v[set, row, n] x[set, n]^l for l < length and n < modes, the real part alone if y is real.
// powers[set, n] = log x, x, x^2, x^3, x^4 in complex double precision, the logarithm finite. Backward: y holds the
// cotangents; first[part, set * rows + row, n], in complex double precision, = sum_l y[l] conj(x^l) over a part of the
// times, and second likewise of (l + shift) y[l + shift]. There are splits * 32 / lanes parts. A warp has `lanes` rows,
// or backward modes, a power of two.
struct LongconvCudaVandermonde {
    struct LongconvNumbers v, powers, y, first, second;
    int64_t sets, rows, modes, length, splits;
    int32_t shift, backward, lanes;
};
LONGCONV_API int32_t longconv_cuda_vandermonde(const struct LongconvCudaVandermonde* call, int32_t device,
                                               void* stream);

// y[set, row, l] = sum_n v[set, row, n] q[set, n, l] with q = 1 / (z[set, l] - w[set, n]) for l < length and n < modes,
// the real part alone if y is real. With first and second, y holds the cotangents, and first[part, set * rows + row,
// n], in complex double precision, = sum_l y[l] conj(q) over a part of the points, and second likewise of conj(q)^2;
// there are splits * 32 / lanes parts, and a warp has `lanes` poles, a power of two. With dz, in complex double
// precision, it is written alone: dz[set, l] = -sum_row y[l] conj(sum_n v[n] q^2). element is that of the sums, a real
// one; wide: the differences are formed in double precision.
struct LongconvCudaCauchy {
    struct LongconvNumbers v, z, w, y, first, second, dz;
    int64_t sets, rows, modes, length, splits;
    int32_t wide, lanes, element;
};
LONGCONV_API int32_t longconv_cuda_cauchy(const struct LongconvCudaCauchy* call, int32_t device, void* stream);

#ifdef __cplusplus
}
#endif

#endif
