// Launcher of self_attention: decides from the shape alone whether the keys are split over blocks.
#include "mrsi_fast/self_attention.cuh"

#include "mrsi_fast/cuda_launchers.h"

namespace mrsi_fast {
namespace {

constexpr int64_t kMaxTokens = 4096;
// Fewer blocks than this leave most of a GPU idle (A100 to H100 have 108 to 132 multiprocessors).
constexpr int64_t kWantedBlocks = 96;

struct AttentionShape {
    int64_t samples, tokens, heads, head_size;

    bool supported(int dtype) const {
        return (dtype == MRSI_FAST_FLOAT16 || dtype == MRSI_FAST_BFLOAT16) && (head_size == 32 || head_size == 64) &&
               samples >= 0 && tokens >= 0 && tokens <= kMaxTokens && heads > 0 && samples * heads <= 65535 &&
               rows() * head_size <= INT32_MAX;
    }
    int64_t rows() const { return samples * heads * tokens; }
    int64_t query_blocks() const { return (tokens + kAttentionQueries - 1) / kAttentionQueries; }
    int64_t key_steps() const { return (tokens + kAttentionKeys - 1) / kAttentionKeys; }
    int64_t steps_per_split() const {
        const int64_t blocks = query_blocks() * samples * heads;
        if (blocks == 0 || blocks >= kWantedBlocks) return key_steps();
        const int64_t splits = min(key_steps(), (kWantedBlocks + blocks - 1) / blocks);
        return (key_steps() + splits - 1) / splits;
    }
    int64_t splits() const { return tokens ? (key_steps() + steps_per_split() - 1) / steps_per_split() : 1; }
    int64_t partial_bytes() const { return splits() * rows() * head_size * int64_t(sizeof(float)); }
    int64_t workspace_bytes() const {
        return splits() == 1 ? 0 : partial_bytes() + splits() * rows() * int64_t(sizeof(float2));
    }
};

template <class T, int kHead>
cudaError_t run_attention(AttentionArguments a, const AttentionShape& s, cudaStream_t stream) {
    const dim3 grid(s.query_blocks(), s.samples * s.heads, s.splits());
    const cudaError_t status = launch(self_attention_kernel<T, kHead>, grid, dim3(kAttentionThreads),
                                      AttentionTile<kHead>::kSharedBytes, stream, a);
    if (status != cudaSuccess || s.splits() == 1) return status;
    const int64_t threads = s.rows() * (kHead / 8);
    return launch(self_attention_combine_kernel<T, kHead>, dim3((threads + kCombineThreads - 1) / kCombineThreads),
                  dim3(kCombineThreads), 0, stream, a, int(s.splits()), int(s.rows()));
}

}  // namespace
}  // namespace mrsi_fast

extern "C" int64_t mrsi_fast_cuda_self_attention_workspace(int dtype, int64_t samples, int64_t tokens, int64_t heads,
                                                           int64_t head_size) {
    const mrsi_fast::AttentionShape shape{samples, tokens, heads, head_size};
    return shape.supported(dtype) ? shape.workspace_bytes() : -1;
}

extern "C" int mrsi_fast_cuda_self_attention(int dtype, const void* qkv, void* out, void* workspace, int64_t samples,
                                             int64_t tokens, int64_t heads, int64_t head_size, float scale,
                                             void* stream) {
    using namespace mrsi_fast;
    const AttentionShape shape{samples, tokens, heads, head_size};
    if (!shape.supported(dtype)) return cudaErrorInvalidValue;
    if (samples == 0 || tokens == 0) return cudaSuccess;
    constexpr float kLog2e = 1.4426950408889634f;
    const bool split = shape.splits() > 1;
    auto* softmax = reinterpret_cast<float2*>(static_cast<char*>(workspace) + shape.partial_bytes());
    const AttentionArguments arguments{
        qkv,         out,        split ? static_cast<float*>(workspace) : nullptr, split ? softmax : nullptr,
        int(tokens), int(heads), int(shape.steps_per_split()) * kAttentionKeys,    scale * kLog2e};
    const auto handle = static_cast<cudaStream_t>(stream);
    if (dtype == MRSI_FAST_FLOAT16)
        return head_size == 32 ? run_attention<__half, 32>(arguments, shape, handle)
                               : run_attention<__half, 64>(arguments, shape, handle);
    return head_size == 32 ? run_attention<__nv_bfloat16, 32>(arguments, shape, handle)
                           : run_attention<__nv_bfloat16, 64>(arguments, shape, handle);
}
