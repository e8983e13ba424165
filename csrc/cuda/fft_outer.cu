// The passes of sequences of more than a block holds, by an outer transform through memory.

#include "fft_inner.h"
#include "fft_launch.h"

using namespace longconv;

int32_t longconv_cuda_fft_columns(const LongconvCudaColumns* call, int32_t device, void* stream) {
    if (call->half && (call->arithmetic != LONGCONV_HALF || !call->alone)) return LONGCONV_BAD_ELEMENT;
    return with_outer({call->rows, call->columns}, call->arithmetic, [&](const auto& outer, const auto&) {
        using Kernel = Columns<std::decay_t<decltype(outer)>>;
        return launch_rows<Kernel>(outer, *call, Kernel{outer, *call}.rows(), device, stream);
    });
}

int32_t longconv_cuda_fft_rows(const LongconvCudaInner* call, int32_t device, void* stream) {
    const bool in_half = call->arithmetic == LONGCONV_HALF;
    if (in_half ? !call->forward || (call->half && !call->inverse) : call->half) return LONGCONV_BAD_ELEMENT;
    const OuterShape shape{call->rows, call->columns};
    return with_outer(shape, call->arithmetic, [&](const auto& outer, const auto& inner) {
        using Kernel = InnerRows<std::decay_t<decltype(inner)>>;
        LongconvCudaInner of_rows = *call;
        of_rows.tables = static_cast<const char*>(shape.operands_of(call->tables)) + outer.table_bytes();
        return launch_rows<Kernel>(inner, of_rows, Kernel{inner, of_rows}.rows(), device, stream);
    });
}

int32_t longconv_cuda_fft_columns_back(const LongconvCudaColumnsBack* call, int32_t device, void* stream) {
    if (call->half && call->arithmetic != LONGCONV_HALF) return LONGCONV_BAD_ELEMENT;
    int most = 0;
    if (const int32_t status = most_shared_memory(device, &most)) return status;
    return with_outer({call->rows, call->columns}, call->arithmetic, [&](const auto& outer, const auto&) {
        return with_back(outer, most, [&](const auto& layout) {
            using Kernel = ColumnsBack<std::decay_t<decltype(layout)>>;
            return launch_rows<Kernel>(layout, *call, Kernel{layout, *call}.rows(), device, stream);
        });
    });
}
