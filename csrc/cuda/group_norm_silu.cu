// Launcher of group_norm_silu: picks the packet width, and one or two kernels, from the shape alone, so that the
// result does not depend on the device.
#include "mrsi_fast/group_norm_silu.cuh"

#include <type_traits>

#include "mrsi_fast/cuda_launchers.h"

namespace mrsi_fast {
namespace {

constexpr int64_t kMaxChunks = 64;
constexpr int64_t kPixelsPerThread = 8;

struct GroupNormShape {
    int64_t samples, channels, pixels, groups;
    int64_t width() const { return channels / groups; }
    bool valid() const {
        return samples >= 0 && samples <= 65535 && pixels >= 0 && groups > 0 && channels > 0 &&
               channels % groups == 0 && pixels * channels <= INT32_MAX;
    }
};

// How a shape is cut up for values of type T, kPack at a time.
template <class T, int kPack>
struct Tiling {
    GroupNormShape s;

    size_t fused_shared_bytes() const {
        const size_t tile = size_t(s.pixels) * s.width() * sizeof(T);
        return ((tile + 15) & ~size_t(15)) + 2 * (kFusedMaxThreads / 32) * sizeof(float);
    }
    bool fused() const { return fused_shared_bytes() <= kMaxSharedBytes && s.width() / kPack <= kFusedMaxThreads; }
    bool supported() const { return s.valid() && (fused() || s.channels / kPack <= kChunkThreads); }

    // About four packets a thread keep enough loads under way without leaving lanes idle on small maps.
    int64_t fused_threads() const {
        const int64_t columns = s.width() / kPack, wanted = (s.pixels * columns + 3) / 4;
        const int64_t threads = (max(wanted, max(columns, int64_t(64))) + 31) / 32 * 32;
        return min(threads, int64_t(kFusedMaxThreads));
    }

    int64_t pixels_per_chunk() const {
        const int64_t rows = kChunkThreads / (s.channels / kPack);
        const int64_t wanted = (s.pixels + kMaxChunks - 1) / kMaxChunks;
        return max(rows * kPixelsPerThread, (wanted + rows - 1) / rows * rows);
    }
    int64_t chunks() const { return (s.pixels + pixels_per_chunk() - 1) / pixels_per_chunk(); }

    int64_t workspace_bytes() const {
        if (!supported()) return -1;
        return fused() ? 0 : s.samples * chunks() * s.groups * int64_t(sizeof(float2));
    }

    cudaError_t run(const GroupNormSiLUArguments<T>& a, void* workspace, cudaStream_t stream) const {
        if (!supported()) return cudaErrorInvalidValue;
        if (s.samples == 0 || s.pixels == 0) return cudaSuccess;
        if (fused())
            return launch(group_norm_silu_fused_kernel<T, kPack>, dim3(s.groups, s.samples), dim3(fused_threads()),
                          fused_shared_bytes(), stream, a);
        const dim3 grid(chunks(), s.samples), block(kChunkThreads);
        const int each = int(pixels_per_chunk());
        auto* moments = static_cast<float2*>(workspace);
        const cudaError_t status = launch(group_norm_moments_kernel<T, kPack>, grid, block,
                                          kChunkThreads * sizeof(float2), stream, a, moments, each);
        if (status != cudaSuccess) return status;
        return launch(group_norm_silu_apply_kernel<T, kPack>, grid, block, s.groups * sizeof(float2), stream, a,
                      moments, each);
    }
};

// Calls f with the tiling for the element type: 16-byte packets where a group is a whole number of them, else single
// values. f returns an int64_t.
template <class F>
int64_t with_tiling(int dtype, const GroupNormShape& s, F&& f) {
    const auto choose = [&](auto element) {
        using T = decltype(element);
        const bool packets = s.valid() && s.width() % kPacketSize<T> == 0;
        return packets ? f(element, Tiling<T, kPacketSize<T>>{s}) : f(element, Tiling<T, 1>{s});
    };
    if (dtype == MRSI_FAST_FLOAT32) return choose(float{});
    if (dtype == MRSI_FAST_FLOAT16) return choose(__half{});
    return choose(__nv_bfloat16{});
}

bool known(int dtype) { return dtype >= MRSI_FAST_FLOAT32 && dtype <= MRSI_FAST_BFLOAT16; }

}  // namespace
}  // namespace mrsi_fast

extern "C" int64_t mrsi_fast_cuda_group_norm_silu_workspace(const MrsiFastCudaGroupNormSilu* request) {
    using namespace mrsi_fast;
    const auto& r = *request;
    if (!known(r.dtype)) return -1;
    return with_tiling(r.dtype, {r.samples, r.channels, r.pixels, r.groups},
                       [](auto, const auto& tiling) { return tiling.workspace_bytes(); });
}

extern "C" int mrsi_fast_cuda_group_norm_silu(const MrsiFastCudaGroupNormSilu* request, void* stream) {
    using namespace mrsi_fast;
    const auto& r = *request;
    if (!known(r.dtype)) return cudaErrorInvalidValue;
    return int(with_tiling(r.dtype, {r.samples, r.channels, r.pixels, r.groups}, [&](auto element, const auto& tiling) {
        using T = decltype(element);
        const auto of = [](const void* p) { return static_cast<const T*>(p); };
        const GroupNormSiLUArguments<T> arguments{
            of(r.x),         of(r.weight),         of(r.bias),      of(r.scale),   of(r.shift),   of(r.conv_bias),
            of(r.embedding), static_cast<T*>(r.y), int(r.channels), int(r.pixels), int(r.groups), r.eps};
        return int64_t(tiling.run(arguments, r.workspace, static_cast<cudaStream_t>(stream)));
    }));
}
