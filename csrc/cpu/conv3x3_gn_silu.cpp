// Runs one convolution of the native network engine on PyTorch tensors: statistics first, then the fused convolution.
#include "mrsi_fast/conv3x3_gn_silu.h"

#include <vector>

#include "mrsi_fast/network.h"
#include "mrsi_fast/pack.h"
#include "mrsi_fast/plan.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace mrsi_fast {

std::size_t conv3x3_packed_floats(int tile, int in_channels, int out_channels) {
    return packed_size(static_cast<Method>(tile), 3, in_channels, out_channels, MRSI_FAST_PICK(kNetworkKernels).panel);
}

void conv3x3_pack(const float* weight, int tile, int in_channels, int out_channels, float* packed) {
    pack_weights(weight, static_cast<Method>(tile), 3, in_channels, out_channels, MRSI_FAST_PICK(kNetworkKernels).panel,
                 packed);
}

void conv3x3_gn_silu(const Conv3x3GnSilu& r) {
    const NetworkKernels& kernels = MRSI_FAST_PICK(kNetworkKernels);
    const int strips = r.batch * strips_of(r.height);
    std::vector<float> stats(r.groups ? static_cast<std::size_t>(strips) * 2 * r.in_channels : 0);
    Conv c{};
    c.source[0] = {r.x, stats.data(), r.in_channels, 0};
    c.sources = 1;
    c.batch = r.batch, c.height = c.out_height = r.height, c.width = c.out_width = r.width,
    c.in_channels = r.in_channels;
    c.groups = r.groups, c.eps = static_cast<float>(r.eps), c.gamma = r.gamma, c.beta = r.beta;
    c.scale = r.scale, c.shift = r.shift, c.film_stride = r.in_channels;
    c.method = static_cast<Method>(r.tile), c.kernel = 3, c.stride = 1, c.out_channels = r.out_channels;
    c.weight = r.weight, c.bias = r.bias, c.residual = r.residual, c.out = r.out;
    cut_work(&c, r.threads, kernels.panel);
    const int items = conv_items(&c), stats_items = r.groups ? strips : 0;
    const std::size_t scratch_floats = kernels.conv_scratch(&c);
#ifdef _OPENMP
#pragma omp parallel num_threads(r.threads)
#endif
    {
        Block scratch(scratch_floats);
#ifdef _OPENMP
#pragma omp for schedule(static)
#endif
        for (int item = 0; item < stats_items; ++item)
            kernels.stats_item(r.x, r.height, r.width, r.in_channels, stats.data(), item);
#ifdef _OPENMP
#pragma omp for schedule(dynamic, 1)
#endif
        for (int item = 0; item < items; ++item) kernels.conv_item(&c, item, scratch.data());
    }
}

}  // namespace mrsi_fast
