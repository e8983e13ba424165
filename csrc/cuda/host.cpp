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

// How many numbers this thread's kernels have read of the memory that it watches, from here on a piece of `bytes`.
LONGCONV_API int64_t longconv_cuda_watch(const void* data, int64_t bytes) {
    longconv::Machine& m = longconv::machine();
    const int64_t reads = m.reads;
    m.watched = static_cast<const char*>(data), m.watched_bytes = bytes, m.reads = 0;
    return reads;
}

// From here on this thread's blocks may have so much shared memory.
LONGCONV_API void longconv_cuda_set_most_shared(int32_t bytes) {
    longconv::machine().most_shared = bytes;
}
}
