// The CUDA launchers as functions of mrsi_fast._C. Tensors arrive as device addresses, streams as handles; Python code
// (mrsi_fast/ops) has checked dtype, layout, alignment and overlap, and has made the tensors' device current.
#include "bindings.h"

#include <stdexcept>
#include <string>

#include "mrsi_fast/cuda_launchers.h"

namespace {

void check(const char* operation, int status) {
    if (status == 0) return;
    throw std::runtime_error(std::string(operation) +
                             ": the CUDA launch failed: " + mrsi_fast_cuda_error_string(status));
}

void bind_group_norm_silu(py::module_& module) {
    using Request = MrsiFastCudaGroupNormSilu;
    Fields<Request>(module, "CudaGroupNormSilu")
        .field("dtype", &Request::dtype)
        .field("eps", &Request::eps)
        .address("x", &Request::x)
        .address("weight", &Request::weight)
        .address("bias", &Request::bias)
        .address("scale", &Request::scale)
        .address("shift", &Request::shift)
        .address("conv_bias", &Request::conv_bias)
        .address("embedding", &Request::embedding)
        .address("y", &Request::y)
        .address("workspace", &Request::workspace)
        .field("samples", &Request::samples)
        .field("channels", &Request::channels)
        .field("pixels", &Request::pixels)
        .field("groups", &Request::groups);
    module.def("cuda_group_norm_silu_workspace", &mrsi_fast_cuda_group_norm_silu_workspace, py::arg("request"));
    module.def(
        "cuda_group_norm_silu",
        [](const Request& request, Address stream) {
            check("group_norm_silu", mrsi_fast_cuda_group_norm_silu(&request, pointer<void>(stream)));
        },
        py::arg("request"), py::arg("stream"));
}

void bind_solver_step(py::module_& module) {
    using Request = MrsiFastCudaSolverStep;
    Fields<Request>(module, "CudaSolverStep")
        .address("base", &Request::base)
        .address("now", &Request::now)
        .address("prev", &Request::prev)
        .address("noise", &Request::noise)
        .address("coefficients", &Request::coefficients)
        .address("step", &Request::step)
        .address("basis_x", &Request::basis_x)
        .address("basis_y", &Request::basis_y)
        .address("kept", &Request::kept)
        .address("out", &Request::out)
        .field("slices", &Request::slices)
        .field("width", &Request::width)
        .field("height", &Request::height)
        .field("rank_x", &Request::rank_x)
        .field("rank_y", &Request::rank_y);
    module.def(
        "cuda_solver_step",
        [](const Request& request, Address stream) {
            check("solver_step", mrsi_fast_cuda_solver_step(&request, pointer<void>(stream)));
        },
        py::arg("request"), py::arg("stream"));
}

}  // namespace

void bind_cuda(py::module_& module) {
    module.def("cuda_launch_count", &mrsi_fast_cuda_launch_count);
    bind_group_norm_silu(module);
    bind_solver_step(module);
}
