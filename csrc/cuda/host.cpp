// The entry points of the host execution, which tests load in the place of liblongconv_cuda.

#include "tile.h"

extern "C" {
LONGCONV_API int32_t longconv_cuda_abi(void) {
    return LONGCONV_ABI;
}

LONGCONV_API const char* longconv_cuda_error(int32_t status) {
    switch (status) {
        case LONGCONV_OK:
            return "no error";
        case LONGCONV_BAD_SIZE:
            return "a size is negative or beyond what a block holds";
        case LONGCONV_BAD_ELEMENT:
            return "an unknown element or arithmetic";
    }
    return longconv::machine().fault;
}

// How many matrix instructions this thread has run.
LONGCONV_API int64_t longconv_cuda_products(void) {
    return longconv::machine().products;
}

// From here on this thread's blocks may have so much shared memory.
LONGCONV_API void longconv_cuda_set_most_shared(int32_t bytes) {
    longconv::machine().most_shared = bytes;
}
}
