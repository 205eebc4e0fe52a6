// One linear solver step of the sampling loop, with hard data consistency, in one pass over the state:
//   out = base_c base + P(now_c now + prev_c prev) + noise_c noise,   P(v) = v - Qx' (K . (Qx v Qy')) Qy  per slice.
//
// Qx [rank_x, width], Qy [rank_y, height] are orthonormal bases of what the acquisition measures along each axis, K is 1
// where the mode was kept (an elliptic support leaves the corners out). P removes the measured band from an estimate of
// the residual. P is linear, so projecting the combination of two
// estimates equals combining two projected ones. Coefficients [steps, 4] and the step's index lie in device memory: a
// captured graph replays the same launch for every step. A term with coefficient zero is left out, not multiplied.
#pragma once
#include "mrsi_fast/launch.cuh"
#include "mrsi_fast/vector.cuh"

namespace mrsi_fast {

constexpr int kSolverThreads = 256;

struct SolverStepArguments {
    const float *base, *now, *prev, *noise;  // [slices, width, height]; prev and noise may be null
    const float* coefficients;               // [steps, 4]: base, now, prev, noise
    const int64_t* step;                     // [1]
    const float *basis_x, *basis_y;          // [rank_x, width], [rank_y, height]; null without projection
    const float* kept;                       // [rank_x, rank_y] or null if all modes were measured
    float* out;                              // [slices, width, height]
    int64_t count;                           // slices width height
    int width, height, rank_x, rank_y;
};

// The step's coefficients, and the terms that they multiply.
template <int kPack>
struct SolverTerms {
    const SolverStepArguments& a;
    float base, now, prev, noise;

    __device__ __forceinline__ explicit SolverTerms(const SolverStepArguments& arguments) : a(arguments) {
        const float* c = a.coefficients + 4 * *a.step;
        base = c[0];
        now = c[1];
        prev = a.prev ? c[2] : 0.f;
        noise = a.noise ? c[3] : 0.f;
    }

    __device__ __forceinline__ static void add(float factor, const float* term, size_t at, float (&v)[kPack]) {
        if (factor == 0.f) return;
        float t[kPack];
        Packet<float, kPack>::load(term + at).unpack(t);
#pragma unroll
        for (int i = 0; i < kPack; ++i) v[i] = fmaf(factor, t[i], v[i]);
    }

    __device__ __forceinline__ void estimate(size_t at, float (&v)[kPack]) const {
#pragma unroll
        for (int i = 0; i < kPack; ++i) v[i] = 0.f;
        add(now, a.now, at, v);
        add(prev, a.prev, at, v);
    }

    __device__ __forceinline__ void finish(size_t at, float (&v)[kPack]) const {
        add(base, a.base, at, v);
        add(noise, a.noise, at, v);
        Packet<float, kPack>::pack(v).store(a.out + at);
    }
};

// Without projection: one packet a thread.
template <int kPack>
__global__ void __launch_bounds__(kSolverThreads) solver_step_kernel(const SolverStepArguments a) {
    const size_t at = (size_t(blockIdx.x) * kSolverThreads + threadIdx.x) * kPack;
    if (at >= size_t(a.count)) return;
    const SolverTerms<kPack> terms(a);
    float v[kPack];
    terms.estimate(at, v);
    terms.finish(at, v);
}

// store(i, y, sum over k of left(i, k) right(k, y)) for i < rows and packets y < columns. A thread takes two rows at a
// time, so that each packet of `right` is used twice; the order of the sum is that of k.
template <int kPack, class Left, class Right, class Store>
__device__ __forceinline__ void small_product(int rows, int inner, int columns, Left left, Right right, Store store) {
    const int packets = columns / kPack, items = (rows + 1) / 2 * packets;
    for (int item = threadIdx.x; item < items; item += kSolverThreads) {
        const int y = item % packets * kPack, first = item / packets * 2, second = min(first + 1, rows - 1);
        float r[kPack], sums[2][kPack] = {};
#pragma unroll 4
        for (int k = 0; k < inner; ++k) {
            const float l[2] = {left(first, k), left(second, k)};
            right(k, y, r);
#pragma unroll
            for (int i = 0; i < kPack; ++i) {
                sums[0][i] = fmaf(l[0], r[i], sums[0][i]);
                sums[1][i] = fmaf(l[1], r[i], sums[1][i]);
            }
        }
        store(first, y, sums[0]);
        if (second > first) store(second, y, sums[1]);
    }
}

inline size_t projection_shared_bytes(int height, int rank_x, int rank_y) {
    return size_t(rank_x) * (height + rank_y) * sizeof(float);
}

// One block per slice; the coefficients of the measured band live in shared memory.
template <int kPack>
__global__ void __launch_bounds__(kSolverThreads) projected_solver_step_kernel(const SolverStepArguments a) {
    MRSI_FAST_DYNAMIC_SHARED(float, shared);
    float* half = shared;                       // [rank_x, height]: Qx v, later (Qx v Qy') Qy
    float* modes = half + a.rank_x * a.height;  // [rank_x, rank_y]: Qx v Qy'
    const SolverTerms<kPack> terms(a);
    const size_t slice = size_t(blockIdx.x) * a.width * a.height;
    const float* __restrict__ qx = a.basis_x;
    const float* __restrict__ qy = a.basis_y;
    const auto along_x = [&](int i, int x) { return __ldg(qx + i * a.width + x); };
    const auto store_half = [&](int i, int y, const float (&v)[kPack]) {
        Packet<float, kPack>::pack(v).store(half + i * a.height + y);
    };

    small_product<kPack>(
        a.rank_x, a.width, a.height, along_x,
        [&](int x, int y, float (&v)[kPack]) { terms.estimate(slice + size_t(x) * a.height + y, v); }, store_half);
    __syncthreads();

    for (int item = threadIdx.x; item < a.rank_x * a.rank_y; item += kSolverThreads) {
        const float *row = half + item / a.rank_y * a.height, *mode = qy + item % a.rank_y * a.height;
        float sum = 0.f, r[kPack], m[kPack];
#pragma unroll 4
        for (int y = 0; y < a.height; y += kPack) {
            Packet<float, kPack>::load(row + y).unpack(r);
            Packet<float, kPack>::load(mode + y).unpack(m);
#pragma unroll
            for (int i = 0; i < kPack; ++i) sum = fmaf(r[i], m[i], sum);
        }
        modes[item] = a.kept ? sum * __ldg(a.kept + item) : sum;
    }
    __syncthreads();

    small_product<kPack>(
        a.rank_x, a.rank_y, a.height, [&](int i, int k) { return modes[i * a.rank_y + k]; },
        [&](int k, int y, float (&v)[kPack]) { Packet<float, kPack>::load(qy + k * a.height + y).unpack(v); },
        store_half);
    __syncthreads();

    small_product<kPack>(
        a.width, a.rank_x, a.height, [&](int x, int k) { return along_x(k, x); },
        [&](int k, int y, float (&v)[kPack]) { Packet<float, kPack>::load(half + k * a.height + y).unpack(v); },
        [&](int x, int y, const float (&measured)[kPack]) {
            const size_t at = slice + size_t(x) * a.height + y;
            float v[kPack];
            terms.estimate(at, v);
#pragma unroll
            for (int i = 0; i < kPack; ++i) v[i] -= measured[i];
            terms.finish(at, v);
        });
}

}  // namespace mrsi_fast
