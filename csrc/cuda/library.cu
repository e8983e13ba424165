// The entry points of liblongconv_cuda that belong to no op.

#include "status.h"

int32_t longconv_cuda_abi(void) {
    return LONGCONV_ABI;
}

const char* longconv_cuda_error(int32_t status) {
    switch (status) {
        case LONGCONV_OK:
            return "no error";
        case LONGCONV_BAD_SIZE:
            return "a size is negative or beyond what a block holds";
        case LONGCONV_BAD_ELEMENT:
            return "an element, an element size or an arithmetic that there is no code for";
    }
    return status >= LONGCONV_CUDA_ERROR ? cudaGetErrorString(static_cast<cudaError_t>(status - LONGCONV_CUDA_ERROR))
                                         : "unknown error";
}
