// The activations that an op can end with, and their derivatives.

#ifndef LONGCONV_CUDA_ACTIVATION_H
#define LONGCONV_CUDA_ACTIVATION_H

#include "longconv.h"
#include "number.h"

namespace longconv {

#ifndef __CUDACC__
using std::erfc;
using std::exp;
using std::tanh;
#endif

template <typename T>
LONGCONV_DEVICE T sigmoid(T z) {
    return 1 / (1 + exp(-z));
}

// The normal distribution up to z.
template <typename T>
LONGCONV_DEVICE T normal_distribution(T z) {
    return static_cast<T>(0.5) * erfc(z * static_cast<T>(-0.70710678118654752440));
}

template <typename T>
LONGCONV_DEVICE T activated(int activation, T z) {
    switch (activation) {
        case LONGCONV_SILU:
            return z * sigmoid(z);
        case LONGCONV_GELU:
            return z * normal_distribution(z);
        case LONGCONV_RELU:
            return z < 0 ? 0 : z;
        case LONGCONV_TANH:
            return tanh(z);
        case LONGCONV_SIGMOID:
            return sigmoid(z);
        default:
            return z;
    }
}

// The derivative of the above.
template <typename T>
LONGCONV_DEVICE T slope(int activation, T z) {
    switch (activation) {
        case LONGCONV_SILU: {
            const T s = sigmoid(z);
            return s + z * s * (1 - s);
        }
        case LONGCONV_GELU:
            return normal_distribution(z) +
                   z * exp(z * z * static_cast<T>(-0.5)) * static_cast<T>(0.39894228040143267794);
        case LONGCONV_RELU:
            return z > 0 ? 1 : 0;
        case LONGCONV_TANH: {
            const T y = tanh(z);
            return (1 - y) * (1 + y);
        }
        case LONGCONV_SIGMOID: {
            const T s = sigmoid(z);
            return s * (1 - s);
        }
        default:
            return 1;
    }
}

}  // namespace longconv

#endif
