// Tables of the transform, and spectra of filters.

#include "fft_launch.h"
#include "fft_spectrum.h"

using namespace longconv;

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
    for (int64_t points = 256; points <= kMostPoints; points += points < 4096 ? 256 : 2048) {
        const int32_t status = with_layout(points, arithmetic, [&](auto layout) -> int32_t {
            const int maxima = layout.group * layout.stripes * 4;
            if (layout.filter_bytes() + maxima <= most) *length = layout.points();
            return LONGCONV_OK;
        });
        if (status == LONGCONV_BAD_ELEMENT) return status;
    }
    return LONGCONV_OK;
}
