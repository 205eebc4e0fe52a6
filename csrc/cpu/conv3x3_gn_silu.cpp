// Runs one convolution of the native network engine on PyTorch tensors: statistics first, then the fused convolution.
#include "mrsi_fast/conv3x3_gn_silu.h"

#include <algorithm>
#include <atomic>
#include <new>
#include <vector>

#include "mrsi_fast/memory.h"
#include "mrsi_fast/network.h"
#include "mrsi_fast/pack.h"
#include "mrsi_fast/partition.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace mrsi_fast {
namespace {

Conv describe(const Conv3x3GnSilu& r, const float* stats) {
    Conv c{};
    c.source[0] = {r.x, stats, r.in_channels, 0};
    c.sources = 1;
    c.batch = r.batch, c.height = c.out_height = r.height, c.width = c.out_width = r.width,
    c.in_channels = r.in_channels;
    c.groups = r.groups, c.eps = static_cast<float>(r.eps), c.gamma = r.gamma, c.beta = r.beta;
    c.scale = r.scale, c.shift = r.shift, c.film_stride = r.in_channels;
    c.method = r.method, c.kernel = 3, c.stride = 1, c.out_channels = r.out_channels;
    c.weight = r.weight, c.bias = r.bias, c.residual = r.residual, c.out = r.out;
    return c;
}

std::vector<float> room_for_stats(const Conv3x3GnSilu& r) {
    return std::vector<float>(r.groups ? static_cast<std::size_t>(r.batch) * strips_of(r.height) * 2 * r.in_channels
                                       : 0);
}

// Statistics of the groups, dealt out to the threads of the parallel region that this is called in; ends with a barrier.
void share_stats(const Conv3x3GnSilu& r, const NetworkKernels& kernels, float* stats) {
    const int items = r.groups ? r.batch * strips_of(r.height) : 0;
#ifdef _OPENMP
#pragma omp for schedule(static)
#endif
    for (int item = 0; item < items; ++item) kernels.stats_item(r.x, r.height, r.width, r.in_channels, stats, item);
}

}  // namespace

std::size_t conv3x3_packed_floats(ConvMethod method, int in_channels, int out_channels) {
    const Filters filters = {nullptr, 0, 0, 0, method, 3, 1, in_channels, out_channels};
    return MRSI_FAST_PICK(kNetworkKernels).conv.packed_size(&filters);
}

void conv3x3_pack(const Filters& filters, float* packed, int threads) {
    pack_weights(MRSI_FAST_PICK(kNetworkKernels).conv, filters, packed, threads);
}

void conv3x3_gn_silu(const Conv3x3GnSilu& r) {
    const NetworkKernels& kernels = MRSI_FAST_PICK(kNetworkKernels);
    std::vector<float> stats = room_for_stats(r);
    Conv c = describe(r, stats.data());
    cut_work(&c, r.threads, kernels.conv.panel);
    const int items = conv_items(&c);
    const std::size_t scratch_floats = kernels.conv.scratch(&c);
    std::atomic<bool> lacking{false};
#ifdef _OPENMP
#pragma omp parallel num_threads(r.threads)
#endif
    {
        float* scratch = thread_scratch(scratch_floats);
        if (!scratch) lacking = true;
        share_stats(r, kernels, stats.data());
#ifdef _OPENMP
#pragma omp for schedule(dynamic, 1)
#endif
        for (int item = 0; item < items; ++item)
            if (!lacking) kernels.conv.item(&c, item, scratch);
    }
    if (lacking) throw std::bad_alloc();
}

std::size_t conv3x3_filter_gradient_workspace(const Conv3x3GnSilu& r) {
    const Conv c = describe(r, nullptr);
    return gradient_floats(&c, r.in_channels) + gradient_floats(&c, r.out_channels);
}

void conv3x3_filter_gradient(const Conv3x3GnSilu& r, const float* grad, const Filters& filters, float* workspace,
                             float* out) {
    const NetworkKernels& kernels = MRSI_FAST_PICK(kNetworkKernels);
    std::vector<float> stats = room_for_stats(r);
    FilterGradient g{};
    Conv& c = g.conv = describe(r, stats.data());
    const int strips = r.batch * strips_of(r.height), share = (strips + r.threads - 1) / r.threads;
    c.strips_per_item = std::min(share, strips_of(r.height)), c.channels_per_item = r.out_channels;
    g.grad = grad, g.v = workspace, g.m = workspace + gradient_floats(&c, r.in_channels);
    g.out = out, g.out_step = filters.out_step, g.in_step = filters.in_step, g.tap_step = filters.tap_step;
    const std::size_t scratch_floats = kernels.filter_gradient_scratch(&g);
    std::atomic<bool> lacking{false};
    const int transforms = kernels.filter_gradient_items(&g, 0), blocks = kernels.filter_gradient_items(&g, 1);
#ifdef _OPENMP
#pragma omp parallel num_threads(r.threads)
#endif
    {
        float* scratch = thread_scratch(scratch_floats);
        if (!scratch) lacking = true;
        share_stats(r, kernels, stats.data());
#ifdef _OPENMP
#pragma omp for schedule(dynamic, 1)
#endif
        for (int item = 0; item < transforms; ++item)
            if (!lacking) kernels.filter_gradient_item(&g, 0, item, scratch);
#ifdef _OPENMP
#pragma omp for schedule(dynamic, 1)
#endif
        for (int item = 0; item < blocks; ++item)
            if (!lacking) kernels.filter_gradient_item(&g, 1, item, scratch);
    }
    if (lacking) throw std::bad_alloc();
}

}  // namespace mrsi_fast
