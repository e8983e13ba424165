// Sizes and tables of the frequency-sparse transform, and spectra of filters.

#include "sparse_launch.h"

using namespace longconv;

int32_t longconv_cuda_sparse_size(const LongconvCudaSparse* call, LongconvCudaSparseSize* size, int32_t device) {
    return with_sparse_layout(*call, [&](auto layout) -> int32_t {
        DeviceScope scope;
        if (const int32_t status = scope.enter(device)) return status;
        int most = 0;
        if (const int32_t status = most_shared_memory(device, &most)) return status;
        *size = {layout.table_bytes(), layout.shared_bytes(), most, layout.spectrum()};
        return LONGCONV_OK;
    });
}

int32_t longconv_cuda_sparse_tables(const LongconvCudaSparse* call, int32_t device, void* stream) {
    return with_sparse_layout(*call, [&](auto layout) -> int32_t {
        using Kernel = SparseTables<decltype(layout)>;
        Kernel kernel;
        kernel.layout = layout;
        kernel.call = *call;
        DeviceScope scope;
        if (const int32_t status = scope.enter(device)) return status;
        return launch(kernel, (layout.operands() + Kernel::kMostWarps - 1) / Kernel::kMostWarps, Kernel::kMostWarps, 0,
                      stream);
    });
}

int32_t longconv_cuda_sparse_spectrum(const LongconvCudaSparse* call, int32_t device, void* stream) {
    return with_sparse_layout(*call, [&](auto layout) {
        return launch_sparse<SparseSpectrum<decltype(layout)>>(layout, *call, device, stream);
    });
}
