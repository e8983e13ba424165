// Errors and device choice of liblongconv_cuda's entry points.

#ifndef LONGCONV_CUDA_STATUS_H
#define LONGCONV_CUDA_STATUS_H

#include <cuda_runtime.h>

#include "longconv.h"

#define LONGCONV_CHECK(call)                                                              \
    do {                                                                                  \
        const cudaError_t longconv_error_ = (call);                                       \
        if (longconv_error_ != cudaSuccess) return LONGCONV_CUDA_ERROR + longconv_error_; \
    } while (0)

namespace longconv {

// Makes a device current for a scope.
class DeviceScope {
  public:
    int32_t enter(int device) {
        LONGCONV_CHECK(cudaGetDevice(&previous_));
        if (device != previous_) LONGCONV_CHECK(cudaSetDevice(device));
        changed_ = device != previous_;
        return LONGCONV_OK;
    }
    ~DeviceScope() {
        if (changed_) (void)cudaSetDevice(previous_);
    }

  private:
    int previous_ = 0;
    bool changed_ = false;
};

}  // namespace longconv

#endif
