// Tables of the transform, and spectra of filters.

#include "fft_inner.h"
#include "fft_launch.h"
#include "fft_spectrum.h"

using namespace longconv;

namespace {

// A table's bytes, or with `to` also its numbers.
template <typename L>
int32_t fill(const L& layout, char* to, int64_t* bytes, void* stream) {
    const int64_t before = *bytes;
    *bytes += layout.table_bytes();
    if (!to) return LONGCONV_OK;
    return launch(FillTables<L>{layout, to + before}, layout.stripes, kMostWarpsOfBlock, 0, stream);
}

}  // namespace

int32_t longconv_cuda_fft_plan(void* tables, int64_t length, int32_t arithmetic, LongconvCudaFftSize* size,
                               int32_t device, void* stream) {
    return with_layout(length, arithmetic, [&](auto layout) -> int32_t {
        using L = decltype(layout);
        DeviceScope scope;
        if (const int32_t status = scope.enter(device)) return status;
        size->points = layout.points();
        size->table_bytes = layout.table_bytes();
        if (!tables) return LONGCONV_OK;
        return launch(FillTables<L>{layout, tables}, layout.stripes, kMostWarpsOfBlock, 0, stream);
    });
}

int32_t longconv_cuda_fft_spectrum(const LongconvCudaSpectrum* call, int32_t device, void* stream) {
    return with_layout(call->length, call->arithmetic, [&](auto layout) {
        const Spectrum<decltype(layout)> kernel{layout, *call};
        return launch_rows<Spectrum<decltype(layout)>>(layout, *call, kernel.rows(), device, stream);
    });
}

int32_t longconv_cuda_fft_longest(int64_t* length, int32_t arithmetic, int32_t device) {
    DeviceScope scope;
    if (const int32_t status = scope.enter(device)) return status;
    int most = 0;
    if (const int32_t status = most_shared_memory(device, &most)) return status;
    *length = 0;
    for (int64_t points = 256; points <= kMostPoints; points += points < 4096 ? 256 : 1024) {
        const int32_t status = with_layout(points, arithmetic, [&](auto layout) -> int32_t {
            const int maxima = layout.group * layout.stripes * 4;
            if (layout.filter_bytes() + maxima <= most) *length = layout.points();
            return LONGCONV_OK;
        });
        if (status == LONGCONV_BAD_ELEMENT) return status;
    }
    return LONGCONV_OK;
}

int32_t longconv_cuda_fft_outer_limits(LongconvCudaOuterLimits* limits, int32_t arithmetic, int32_t device) {
    DeviceScope scope;
    if (const int32_t status = scope.enter(device)) return status;
    int most = 0;
    if (const int32_t status = most_shared_memory(device, &most)) return status;
    limits->rows = limits->columns = 0;
    for (int stripes = 1; stripes <= 2 * kMostStripes; ++stripes) {
        const OuterShape shape{16 * stripes, OuterShape::kPeak * stripes};
        const int32_t status = with_outer(shape, arithmetic, [&](const auto& outer, const auto& inner) {
            return with_back(outer, most, [&](const auto& back) -> int32_t {
                if (outer.load_bytes() <= most && back_bytes(back) <= most) limits->rows = shape.rows;
                if (inner_bytes(inner) <= most) limits->columns = shape.columns;
                return LONGCONV_OK;
            });
        });
        if (status) return status;
    }
    return LONGCONV_OK;
}

int32_t longconv_cuda_fft_outer_plan(void* tables, int64_t rows, int64_t columns, int32_t arithmetic,
                                     LongconvCudaFftSize* size, int32_t device, void* stream) {
    const OuterShape shape{rows, columns};
    return with_outer(shape, arithmetic, [&](const auto& outer, const auto& inner) -> int32_t {
        DeviceScope scope;
        if (const int32_t status = scope.enter(device)) return status;
        char* to = static_cast<char*>(tables);
        size->points = shape.points();
        size->table_bytes = shape.twiddles() * static_cast<int64_t>(sizeof(Complex));
        if (to)
            if (const int32_t status = launch(FillTwiddleTables{shape, to}, rows, kMostWarpsOfBlock, 0, stream))
                return status;
        if (const int32_t status = fill(outer, to, &size->table_bytes, stream)) return status;
        return fill(inner, to, &size->table_bytes, stream);
    });
}
