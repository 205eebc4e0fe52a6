// The CUDA launchers as functions of mrsi_fast._C. Tensors arrive as device addresses, streams as handles; Python code
// (mrsi_fast/ops) has checked dtype, layout and overlap, and has made the tensors' device current. Here is checked what
// can be without a device: missing addresses, alignment, sizes. A fault in a kernel would end every later call too.
#include "bindings.h"

#include <initializer_list>
#include <stdexcept>
#include <string>
#include <utility>

#include "mrsi_fast/checks.h"
#include "mrsi_fast/cuda_launchers.h"

namespace {

using namespace mrsi_fast;
using Named = std::pair<const char*, const void*>;

// Kernels read and write 16 bytes at once.
void require_packets(std::initializer_list<Named> needed, std::initializer_list<Named> optional, std::int64_t count) {
    for (const auto& [name, address] : needed) require(address || count == 0, std::string(name) + " is missing.");
    for (const auto& list : {needed, optional})
        for (const auto& [name, address] : list)
            require(reinterpret_cast<Address>(address) % 16 == 0,
                    std::string(name) + " does not start on a multiple of 16 bytes.");
}

void check_arguments(const MrsiFastCudaGroupNormSilu& op) {
    const std::int64_t count = values_of("x", {op.samples, op.channels, op.pixels});
    require_groups(op.groups, op.channels);
    require(op.dtype >= MRSI_FAST_FLOAT32 && op.dtype <= MRSI_FAST_BFLOAT16, "dtype is none that the kernels have.");
    require(op.eps >= 0.0f, "eps must not be negative.");
    require_packets({{"x", op.x}, {"weight", op.weight}, {"bias", op.bias}, {"y", op.y}},
                    {{"scale", op.scale},
                     {"shift", op.shift},
                     {"conv_bias", op.conv_bias},
                     {"embedding", op.embedding},
                     {"workspace", op.workspace}},
                    count);
    const std::int64_t scratch = mrsi_fast_cuda_group_norm_silu_workspace(&op);
    require(scratch >= 0, "group_norm_silu: the kernels do not take these sizes.");
    require(op.workspace || scratch == 0, "workspace is missing.");
}

void check_arguments(const MrsiFastCudaSolverStep& op) {
    const std::int64_t count = values_of("base", {op.slices, op.width, op.height});
    require_packets(
        {{"base", op.base}, {"now", op.now}, {"coefficients", op.coefficients}, {"out", op.out}},
        {{"prev", op.prev}, {"noise", op.noise}, {"basis_x", op.basis_x}, {"basis_y", op.basis_y}, {"kept", op.kept}},
        count);
    require_tensor("step", op.step, count);
    require(!op.basis_x == !op.basis_y, "basis_x and basis_y come together.");
    require(op.rank_x >= 0 && op.rank_x <= op.width && op.rank_y >= 0 && op.rank_y <= op.height,
            "projection: a rank is negative or larger than its axis.");
    require(op.basis_x || !op.kept, "kept belongs to two bases.");
}

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
    module.def(
        "cuda_group_norm_silu_workspace",
        [](const Request& request) {
            values_of("x", {request.samples, request.channels, request.pixels});
            return mrsi_fast_cuda_group_norm_silu_workspace(&request);
        },
        py::arg("request"));
    module.def(
        "cuda_group_norm_silu",
        [](const Request& request, Address stream) {
            check_arguments(request);
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
            check_arguments(request);
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
