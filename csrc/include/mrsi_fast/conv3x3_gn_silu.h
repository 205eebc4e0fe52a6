// conv3x3_gn_silu as a single operation: the native network engine's convolution for PyTorch tensors.
#pragma once

#include <cstddef>

#include "mrsi_fast/network.h"

namespace mrsi_fast {

// out = conv3x3(silu(group_norm(x) * (1 + scale) + shift)) + bias + residual, or conv3x3(x) + ... where groups is 0.
// Channels-last float32.
struct Conv3x3GnSilu {
    const float* x;  // [batch][height][width][in_channels]
    int batch, height, width, in_channels, groups;
    double eps;
    const float *gamma, *beta;   // [in_channels]
    const float *scale, *shift;  // [batch][in_channels] or null
    int tile;                    // 4 or 2: Winograd F(tile x tile, 3x3); 0: direct
    const float* weight;         // packed for `tile`
    int out_channels;
    const float *bias, *residual;  // [out_channels]; like out; or null
    float* out;
    int threads;
};

// Floats of the packed weights, for the instruction set in use.
std::size_t conv3x3_packed_floats(int tile, int in_channels, int out_channels);
void conv3x3_pack(const Filters& filters, float* packed, int threads);

void conv3x3_gn_silu(const Conv3x3GnSilu& request);

// Gradient of the filters from that of the result, by Winograd (tile 2 or 4). Of the request, weight, bias, residual and
// out are not read; `filters` says how the result is laid out, except for its data, which is `out`.
std::size_t conv3x3_filter_gradient_workspace(const Conv3x3GnSilu& request);
void conv3x3_filter_gradient(const Conv3x3GnSilu& request, const float* grad, const Filters& filters, float* workspace,
                             float* out);

}  // namespace mrsi_fast
