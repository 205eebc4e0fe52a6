// How kernels are launched and how they get dynamic shared memory: the two places where the GPU (nvcc) and the CPU
// emulation of the tests (g++ -DMRSI_FAST_SIM, tests/cudasim) differ. Kernel sources include this file and never
// spell <<<...>>> or extern __shared__ themselves.
#pragma once
#include <stddef.h>
#include <stdint.h>

#if defined(MRSI_FAST_SIM)
#include "cudasim.h"
#else
#include <cuda_runtime.h>
#endif

namespace mrsi_fast {

// Kernels launched by this thread since it started; the bound on kernels per sampling step is checked with it.
inline int64_t& launch_count() {
    static thread_local int64_t count = 0;
    return count;
}

// Launches above this amount of dynamic shared memory must ask for it first (CUDA programming guide, 48 KiB).
constexpr size_t kDefaultSharedBytes = 48 << 10;

// The largest dynamic shared memory that every supported architecture grants one block (sm_86, sm_89, sm_120).
constexpr size_t kMaxSharedBytes = 99 << 10;

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                   Arguments... arguments) {
#if defined(MRSI_FAST_SIM)
    (void)stream;
    ++launch_count();
    return ::cudasim::launch(grid, block, shared_bytes, [=] { kernel(Parameters(arguments)...); });
#else
    if (shared_bytes > kDefaultSharedBytes) {
        cudaError_t status =
            cudaFuncSetAttribute((const void*)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
        if (status != cudaSuccess) return status;
    }
    ++launch_count();
    kernel<<<grid, block, shared_bytes, stream>>>(Parameters(arguments)...);
    return cudaGetLastError();
#endif
}

}  // namespace mrsi_fast

#if defined(MRSI_FAST_SIM)
#define MRSI_FAST_DYNAMIC_SHARED(type, name) type* name = ::cudasim::dynamic_shared<type>()
#else
#define MRSI_FAST_DYNAMIC_SHARED(type, name)                           \
    extern __shared__ __align__(128) unsigned char mrsi_fast_shared[]; \
    type* name = reinterpret_cast<type*>(mrsi_fast_shared)
#endif
