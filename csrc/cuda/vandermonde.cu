// Sums of powers of nodes.

#include "vandermonde.h"

using namespace longconv;

int32_t longconv_cuda_vandermonde(const LongconvCudaVandermonde* call, int32_t device, void* stream) {
    if (call->sets < 0 || call->rows < 0 || call->modes < 0 || call->length < 0) return LONGCONV_BAD_SIZE;
    if (!divides_warp(call->lanes) || call->splits < 1) return LONGCONV_BAD_SIZE;
    if (!call->sets || !call->rows || !call->length) return LONGCONV_OK;
    switch (call->y.element) {
        case LONGCONV_FLOAT32:
            return call->backward ? launch_jobs(VandermondeSums<float>{*call}, device, stream)
                                  : launch_jobs(Vandermonde<float>{*call}, device, stream);
        case LONGCONV_COMPLEX64:
            return call->backward ? launch_jobs(VandermondeSums<Complex>{*call}, device, stream)
                                  : launch_jobs(Vandermonde<Complex>{*call}, device, stream);
    }
    return LONGCONV_BAD_ELEMENT;
}
