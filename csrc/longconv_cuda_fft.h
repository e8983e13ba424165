// The FFT convolution of liblongconv_cuda, a part of longconv.h.

#ifndef LONGCONV_CUDA_FFT_H
#define LONGCONV_CUDA_FFT_H

#ifndef LONGCONV_H
#error "include longconv.h"
#endif

// How the products of the GPU's transforms are taken: in half precision with a scale a row, in tf32, or in three
// products of tf32 that make one of float.
enum LongconvArithmetic {
    LONGCONV_HALF = 0,
    LONGCONV_TF32 = 1,
    LONGCONV_TF32X3 = 2,
};

// The transform for sequences of a length >= 1: its points, and the bytes of its tables (aligned to 16 as all memory
// below). Lengths that no block holds are a LONGCONV_BAD_SIZE. With tables not NULL they are filled.
struct LongconvCudaFftSize {
    int64_t points, table_bytes;
};
LONGCONV_API int32_t longconv_cuda_fft_plan(void* tables, int64_t length, int32_t arithmetic,
                                            struct LongconvCudaFftSize* size, int32_t device, void* stream);

// Spectra of blocks of `points` samples of sequences that reach to both sides: at l >= 0 they hold k[l] k_gate[l], at
// l < 0 k_reverse[-1 - l] or, circular, k[period + l]; nothing from the period on. spectrum[row, m] (points complex
// floats, row = channel * batch + sample) = T(block first + m) - i T(the block before, unless alone) + (block 0) skip:
// what of the ring X^points - i is the convolution of a block with the filter, where it comes first + m blocks later.
// norms[row, m] is the greatest magnitude.
struct LongconvCudaSpectrum {
    const void* tables;
    void* spectrum;
    float* norms;
    const float* skip;       // (channels), or NULL
    const int64_t* lengths;  // (batch), the periods of samples, or NULL
    int64_t batch, channels, length, period, first, blocks, taps, reverse_taps;
    int32_t arithmetic, circular, alone, element, reverse_element;
    struct LongconvRows k, k_gate, k_reverse;
};
LONGCONV_API int32_t longconv_cuda_fft_spectrum(const struct LongconvCudaSpectrum* call, int32_t device, void* stream);

// How sequences are taken in transforms of `points` samples: tile i < tiles gives the samples from i * step up to
// (i + 1) * step, of what is there from `before` samples before the first of them on. step and before are multiples of
// 8. Outside of its sequence a sample counts as 0, or is (around) the one a period, the sample's length, from there.
struct LongconvCudaTiles {
    int64_t points, tiles, step, before;
    int32_t around;
};

// c = the convolution of x x_gate with the filters of a spectrum, or (conjugate) its adjoint; y = y_gate c, z = z_gate
// c. Absent gates count as 1, and y or z may be absent. From a sample's length on x counts as 0 and y and z are 0.
struct LongconvCudaFilter {
    const void* tables;
    const void* spectrum;
    const float* norms;
    const int64_t* lengths;  // (batch), or NULL
    int64_t batch, channels, length;
    struct LongconvCudaTiles tiles;
    int32_t arithmetic, element, per_sample, conjugate;
    struct LongconvRows x, x_gate, y, y_gate, z, z_gate;
};
LONGCONV_API int32_t longconv_cuda_fft_filter(const struct LongconvCudaFilter* call, int32_t device, void* stream);

// products[row] (points complex floats, times 16 / points) = the sum of conj(T(x x_gate)) T(g g_gate), of g what a tile
// gives, over the tiles of a row, those of a sample side by side: of n = batch * tiles row channel * parts + p has
// those from p * n / parts up to (p + 1) * n / parts. Parts <= n.
struct LongconvCudaCorrelation {
    const void* tables;
    void *products, *scratch;  // of the same size
    const int64_t* lengths;    // (batch), or NULL
    int64_t batch, channels, length, parts;
    struct LongconvCudaTiles tiles;
    int32_t arithmetic, element;
    struct LongconvRows x, x_gate, g, g_gate;
};
LONGCONV_API int32_t longconv_cuda_fft_correlate(const struct LongconvCudaCorrelation* call, int32_t device,
                                                 void* stream);

// For sequences of several blocks: y = y_gate c, z = z_gate c, where block i of c is the real part of T^-1 of the sum
// over j of spectra[row, j] filters[., i - j - first] (conjugate: conj(filters[., j - i - first])), the filters there
// are being filter_blocks. points is the size of the blocks, length that of the sequences.
struct LongconvCudaBlocks {
    const void *tables, *spectra, *filters;
    const float *norms, *filter_norms;
    const int64_t* lengths;
    int64_t batch, channels, length, points, blocks, first, filter_blocks;
    int32_t arithmetic, element, per_sample, conjugate;
    struct LongconvRows y, y_gate, z, z_gate;
};
LONGCONV_API int32_t longconv_cuda_fft_blocks(const struct LongconvCudaBlocks* call, int32_t device, void* stream);

// products[row, m] as longconv_cuda_fft_correlate has them for one block, the sum of conj(x[., i - m - first]) g[., i]
// over the blocks i and the samples of a row.
struct LongconvCudaProducts {
    const void *x, *g;  // spectra
    void* products;
    int64_t batch, channels, points, blocks, first, filter_blocks, parts;
};
LONGCONV_API int32_t longconv_cuda_fft_products(const struct LongconvCudaProducts* call, int32_t device, void* stream);

// The gradients of the filters, in float, from the products (channels * batch rows, parts, filter_blocks, points),
// which are multiplied by scale and summed over the parts: dk[l] at lag l >= 0, dback[l] at lag -1 - l. Those whose
// data is NULL are not wanted, and of the others `taps` and `back_taps` are.
struct LongconvCudaTaps {
    const void *tables, *products;
    int64_t batch, channels, length, first, filter_blocks, parts, taps, back_taps;
    int32_t arithmetic;
    float scale;
    struct LongconvRows dk, dback;
};
LONGCONV_API int32_t longconv_cuda_fft_taps(const struct LongconvCudaTaps* call, int32_t device, void* stream);

// Sequences of rows * columns = N points, more than a block holds, in three kernels: with m = columns m1 + m2 and
// f = f1 + rows f2 the transform in the ring X^N - i is one of `rows` points over m1 (fft_columns), then for each row
// f1 one in the ring X^columns - i over m2 (fft_rows). rows are a multiple of 16, columns of 1024. work[channel,
// sample] (rows x columns complex floats) holds the rows f1 of a sequence. Its peaks (N / 1024 floats a sequence), of
// half precision alone, are the greatest real or imaginary parts, or down to 0.7 of them, in 16 rows of 64 columns each
// where fft_columns wrote them, in 1024 columns of a row each where fft_rows did. With `half`, for a convolution in
// half precision, work is in it too: the numbers of a peak are divided by the greatest power of two that is not above
// it.

// The most rows and columns that the kernels take in an arithmetic on a device.
struct LongconvCudaOuterLimits {
    int64_t rows, columns;
};
LONGCONV_API int32_t longconv_cuda_fft_outer_limits(struct LongconvCudaOuterLimits* limits, int32_t arithmetic,
                                                    int32_t device);
// The bytes of the tables; with tables not NULL they are filled.
LONGCONV_API int32_t longconv_cuda_fft_outer_plan(void* tables, int64_t rows, int64_t columns, int32_t arithmetic,
                                                  struct LongconvCudaFftSize* size, int32_t device, void* stream);

// work = the transform over m1 of what LongconvCudaSpectrum tells of lags from 0 on, with (unless alone) -i times those
// from -N on, and of skip at lag 0.
struct LongconvCudaColumns {
    const void* tables;
    void* work;
    float* peaks;
    const float* skip;
    const int64_t* lengths;
    int64_t batch, channels, rows, columns, period, taps, reverse_taps;
    int32_t arithmetic, circular, alone, half, element, reverse_element;
    struct LongconvRows k, k_gate, k_reverse;
};
LONGCONV_API int32_t longconv_cuda_fft_columns(const struct LongconvCudaColumns* call, int32_t device, void* stream);

// Of each row in its place: T (forward), the product with a spectrum, or (conjugate) with its conjugate, if there is
// one, and T^-1 (inverse; without T not in half precision).
struct LongconvCudaInner {
    const void* tables;
    void* work;
    const float* peaks;  // of what is in work before, not for the inverse alone
    float* new_peaks;    // and of what is in it after that
    const void* spectrum;
    const float* spectrum_peaks;
    int64_t batch, channels, rows, columns;
    int32_t arithmetic, half, per_sample, conjugate, forward, inverse;
};
LONGCONV_API int32_t longconv_cuda_fft_rows(const struct LongconvCudaInner* call, int32_t device, void* stream);

// y = y_gate c, z = z_gate c, c[t] = the real part of the inverse transform over f1 of work, or (imaginary) minus the
// imaginary part, at first + t; first is even.
struct LongconvCudaColumnsBack {
    const void *tables, *work;
    const float* peaks;
    const int64_t* lengths;
    int64_t batch, channels, length, rows, columns, first;
    int32_t arithmetic, half, element, imaginary;
    struct LongconvRows y, y_gate, z, z_gate;
};
LONGCONV_API int32_t longconv_cuda_fft_columns_back(const struct LongconvCudaColumnsBack* call, int32_t device,
                                                    void* stream);

// The longest sequence that the kernels take in an arithmetic on a device.
LONGCONV_API int32_t longconv_cuda_fft_longest(int64_t* length, int32_t arithmetic, int32_t device);

#endif
