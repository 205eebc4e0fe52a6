// The CUDA launchers as functions of mrsi_fast._C. Tensors arrive as device addresses, streams as handles; Python code
// (mrsi_fast/ops) has checked dtype, layout, alignment and overlap, and has made the tensors' device current.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "mrsi_fast/cuda_launchers.h"

namespace py = pybind11;

namespace {

using Address = std::uintptr_t;  // data_ptr(); 0 where an optional tensor is absent

template <class T = void>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}

void check(const char* operation, int status) {
    if (status == 0) return;
    throw std::runtime_error(std::string(operation) +
                             ": the CUDA launch failed: " + mrsi_fast_cuda_error_string(status));
}

// sizes = (samples, channels, pixels, groups); vectors = (weight, bias, scale, shift, conv_bias, embedding)
void group_norm_silu(int dtype, Address x, const std::array<Address, 6>& vectors, Address y, Address workspace,
                     const std::array<std::int64_t, 4>& sizes, float eps, Address stream) {
    check("group_norm_silu", mrsi_fast_cuda_group_norm_silu(
                                 dtype, pointer(x), pointer(vectors[0]), pointer(vectors[1]), pointer(vectors[2]),
                                 pointer(vectors[3]), pointer(vectors[4]), pointer(vectors[5]), pointer(y),
                                 pointer(workspace), sizes[0], sizes[1], sizes[2], sizes[3], eps, pointer(stream)));
}

// sizes = (samples, tokens, heads, head_size)
void self_attention(int dtype, Address qkv, Address out, Address workspace, const std::array<std::int64_t, 4>& sizes,
                    float scale, Address stream) {
    check("self_attention",
          mrsi_fast_cuda_self_attention(dtype, pointer(qkv), pointer(out), pointer(workspace), sizes[0], sizes[1],
                                        sizes[2], sizes[3], scale, pointer(stream)));
}

// state = (base, now, prev, noise); bases = (basis_x, basis_y, kept); sizes = (slices, width, height, rank_x, rank_y)
void solver_step(const std::array<Address, 4>& state, Address coefficients, Address step,
                 const std::array<Address, 3>& bases, Address out, const std::array<std::int64_t, 5>& sizes,
                 Address stream) {
    const auto floats = [](Address address) { return pointer<const float>(address); };
    check("solver_step",
          mrsi_fast_cuda_solver_step(floats(state[0]), floats(state[1]), floats(state[2]), floats(state[3]),
                                     floats(coefficients), pointer<const std::int64_t>(step), floats(bases[0]),
                                     floats(bases[1]), floats(bases[2]), pointer<float>(out), sizes[0], sizes[1],
                                     sizes[2], sizes[3], sizes[4], pointer(stream)));
}

}  // namespace

void bind_cuda(py::module_& module) {
    module.def("cuda_launch_count", &mrsi_fast_cuda_launch_count);
    module.def("cuda_group_norm_silu_workspace", &mrsi_fast_cuda_group_norm_silu_workspace);
    module.def("cuda_group_norm_silu", &group_norm_silu);
    module.def("cuda_self_attention_workspace", &mrsi_fast_cuda_self_attention_workspace);
    module.def("cuda_self_attention", &self_attention);
    module.def("cuda_solver_step", &solver_step);
}
