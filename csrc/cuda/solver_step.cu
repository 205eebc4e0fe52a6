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

extern "C" int mrsi_fast_cuda_solver_step(const MrsiFastCudaSolverStep* request, void* stream) {
    using namespace mrsi_fast;
    const auto& r = *request;
    const int64_t count = r.slices * r.width * r.height;
    const bool projected = r.basis_x != nullptr && r.basis_y != nullptr && r.rank_x > 0 && r.rank_y > 0;
    if (r.slices < 0 || r.width < 0 || r.height < 0 || r.slices > INT32_MAX || r.width * r.height > INT32_MAX ||
        count / kSolverThreads > INT32_MAX || (r.basis_x == nullptr) != (r.basis_y == nullptr))
        return cudaErrorInvalidValue;
    if (projected && (r.rank_x > r.width || r.rank_y > r.height ||
                      projection_shared_bytes(int(r.height), int(r.rank_x), int(r.rank_y)) > kMaxSharedBytes))
        return cudaErrorInvalidValue;
    if (count == 0) return cudaSuccess;
    const SolverStepArguments arguments{r.base,
                                        r.now,
                                        r.prev,
                                        r.noise,
                                        r.coefficients,
                                        r.step,
                                        projected ? r.basis_x : nullptr,
                                        projected ? r.basis_y : nullptr,
                                        r.kept,
                                        r.out,
                                        count,
                                        int(r.width),
                                        int(r.height),
                                        int(r.rank_x),
                                        int(r.rank_y)};
    const auto handle = static_cast<cudaStream_t>(stream);
    // Rows of whole packets keep every slice and every basis row 16-byte aligned.
    return r.height % kPacketSize<float> == 0 ? run_solver_step<kPacketSize<float>>(arguments, r.slices, handle)
                                              : run_solver_step<1>(arguments, r.slices, handle);
}
