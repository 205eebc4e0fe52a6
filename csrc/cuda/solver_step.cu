// Launcher of solver_step: one thread per packet without projection, one block per slice with it.
#include "mrsi_fast/solver_step.cuh"

#include "mrsi_fast/cuda_launchers.h"

namespace mrsi_fast {
namespace {

template <int kPack>
cudaError_t run_solver_step(const SolverStepArguments& a, int64_t slices, cudaStream_t stream) {
    if (a.basis_x == nullptr) {
        const int64_t packets = a.count / kPack;
        return launch(solver_step_kernel<kPack>, dim3((packets + kSolverThreads - 1) / kSolverThreads),
                      dim3(kSolverThreads), 0, stream, a);
    }
    return launch(projected_solver_step_kernel<kPack>, dim3(slices), dim3(kSolverThreads),
                  projection_shared_bytes(a.height, a.rank_x, a.rank_y), stream, a);
}

}  // namespace
}  // namespace mrsi_fast

extern "C" int mrsi_fast_cuda_solver_step(const float* base, const float* now, const float* prev, const float* noise,
                                          const float* coefficients, const int64_t* step, const float* basis_x,
                                          const float* basis_y, const float* kept, float* out, int64_t slices,
                                          int64_t width, int64_t height, int64_t rank_x, int64_t rank_y, void* stream) {
    using namespace mrsi_fast;
    const int64_t count = slices * width * height;
    const bool projected = basis_x != nullptr && basis_y != nullptr && rank_x > 0 && rank_y > 0;
    if (slices < 0 || width < 0 || height < 0 || slices > INT32_MAX || width * height > INT32_MAX ||
        count / kSolverThreads > INT32_MAX || (basis_x == nullptr) != (basis_y == nullptr))
        return cudaErrorInvalidValue;
    if (projected && (rank_x > width || rank_y > height ||
                      projection_shared_bytes(int(height), int(rank_x), int(rank_y)) > kMaxSharedBytes))
        return cudaErrorInvalidValue;
    if (count == 0) return cudaSuccess;
    const SolverStepArguments arguments{base,
                                        now,
                                        prev,
                                        noise,
                                        coefficients,
                                        step,
                                        projected ? basis_x : nullptr,
                                        projected ? basis_y : nullptr,
                                        kept,
                                        out,
                                        count,
                                        int(width),
                                        int(height),
                                        int(rank_x),
                                        int(rank_y)};
    const auto handle = static_cast<cudaStream_t>(stream);
    // Rows of whole packets keep every slice and every basis row 16-byte aligned.
    return height % kPacketSize<float> == 0 ? run_solver_step<kPacketSize<float>>(arguments, slices, handle)
                                            : run_solver_step<1>(arguments, slices, handle);
}
