// The Python module mrsi_fast._C. Tensors arrive as addresses, sizes and flags: nothing of torch is compiled or linked in,
// so one build serves every version of it. Python code (mrsi_fast/ops) has checked dtype, layout and overlap.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "mrsi_fast/group_norm_silu.h"
#include "mrsi_fast/isa.h"

namespace py = pybind11;

void bind_plan(py::module_& module);  // plan_bindings.cpp

#ifdef MRSI_FAST_WITH_CUDA
void bind_cuda(py::module_& module);  // csrc/cuda/*.cpp
#endif

namespace {

using Address = std::uintptr_t;  // data_ptr(); 0 where an optional tensor is absent

template <class T>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}

std::vector<std::string> usable_isas() {
    std::vector<std::string> names;
    for (mrsi_fast::Isa isa : mrsi_fast::kAllIsas) {
        if (mrsi_fast::isa_usable(isa)) names.emplace_back(mrsi_fast::isa_name(isa));
    }
    return names;
}

std::string use_isa(const std::string& name) {
    for (mrsi_fast::Isa isa : mrsi_fast::kAllIsas) {
        if (name == mrsi_fast::isa_name(isa) && mrsi_fast::isa_usable(isa)) {
            return mrsi_fast::isa_name(mrsi_fast::use_isa(isa));
        }
    }
    std::string usable;
    for (const std::string& one : usable_isas()) usable += (usable.empty() ? "" : ", ") + one;
    throw std::invalid_argument("instruction set '" + name + "' is not usable here; usable: " + usable + ".");
}

mrsi_fast::GroupNormSilu group_norm_silu_of(Address x, Address weight, Address bias, Address scale, Address shift,
                                            const std::array<std::int64_t, 4>& sizes, bool channels_last, double eps,
                                            int threads) {
    return {pointer<const float>(x),
            pointer<const float>(weight),
            pointer<const float>(bias),
            pointer<const float>(scale),
            pointer<const float>(shift),
            sizes[0],
            sizes[1],
            sizes[2],
            sizes[3],
            channels_last,
            eps,
            threads};
}

}  // namespace

PYBIND11_MODULE(_C, module) {
    module.doc() = "Compiled kernels of mrsi_fast; called by mrsi_fast.ops only.";
    module.def("isa", [] { return mrsi_fast::isa_name(mrsi_fast::active_isa()); });
    module.def("usable_isas", &usable_isas);
    module.def("use_isa", &use_isa, "Set the instruction set; returns the one in use before.");

    // sizes = (batch, channels, spatial, groups)
    module.def("group_norm_silu", [](Address x, Address weight, Address bias, Address scale, Address shift,
                                     const std::array<std::int64_t, 4>& sizes, bool channels_last, double eps,
                                     int threads, Address out) {
        py::gil_scoped_release unlocked;
        mrsi_fast::group_norm_silu(
            group_norm_silu_of(x, weight, bias, scale, shift, sizes, channels_last, eps, threads), pointer<float>(out));
    });
    module.def("group_norm_silu_backward", [](Address x, Address weight, Address bias, Address scale, Address shift,
                                              const std::array<std::int64_t, 4>& sizes, bool channels_last, double eps,
                                              int threads, Address grad_out, const std::array<Address, 5>& grads) {
        py::gil_scoped_release unlocked;
        mrsi_fast::group_norm_silu_backward(
            group_norm_silu_of(x, weight, bias, scale, shift, sizes, channels_last, eps, threads),
            {pointer<const float>(grad_out), pointer<float>(grads[0]), pointer<float>(grads[1]),
             pointer<float>(grads[2]), pointer<float>(grads[3]), pointer<float>(grads[4])});
    });

    bind_plan(module);

#ifdef MRSI_FAST_WITH_CUDA
    bind_cuda(module);
#endif
}
