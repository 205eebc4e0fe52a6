// Small kernels with one fault each. The simulator has to report every one of them (test_planted_faults.py).
#include "mrsi_fast/launch.cuh"

namespace {

using mrsi_fast::launch;

__global__ void divergent_barrier(float* out) {
    if (threadIdx.x < 16) __syncthreads();
    out[threadIdx.x] = 1.f;
}

__global__ void barriers_at_different_places(float* out) {
    if (threadIdx.x < 32) {
        __syncthreads();
        out[threadIdx.x] = 1.f;
    } else {
        __syncthreads();
        out[threadIdx.x] = 2.f;
    }
}

__global__ void lanes_missing_from_shuffle(float* out) {
    float v = threadIdx.x;
    if (threadIdx.x < 16) v = __shfl_xor_sync(0xffffffffu, v, 1);
    out[threadIdx.x] = v;
}

__global__ void caller_not_in_mask(float* out) {
    float v = threadIdx.x;
    if (threadIdx.x & 1) v = __shfl_xor_sync(0x55555555u, v, 2);
    out[threadIdx.x] = v;
}

__global__ void shuffle_from_outside_the_mask(float* out) {
    float v = threadIdx.x;
    if (threadIdx.x < 8) v = __shfl_xor_sync(0xffu, v, 8);
    out[threadIdx.x] = v;
}

__global__ void shared_memory_race(float* out) {
    MRSI_FAST_DYNAMIC_SHARED(float, shared);
    shared[threadIdx.x] = threadIdx.x + 1.f;
    out[threadIdx.x] = shared[63 - threadIdx.x];
}

__global__ void unwritten_shared_memory(float* out) {
    MRSI_FAST_DYNAMIC_SHARED(float, shared);
    out[threadIdx.x] = shared[threadIdx.x];
}

__global__ void store_beyond_shared_memory(float* out) {
    MRSI_FAST_DYNAMIC_SHARED(float, shared);
    shared[threadIdx.x + 1] = 1.f;
    out[threadIdx.x] = 1.f;
}

}  // namespace

// Runs one of the kernels above on one block of 64 threads with 256 bytes of shared memory.
extern "C" int cudasim_run_fault(int index, float* out) {
    void (*const kernels[])(float*) = {
        divergent_barrier,       barriers_at_different_places,  lanes_missing_from_shuffle,
        caller_not_in_mask,      shuffle_from_outside_the_mask, shared_memory_race,
        unwritten_shared_memory, store_beyond_shared_memory};
    return launch(kernels[index], dim3(1), dim3(64), 256, nullptr, out);
}
