// Self-attention over short sequences, read straight from the packed projection qkv [N, tokens, 3, heads, kHead].
//
// One block of four warps takes 64 queries of one head and walks over the keys 64 at a time with an online softmax
// (Milakov & Gimelshein 2018; Dao 2023): scores and sums in float32, products on the tensor cores in the input's type.
// Where that would give too few blocks for a GPU, the keys are split over blocks too; the partial results are then
// combined by a second kernel in a fixed order, so the result does not depend on which block finishes first.
#pragma once
#include "mrsi_fast/launch.cuh"
#include "mrsi_fast/prim.cuh"
#include "mrsi_fast/vector.cuh"

namespace mrsi_fast {

constexpr int kAttentionThreads = 128;
constexpr int kAttentionQueries = 64;  // of one block, 16 of one warp
constexpr int kAttentionKeys = 64;     // of one step
constexpr int kCombineThreads = 128;

struct AttentionArguments {
    const void* qkv;  // [N, tokens, 3, heads, kHead]
    void* out;        // [N, tokens, heads, kHead]
    float* partial;   // [splits, N heads, tokens, kHead] unnormalised output, or null without splits
    float2* softmax;  // [splits, N heads, tokens] (maximum, sum) of the scores in units of log2(e), or null
    int tokens, heads;
    int keys_per_split;  // a multiple of kAttentionKeys
    float scale_log2e;   // softmax scale times log2(e)
};

// Rows are padded by 16 bytes: the eight rows that ldmatrix reads at once then lie in eight different 16-byte columns.
template <int kHead>
struct AttentionTile {
    static constexpr int kPitch = kHead + 8;
    static constexpr int kPackets = kHead / 8;
    static constexpr size_t kSharedBytes = size_t(kAttentionQueries + 4 * kAttentionKeys) * kPitch * 2;

    // Starts the copy of 64 rows; rows from `end` on become zero.
    template <class T>
    __device__ __forceinline__ static void copy_rows(T* tile, const T* rows, size_t row_stride, int first, int end) {
#pragma unroll
        for (int i = threadIdx.x; i < 64 * kPackets; i += kAttentionThreads) {
            const int r = i / kPackets, c = i % kPackets * 8;
            const bool valid = first + r < end;
            prim::cp_async_16(tile + r * kPitch + c, rows + (valid ? first + r : 0) * row_stride + c, valid);
        }
    }
};

// A warp's 16 queries: fragments of the queries, of the output sum, and the state of the online softmax of the two rows
// (lane / 4 and lane / 4 + 8) that a lane shares with three neighbours.
template <class T, int kHead>
struct QueryRows {
    uint32_t query[kHead / 16][4];
    float sum[kHead / 8][4] = {};
    float maximum[2] = {-INFINITY, -INFINITY};
    float total[2] = {0.f, 0.f};  // of this lane's columns only, until finish()

    using Tile = AttentionTile<kHead>;

    __device__ __forceinline__ void load(const T* tile, int warp, int lane) {
#pragma unroll
        for (int k = 0; k < kHead / 16; ++k)
            prim::ldmatrix_x4(query[k], tile + (warp * 16 + lane % 16) * Tile::kPitch + k * 16 + lane / 16 * 8);
    }

    __device__ __forceinline__ void scores(const T* keys, int lane, float (&s)[kAttentionKeys / 8][4]) const {
#pragma unroll
        for (int k = 0; k < kHead / 16; ++k)
#pragma unroll
            for (int n = 0; n < kAttentionKeys / 16; ++n) {
                uint32_t b[4];
                prim::ldmatrix_x4(
                    b, keys + (n * 16 + lane % 8 + lane / 16 * 8) * Tile::kPitch + k * 16 + lane / 8 % 2 * 8);
                const uint32_t even[2] = {b[0], b[1]}, odd[2] = {b[2], b[3]};
                prim::mma_16816(T{}, s[2 * n], query[k], even);
                prim::mma_16816(T{}, s[2 * n + 1], query[k], odd);
            }
    }

    // Turns scores into weights relative to the new maximum. `valid` keys count; only a last step has fewer than 64.
    __device__ __forceinline__ void softmax(float (&s)[kAttentionKeys / 8][4], int lane, int valid, float scale_log2e) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float highest = maximum[r];
#pragma unroll
            for (int n = 0; n < kAttentionKeys / 8; ++n)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    float& x = s[n][2 * r + e];
                    x *= scale_log2e;
                    if (valid < kAttentionKeys && n * 8 + lane % 4 * 2 + e >= valid) x = -INFINITY;
                    highest = fmaxf(highest, x);
                }
            highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 1));
            highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 2));
            const float keep = exp2f(maximum[r] - highest);
            maximum[r] = highest;
            total[r] *= keep;
#pragma unroll
            for (int n = 0; n < kHead / 8; ++n) {
                sum[n][2 * r] *= keep;
                sum[n][2 * r + 1] *= keep;
            }
#pragma unroll
            for (int n = 0; n < kAttentionKeys / 8; ++n)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    float& x = s[n][2 * r + e];
                    x = exp2f(x - highest);
                    total[r] += x;
                }
        }
    }

    __device__ __forceinline__ void accumulate(const T* values, int lane, const float (&s)[kAttentionKeys / 8][4]) {
#pragma unroll
        for (int k = 0; k < kAttentionKeys / 16; ++k) {
            const uint32_t weights[4] = {pack_pair<T>(s[2 * k][0], s[2 * k][1]), pack_pair<T>(s[2 * k][2], s[2 * k][3]),
                                         pack_pair<T>(s[2 * k + 1][0], s[2 * k + 1][1]),
                                         pack_pair<T>(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
            for (int n = 0; n < kHead / 16; ++n) {
                uint32_t b[4];
                prim::ldmatrix_x4_trans(b, values + (k * 16 + lane % 16) * Tile::kPitch + n * 16 + lane / 16 * 8);
                const uint32_t even[2] = {b[0], b[1]}, odd[2] = {b[2], b[3]};
                prim::mma_16816(T{}, sum[2 * n], weights, even);
                prim::mma_16816(T{}, sum[2 * n + 1], weights, odd);
            }
        }
    }

    // Completes `total` over the four lanes of a row.
    __device__ __forceinline__ void finish() {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            total[r] += __shfl_xor_sync(0xffffffffu, total[r], 1);
            total[r] += __shfl_xor_sync(0xffffffffu, total[r], 2);
        }
    }

    // Writes the normalised rows in 16-byte pieces, by way of this warp's own rows of the query tile.
    __device__ __forceinline__ void store(T* tile, T* out, size_t row_stride, int first, int tokens, int warp,
                                          int lane) const {
        T* rows = tile + warp * 16 * Tile::kPitch;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const float inverse = 1.f / total[r];
#pragma unroll
            for (int n = 0; n < kHead / 8; ++n) {
                T* pair = rows + (lane / 4 + r * 8) * Tile::kPitch + n * 8 + lane % 4 * 2;
                *reinterpret_cast<uint32_t*>(pair) = pack_pair<T>(sum[n][2 * r] * inverse, sum[n][2 * r + 1] * inverse);
            }
        }
        __syncwarp();
#pragma unroll
        for (int i = lane; i < 16 * Tile::kPackets; i += 32) {
            const int r = i / Tile::kPackets, c = i % Tile::kPackets * 8, token = first + warp * 16 + r;
            const uint4 packet = *reinterpret_cast<const uint4*>(rows + r * Tile::kPitch + c);
            // The intrinsic is one 128-bit store; nvcc 13.0 splits an assignment into four here on sm_80 to sm_90.
            if (token < tokens) __stwb(reinterpret_cast<uint4*>(out + token * row_stride + c), packet);
        }
    }

    __device__ __forceinline__ void store_partial(float* partial, float2* softmax, int first, int tokens, int warp,
                                                  int lane) const {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int token = first + warp * 16 + lane / 4 + r * 8;
            if (token >= tokens) continue;
#pragma unroll
            for (int n = 0; n < kHead / 8; ++n)
                __stwb(reinterpret_cast<float2*>(partial + size_t(token) * kHead + n * 8 + lane % 4 * 2),
                       make_float2(sum[n][2 * r], sum[n][2 * r + 1]));
            if (lane % 4 == 0) softmax[token] = make_float2(maximum[r], total[r]);
        }
    }
};

// grid (blocks of 64 queries, N heads, splits). Keys and values are copied one step ahead (double buffering).
template <class T, int kHead>
__global__ void __launch_bounds__(kAttentionThreads) self_attention_kernel(const AttentionArguments a) {
    using Tile = AttentionTile<kHead>;
    constexpr int kTile = kAttentionKeys * Tile::kPitch;
    MRSI_FAST_DYNAMIC_SHARED(T, shared);
    T* queries = shared;
    T* keys = shared + kTile;        // two tiles
    T* values = shared + 3 * kTile;  // two tiles
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int sample = blockIdx.y / a.heads, head = blockIdx.y % a.heads;
    const size_t part = size_t(a.heads) * kHead, row = 3 * part;
    const T* __restrict__ q = static_cast<const T*>(a.qkv) + sample * (a.tokens * row) + size_t(head) * kHead;
    const int first_query = blockIdx.x * kAttentionQueries;
    const int begin = blockIdx.z * a.keys_per_split, end = min(a.tokens, begin + a.keys_per_split);

    Tile::copy_rows(queries, q, row, first_query, a.tokens);
    Tile::copy_rows(keys, q + part, row, begin, end);
    Tile::copy_rows(values, q + 2 * part, row, begin, end);
    prim::cp_async_commit();

    QueryRows<T, kHead> rows;
    for (int first = begin, buffer = 0; first < end; first += kAttentionKeys, buffer ^= 1) {
        const int next = first + kAttentionKeys;
        if (next < end) {
            Tile::copy_rows(keys + (buffer ^ 1) * kTile, q + part, row, next, end);
            Tile::copy_rows(values + (buffer ^ 1) * kTile, q + 2 * part, row, next, end);
            prim::cp_async_commit();
            prim::cp_async_wait<1>();
        } else {
            prim::cp_async_wait<0>();
        }
        __syncthreads();  // the tiles of this step are complete
        if (first == begin) rows.load(queries, warp, lane);
        float s[kAttentionKeys / 8][4] = {};
        rows.scores(keys + buffer * kTile, lane, s);
        rows.softmax(s, lane, end - first, a.scale_log2e);
        rows.accumulate(values + buffer * kTile, lane, s);
        __syncthreads();  // nobody reads these tiles any more: the next step may fill them
    }
    rows.finish();

    if (a.partial == nullptr) {
        T* out = static_cast<T*>(a.out) + (size_t(sample) * a.tokens * a.heads + head) * kHead;
        rows.store(queries, out, part, first_query, a.tokens, warp, lane);
    } else {
        const size_t row0 = (size_t(blockIdx.z) * gridDim.y + blockIdx.y) * a.tokens;
        rows.store_partial(a.partial + row0 * kHead, a.softmax + row0, first_query, a.tokens, warp, lane);
    }
}

// One thread per 8 channels of one row: out = sum of 2^(m_i - m) partial_i over sum of 2^(m_i - m) total_i.
template <class T, int kHead>
__global__ void __launch_bounds__(kCombineThreads)
    self_attention_combine_kernel(const AttentionArguments a, int splits, int rows) {
    constexpr int kPackets = kHead / 8;
    const int index = blockIdx.x * kCombineThreads + threadIdx.x;
    const int row = index / kPackets, c = index % kPackets * 8;
    if (row >= rows) return;
    float maximum = -INFINITY;
    for (int i = 0; i < splits; ++i) maximum = fmaxf(maximum, a.softmax[size_t(i) * rows + row].x);
    float total = 0.f, sum[8] = {};
    for (int i = 0; i < splits; ++i) {
        const float2 state = a.softmax[size_t(i) * rows + row];
        const float weight = exp2f(state.x - maximum);
        const float4* part = reinterpret_cast<const float4*>(a.partial + (size_t(i) * rows + row) * kHead + c);
        const float4 low = part[0], high = part[1];
        const float values[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
        total = fmaf(weight, state.y, total);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum[j] = fmaf(weight, values[j], sum[j]);
    }
    const float inverse = 1.f / total;
#pragma unroll
    for (int j = 0; j < 8; ++j) sum[j] *= inverse;
    const int token = row % a.tokens, head = row / a.tokens % a.heads, sample = row / a.tokens / a.heads;
    T* out = static_cast<T*>(a.out) + ((size_t(sample) * a.tokens + token) * a.heads + head) * kHead + c;
    Packet<T, 8>::pack(sum).store(out);
}

}  // namespace mrsi_fast
