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

// The kPack neighbouring channels of one group that a thread works on, at every pixel it visits.
template <int kPack>
struct Column {
  float addend[kPack];  // conv_bias + embedding
  float pivot;

  template <class T>
  __device__ __forceinline__ void load(const GroupNormSiLUArguments<T>& a, int sample, int channel) {
    const int first = channel - channel % (a.channels / a.groups);
    pivot = to_float(a.x[size_t(sample) * a.pixels * a.channels + first]) + addend_of(a, sample, first);
#pragma unroll
    for (int i = 0; i < kPack; ++i) addend[i] = addend_of(a, sample, channel + i);
  }

  template <class T>
  __device__ __forceinline__ static float addend_of(const GroupNormSiLUArguments<T>& a, int sample, int channel) {
    float sum = a.conv_bias ? to_float(a.conv_bias[channel]) : 0.f;
    if (a.embedding) sum += to_float(a.embedding[size_t(sample) * a.channels + channel]);
    return sum;
  }

  // Values of one packet, relative to the pivot.
  template <class T>
  __device__ __forceinline__ void shifted(const Packet<T, kPack>& packet, float (&d)[kPack]) const {
    packet.unpack(d);
#pragma unroll
    for (int i = 0; i < kPack; ++i) d[i] = (d[i] + addend[i]) - pivot;
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
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      const float film = a.scale ? 1.f + to_float(a.scale[row + i]) : 1.f;
      const float shift = a.shift ? to_float(a.shift[row + i]) : 0.f;
      gain[i] = inverse_sd * (to_float(a.weight[channel + i]) * film);
      offset[i] = fmaf(-mean, gain[i], fmaf(to_float(a.bias[channel + i]), film, shift));
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

__device__ __forceinline__ float inverse_sd(float m2, float count, float eps) { return 1.f / sqrtf(m2 / count + eps); }

// Sum over the block in a fixed order, returned to every thread. `scratch` holds one float per warp, used once.
__device__ __forceinline__ float block_sum(float v, float* scratch) {
#pragma unroll
  for (int lane = 16; lane > 0; lane >>= 1) v += __shfl_xor_sync(kFullWarp, v, lane);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
  __syncthreads();
  float total = 0.f;
  for (int warp = 0; warp < int(blockDim.x) / 32; ++warp) total += scratch[warp];
  return total;
}

// One block per (group, sample). The group stays in shared memory between the passes; each thread reads back only what
// it wrote itself, so the tile needs no barrier.
template <class T, int kPack>
__global__ void __launch_bounds__(kFusedMaxThreads, 2)
    group_norm_silu_fused_kernel(const GroupNormSiLUArguments<T> a) {
  MRSI_FAST_DYNAMIC_SHARED(unsigned char, shared);
  const int width = a.channels / a.groups, columns = width / kPack, rows = blockDim.x / columns;
  const int column = threadIdx.x % columns;
  const int first_pixel = int(threadIdx.x) / columns < rows ? int(threadIdx.x) / columns : a.pixels;
  const int group = blockIdx.x, sample = blockIdx.y, channel = group * width + column * kPack;
  T* tile = reinterpret_cast<T*>(shared);
  float* scratch = reinterpret_cast<float*>(shared + ((size_t(a.pixels) * width * sizeof(T) + 15) & ~size_t(15)));
  const size_t origin = size_t(sample) * a.pixels * a.channels + channel;
  const T* __restrict__ x = a.x + origin;
  const float count = float(a.pixels) * width;

  Column<kPack> values;
  values.load(a, sample, channel);
  float d[kPack], sum = 0.f;
#pragma unroll 4
  for (int p = first_pixel; p < a.pixels; p += rows) {
    const auto packet = Packet<T, kPack>::load(x + size_t(p) * a.channels);
    packet.store(tile + (p * columns + column) * kPack);
    values.shifted(packet, d);
#pragma unroll
    for (int i = 0; i < kPack; ++i) sum += d[i];
  }
  const float mean = block_sum(sum, scratch) / count;

  float m2 = 0.f;
#pragma unroll 4
  for (int p = first_pixel; p < a.pixels; p += rows) {
    values.shifted(Packet<T, kPack>::load(tile + (p * columns + column) * kPack), d);
#pragma unroll
    for (int i = 0; i < kPack; ++i) m2 = fmaf(d[i] - mean, d[i] - mean, m2);
  }
  m2 = block_sum(m2, scratch + kFusedMaxThreads / 32);

  Affine<kPack> affine;
  affine.load(a, sample, channel, mean, inverse_sd(m2, count, a.eps));
  T* __restrict__ y = a.y + origin;
#pragma unroll 2
  for (int p = first_pixel; p < a.pixels; p += rows) {
    values.shifted(Packet<T, kPack>::load(tile + (p * columns + column) * kPack), d);
    affine.apply(d);
    Packet<T, kPack>::pack(d).store(y + size_t(p) * a.channels);
  }
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
#pragma unroll 4
    for (int p = row; p < pixels; p += rows) {
      values.shifted(Packet<T, kPack>::load(x + size_t(p) * a.channels), d);
#pragma unroll
      for (int i = 0; i < kPack; ++i) sum += d[i];
    }
    const int visited = row < pixels ? (pixels - row + rows - 1) / rows : 0;
    const float mean = visited ? sum / float(visited * kPack) : 0.f;
#pragma unroll 4
    for (int p = row; p < pixels; p += rows) {
      values.shifted(Packet<T, kPack>::load(x + size_t(p) * a.channels), d);
#pragma unroll
      for (int i = 0; i < kPack; ++i) m2 = fmaf(d[i] - mean, d[i] - mean, m2);
    }
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
#pragma unroll 2
  for (int p = row; p < pixels; p += rows) {
    values.shifted(Packet<T, kPack>::load(x + size_t(p) * a.channels), d);
    affine.apply(d);
    Packet<T, kPack>::pack(d).store(y + size_t(p) * a.channels);
  }
}

}  // namespace mrsi_fast
