// y = silu(group_norm(x + conv_bias + embedding) (1 + scale) + shift) over channels-last maps x [N, pixels, C].
//
// Statistics are two-pass on values shifted by a pivot (the group's first value): x - pivot is exact when |mean| >> sd
// (Sterbenz), so a mean of 1000 sd costs no digits, and nothing is ever computed as E[x^2] - E[x]^2. Every sum has a
// fixed order: results are bit-equal from run to run. Whoever can keep one (sample, group) in shared memory uses the
// fused kernel; larger maps use two kernels with per-chunk moments merged by Chan, Golub & LeVeque (1979).
#pragma once
#include "mrsi_fast/launch.cuh"
#include "mrsi_fast/vector.cuh"

namespace mrsi_fast {

constexpr unsigned kFullWarp = 0xffffffffu;
constexpr int kFusedMaxThreads = 512;
constexpr int kChunkThreads = 256;

template <class T>
struct GroupNormSiLUArguments {
    const T* x;          // [N, pixels, C]
    const T* weight;     // [C]
    const T* bias;       // [C]
    const T* scale;      // [N, C] or null
    const T* shift;      // [N, C] or null
    const T* conv_bias;  // [C] or null: bias of the convolution that made x
    const T* embedding;  // [N, C] or null: added to x before the normalisation
    T* y;                // [N, pixels, C], apart from x
    int channels, pixels, groups;
    float eps;
};

// Adds the packet of a vector at `channel` to v; a null vector adds nothing.
template <class T, int kPack>
__device__ __forceinline__ void add_vector(const T* vector, size_t channel, float (&v)[kPack]) {
    if (vector == nullptr) return;
    float values[kPack];
    Packet<T, kPack>::load(vector + channel).unpack(values);
#pragma unroll
    for (int i = 0; i < kPack; ++i) v[i] += values[i];
}

// The kPack neighbouring channels of one group that a thread works on, at every pixel it visits.
template <int kPack>
struct Column {
    float addend[kPack];  // conv_bias + embedding, relative to that of the group's first channel
    float pivot;          // x at the group's first channel and pixel

    template <class T>
    __device__ __forceinline__ void load(const GroupNormSiLUArguments<T>& a, int sample, int channel) {
        const int first = channel - channel % (a.channels / a.groups);
        const size_t row = size_t(sample) * a.channels;
        pivot = to_float(a.x[row * a.pixels + first]);
        float origin = 0.f;
        if (a.conv_bias) origin += to_float(a.conv_bias[first]);
        if (a.embedding) origin += to_float(a.embedding[row + first]);
#pragma unroll
        for (int i = 0; i < kPack; ++i) addend[i] = -origin;
        add_vector(a.conv_bias, channel, addend);
        add_vector(a.embedding, row + channel, addend);
    }

    // Values of one packet, relative to the pivot: x - pivot is exact where it matters, so it comes first.
    template <class T>
    __device__ __forceinline__ void shifted(const Packet<T, kPack>& packet, float (&d)[kPack]) const {
        packet.unpack(d);
#pragma unroll
        for (int i = 0; i < kPack; ++i) d[i] = (d[i] - pivot) + addend[i];
    }
};

// The normalisation of a column as one multiply-add per value: gain d + offset, d relative to the pivot.
template <int kPack>
struct Affine {
    float gain[kPack], offset[kPack];

    template <class T>
    __device__ __forceinline__ void load(const GroupNormSiLUArguments<T>& a, int sample, int channel, float mean,
                                         float inverse_sd) {
        const size_t row = size_t(sample) * a.channels + channel;
        float film[kPack], weight[kPack] = {}, bias[kPack] = {}, shift[kPack] = {};
#pragma unroll
        for (int i = 0; i < kPack; ++i) film[i] = 1.f;
        add_vector(a.scale, row, film);
        add_vector(a.shift, row, shift);
        add_vector(a.weight, channel, weight);
        add_vector(a.bias, channel, bias);
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
            gain[i] = inverse_sd * (weight[i] * film[i]);
            offset[i] = fmaf(-mean, gain[i], fmaf(bias[i], film[i], shift[i]));
        }
    }

    __device__ __forceinline__ void apply(float (&d)[kPack]) const {
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
            const float t = fmaf(d[i], gain[i], offset[i]);
            d[i] = t / (1.f + expf(-t));
        }
    }
};

// use(p, packet at p) for p = first, first + step, ... below end. `from` is the address of pixel 0, `stride` the distance
// of two pixels. kBatch loads are under way before the first is used: the compiler does not do that across its own exits.
template <int kBatch, class T, int kPack, class Use>
__device__ __forceinline__ void for_packets(const T* from, int stride, int first, int end, int step, Use use) {
    int p = first;
    for (; p + (kBatch - 1) * step < end; p += kBatch * step) {
        Packet<T, kPack> packets[kBatch];
#pragma unroll
        for (int j = 0; j < kBatch; ++j) packets[j] = Packet<T, kPack>::load(from + size_t(p + j * step) * stride);
#pragma unroll
        for (int j = 0; j < kBatch; ++j) use(p + j * step, packets[j]);
    }
    for (; p < end; p += step) use(p, Packet<T, kPack>::load(from + size_t(p) * stride));
}

__device__ __forceinline__ float inverse_sd(float m2, float count, float eps) { return 1.f / sqrtf(m2 / count + eps); }

// Sum over the block in a fixed order, returned to every thread. `scratch` holds one float per warp, used once.
__device__ __forceinline__ float block_sum(float v, float* scratch) {
#pragma unroll
    for (int lane = 16; lane > 0; lane >>= 1) v += __shfl_xor_sync(kFullWarp, v, lane);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();  // the sum of every warp is there
    float total = 0.f;
    for (int warp = 0; warp < int(blockDim.x) / 32; ++warp) total += scratch[warp];
    return total;
}

// One block per (group, sample). The group stays in shared memory between the passes; each thread reads back only what
// it wrote itself, so the tile needs no barrier.
template <class T, int kPack>
__global__ void __launch_bounds__(kFusedMaxThreads, 2) group_norm_silu_fused_kernel(const GroupNormSiLUArguments<T> a) {
    MRSI_FAST_DYNAMIC_SHARED(unsigned char, shared);
    const int width = a.channels / a.groups, columns = width / kPack, rows = blockDim.x / columns;
    const int column = threadIdx.x % columns;
    const int first_pixel = int(threadIdx.x) / columns < rows ? int(threadIdx.x) / columns : a.pixels;
    const int group = blockIdx.x, sample = blockIdx.y, channel = group * width + column * kPack;
    T* tile = reinterpret_cast<T*>(shared) + column * kPack;
    float* scratch = reinterpret_cast<float*>(shared + ((size_t(a.pixels) * width * sizeof(T) + 15) & ~size_t(15)));
    const size_t origin = size_t(sample) * a.pixels * a.channels + channel;
    const T* __restrict__ x = a.x + origin;
    const float count = float(a.pixels) * width;

    Column<kPack> values;
    values.load(a, sample, channel);
    float d[kPack], sum = 0.f;
    for_packets<4, T, kPack>(x, a.channels, first_pixel, a.pixels, rows, [&](int p, const Packet<T, kPack>& packet) {
        packet.store(tile + p * width);
        values.shifted(packet, d);
#pragma unroll
        for (int i = 0; i < kPack; ++i) sum += d[i];
    });
    const float mean = block_sum(sum, scratch) / count;

    float m2 = 0.f;
    for_packets<2, T, kPack>(tile, width, first_pixel, a.pixels, rows, [&](int, const Packet<T, kPack>& packet) {
        values.shifted(packet, d);
#pragma unroll
        for (int i = 0; i < kPack; ++i) m2 = fmaf(d[i] - mean, d[i] - mean, m2);
    });
    m2 = block_sum(m2, scratch + kFusedMaxThreads / 32);

    Affine<kPack> affine;
    affine.load(a, sample, channel, mean, inverse_sd(m2, count, a.eps));
    T* __restrict__ y = a.y + origin;
    for_packets<2, T, kPack>(tile, width, first_pixel, a.pixels, rows, [&](int p, const Packet<T, kPack>& packet) {
        values.shifted(packet, d);
        affine.apply(d);
        Packet<T, kPack>::pack(d).store(y + size_t(p) * a.channels);
    });
}

// Count, mean and sum of squared deviations of a set of values.
struct Moments {
    float count, mean, m2;

    __device__ __forceinline__ void merge(const Moments& other) {
        const float total = count + other.count;
        if (other.count == 0.f) return;
        const float delta = other.mean - mean, part = other.count / total;
        mean = fmaf(delta, part, mean);
        m2 += other.m2 + delta * delta * (count * part);
        count = total;
    }

    // After it, lane 0 holds the moments of the whole warp.
    __device__ __forceinline__ void merge_warp() {
#pragma unroll
        for (int lane = 16; lane > 0; lane >>= 1) {
            Moments other;
            other.count = __shfl_down_sync(kFullWarp, count, lane);
            other.mean = __shfl_down_sync(kFullWarp, mean, lane);
            other.m2 = __shfl_down_sync(kFullWarp, m2, lane);
            merge(other);
        }
    }
};

__device__ __forceinline__ int pixels_of_chunk(int chunk, int pixels_per_chunk, int pixels) {
    return min(pixels, (chunk + 1) * pixels_per_chunk) - chunk * pixels_per_chunk;
}

// grid (chunks, N): moments [N, chunks, groups] of (mean relative to the pivot, m2) of a chunk of pixels.
// Each thread makes two passes over its own few packets; the second pass reads them from L1.
template <class T, int kPack>
__global__ void __launch_bounds__(kChunkThreads, 4)
    group_norm_moments_kernel(const GroupNormSiLUArguments<T> a, float2* __restrict__ moments, int pixels_per_chunk) {
    MRSI_FAST_DYNAMIC_SHARED(float2, shared);  // [rows, columns] of (mean, m2)
    const int columns = a.channels / kPack, rows = kChunkThreads / columns;
    const int column = threadIdx.x % columns, row = threadIdx.x / columns;
    const int chunk = blockIdx.x, sample = blockIdx.y;
    const int pixels = pixels_of_chunk(chunk, pixels_per_chunk, a.pixels);
    const T* __restrict__ x =
        a.x + (size_t(sample) * a.pixels + size_t(chunk) * pixels_per_chunk) * a.channels + column * kPack;

    if (row < rows) {
        Column<kPack> values;
        values.load(a, sample, column * kPack);
        float d[kPack], sum = 0.f, m2 = 0.f;
        for_packets<4, T, kPack>(x, a.channels, row, pixels, rows, [&](int, const Packet<T, kPack>& packet) {
            values.shifted(packet, d);
#pragma unroll
            for (int i = 0; i < kPack; ++i) sum += d[i];
        });
        const int visited = row < pixels ? (pixels - row + rows - 1) / rows : 0;
        const float mean = visited ? sum / float(visited * kPack) : 0.f;
        for_packets<4, T, kPack>(x, a.channels, row, pixels, rows, [&](int, const Packet<T, kPack>& packet) {
            values.shifted(packet, d);
#pragma unroll
            for (int i = 0; i < kPack; ++i) m2 = fmaf(d[i] - mean, d[i] - mean, m2);
        });
        shared[row * columns + column] = make_float2(mean, m2);
    }
    __syncthreads();

    const int group_columns = columns / a.groups;
    for (int group = threadIdx.x / 32; group < a.groups; group += kChunkThreads / 32) {
        Moments all = {0.f, 0.f, 0.f};
        for (int i = threadIdx.x % 32; i < rows * group_columns; i += 32) {
            const int r = i / group_columns;
            const int visited = r < pixels ? (pixels - r + rows - 1) / rows : 0;
            const float2 one = shared[r * columns + group * group_columns + i % group_columns];
            all.merge({float(visited * kPack), one.x, one.y});
        }
        all.merge_warp();
        if (threadIdx.x % 32 == 0)
            moments[(size_t(sample) * gridDim.x + chunk) * a.groups + group] = make_float2(all.mean, all.m2);
    }
}

// grid (chunks, N): every block merges the moments of its sample again (they are few), then writes its chunk.
template <class T, int kPack>
__global__ void __launch_bounds__(kChunkThreads, 4)
    group_norm_silu_apply_kernel(const GroupNormSiLUArguments<T> a, const float2* __restrict__ moments,
                                 int pixels_per_chunk) {
    MRSI_FAST_DYNAMIC_SHARED(float2, shared);  // [groups] of (mean relative to the pivot, 1 / sd)
    const int width = a.channels / a.groups, columns = a.channels / kPack, rows = kChunkThreads / columns;
    const int chunk = blockIdx.x, sample = blockIdx.y, chunks = gridDim.x;
    for (int group = threadIdx.x / 32; group < a.groups; group += kChunkThreads / 32) {
        Moments all = {0.f, 0.f, 0.f};
        for (int i = threadIdx.x % 32; i < chunks; i += 32) {
            const float2 one = moments[(size_t(sample) * chunks + i) * a.groups + group];
            all.merge({float(pixels_of_chunk(i, pixels_per_chunk, a.pixels)) * width, one.x, one.y});
        }
        all.merge_warp();
        if (threadIdx.x % 32 == 0) shared[group] = make_float2(all.mean, inverse_sd(all.m2, all.count, a.eps));
    }
    __syncthreads();

    const int column = threadIdx.x % columns, row = threadIdx.x / columns;
    if (row >= rows) return;
    Column<kPack> values;
    values.load(a, sample, column * kPack);
    Affine<kPack> affine;
    const float2 statistics = shared[column * kPack / width];
    affine.load(a, sample, column * kPack, statistics.x, statistics.y);
    const size_t origin = (size_t(sample) * a.pixels + size_t(chunk) * pixels_per_chunk) * a.channels + column * kPack;
    const T* __restrict__ x = a.x + origin;
    T* __restrict__ y = a.y + origin;
    const int pixels = pixels_of_chunk(chunk, pixels_per_chunk, a.pixels);
    float d[kPack];
    for_packets<2, T, kPack>(x, a.channels, row, pixels, rows, [&](int p, const Packet<T, kPack>& packet) {
        values.shifted(packet, d);
        affine.apply(d);
        Packet<T, kPack>::pack(d).store(y + size_t(p) * a.channels);
    });
}

}  // namespace mrsi_fast
