// silu(group_norm(x) * (1 + scale) + shift), float32, on the CPU: forward and backward.
#pragma once

#include <cstdint>

namespace mrsi_fast {

struct GroupNormSilu {
    const float* x = nullptr;       // [batch, channels, spatial], or [batch, spatial, channels] where channels_last
    const float* weight = nullptr;  // [channels]
    const float* bias = nullptr;    // [channels]
    const float* scale = nullptr;   // [batch, channels] or null
    const float* shift = nullptr;   // [batch, channels] or null
    std::int64_t batch = 0, channels = 0, spatial = 0, groups = 0;
    bool channels_last = false;
    double eps = 0.0;
    int threads = 1;
};

struct GroupNormSiluGradients {
    const float* out = nullptr;  // gradient of the result, laid out as x
    float* x = nullptr;          // laid out as x
    float* weight = nullptr;     // [channels]
    float* bias = nullptr;       // [channels]
    float* scale = nullptr;      // [batch, channels]; null with scale
    float* shift = nullptr;      // [batch, channels]; null with shift
};

// `out` is laid out as x and overlaps none of the inputs.
void group_norm_silu(const GroupNormSilu& op, float* out);
void group_norm_silu_backward(const GroupNormSilu& op, const GroupNormSiluGradients& grad);

}  // namespace mrsi_fast
