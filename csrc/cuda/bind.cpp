// Python bindings of the CUDA launchers; compiled only where a CUDA toolkit was found. Addresses are device addresses,
// `stream` is torch.cuda.current_stream(device).cuda_stream, and a status other than 0 becomes a Python exception.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "mrsi_fast/cuda_launchers.h"

namespace py = pybind11;

namespace {

using Address = std::uintptr_t;

void check(int status, const char* what) {
    if (status == 0) return;
    throw std::runtime_error(std::string(what) + ": " + mrsi_fast_cuda_error_string(status) + ".");
}

const void* in(Address address) { return reinterpret_cast<const void*>(address); }
void* out(Address address) { return reinterpret_cast<void*>(address); }

}  // namespace

void bind_cuda(py::module_& module) {
    module.def("cuda_launch_count", &mrsi_fast_cuda_launch_count, "Kernels launched by this thread so far.");
    module.def("cuda_group_norm_silu_workspace", &mrsi_fast_cuda_group_norm_silu_workspace,
               "Bytes of scratch memory, -1 where the shape is refused.");
    module.def(
        "cuda_group_norm_silu",
        [](int dtype, Address x, Address weight, Address bias, Address scale, Address shift, Address conv_bias,
           Address embedding, Address y, Address workspace, std::int64_t samples, std::int64_t channels,
           std::int64_t pixels, std::int64_t groups, float eps, Address stream) {
            check(mrsi_fast_cuda_group_norm_silu(dtype, in(x), in(weight), in(bias), in(scale), in(shift), in(conv_bias),
                                                 in(embedding), out(y), out(workspace), samples, channels, pixels, groups,
                                                 eps, out(stream)),
                  "group_norm_silu on CUDA");
        });
}
