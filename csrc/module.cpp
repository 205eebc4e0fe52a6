// The Python module mrsi_fast._C. Tensors arrive as addresses, sizes and flags: nothing of torch is compiled or linked in,
// so one build serves every version of it. Python code (mrsi_fast/ops) has checked dtype, layout and overlap.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "mrsi_fast/isa.h"

namespace py = pybind11;

void bind_operations(py::module_& module);  // operation_bindings.cpp
void bind_plan(py::module_& module);        // plan_bindings.cpp

#ifdef MRSI_FAST_WITH_CUDA
void bind_cuda(py::module_& module);  // csrc/cuda/*.cpp
#endif

namespace {

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

}  // namespace

PYBIND11_MODULE(_C, module) {
    module.doc() = "Compiled kernels of mrsi_fast; called by mrsi_fast.ops only.";
    module.def("isa", [] { return mrsi_fast::isa_name(mrsi_fast::active_isa()); });
    module.def("usable_isas", &usable_isas);
    module.def("use_isa", &use_isa, "Set the instruction set; returns the one in use before.");

    bind_operations(module);
    bind_plan(module);

#ifdef MRSI_FAST_WITH_CUDA
    bind_cuda(module);
#endif
}
