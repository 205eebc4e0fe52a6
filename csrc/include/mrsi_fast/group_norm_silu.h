// silu(group_norm(x) * (1 + scale) + shift), float32, on the CPU: forward and backward.
#pragma once

#include <cstdint>

namespace mrsi_fast {

struct GroupNormSilu {
    const float* x;       // [batch, channels, spatial], or [batch, spatial, channels] where channels_last
    const float* weight;  // [channels]
    const float* bias;    // [channels]
    const float* scale;   // [batch, channels] or null
    const float* shift;   // [batch, channels] or null
    std::int64_t batch, channels, spatial, groups;
    bool channels_last;
    double eps;
    int threads;
};

struct GroupNormSiluGradients {
    const float* out;  // gradient of the result, laid out as x
    float* x;          // laid out as x
    float* weight;     // [channels]
    float* bias;       // [channels]
    float* scale;      // [batch, channels]; null with scale
    float* shift;      // [batch, channels]; null with shift
};

// `out` is laid out as x and overlaps none of the inputs.
void group_norm_silu(const GroupNormSilu& op, float* out);
void group_norm_silu_backward(const GroupNormSilu& op, const GroupNormSiluGradients& grad);

}  // namespace mrsi_fast
