// conv3x3_gn_silu as a single operation: the native network engine's convolution for PyTorch tensors.
#pragma once

#include <cstddef>

#include "mrsi_fast/network.h"

namespace mrsi_fast {

// out = conv3x3(silu(group_norm(x) * (1 + scale) + shift)) + bias + residual, or conv3x3(x) + ... where groups is 0.
// Channels-last float32.
struct Conv3x3GnSilu {
    const float* x = nullptr;  // [batch][height][width][in_channels]
    int batch = 0, height = 0, width = 0, in_channels = 0, groups = 0;
    double eps = 0.0;
    const float *gamma = nullptr, *beta = nullptr;   // [in_channels]
    const float *scale = nullptr, *shift = nullptr;  // [batch][in_channels] or null
    ConvMethod method = kDirect;                     // kDirect, kWinograd2 or kWinograd4
    const float* weight = nullptr;                   // packed for `method`
    int out_channels = 0;
    const float *bias = nullptr, *residual = nullptr;  // [out_channels]; like out; or null
    float* out = nullptr;
    int threads = 1;
};

// Floats of the packed weights, for the instruction set in use.
std::size_t conv3x3_packed_floats(ConvMethod method, int in_channels, int out_channels);
void conv3x3_pack(const Filters& filters, float* packed, int threads);

void conv3x3_gn_silu(const Conv3x3GnSilu& request);

// Gradient of the filters from that of the result, by Winograd. Of the request, weight, bias, residual and out are not
// read; `filters` says how the result is laid out, except for its data, which is `out`.
std::size_t conv3x3_filter_gradient_workspace(const Conv3x3GnSilu& request);
void conv3x3_filter_gradient(const Conv3x3GnSilu& request, const float* grad, const Filters& filters, float* workspace,
                             float* out);

}  // namespace mrsi_fast
