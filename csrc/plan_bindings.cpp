// The native network engine for Python: Plan, which mrsi_fast/engine/native.py fills, and what it is told.
#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <memory>
#include <vector>

#include "bindings.h"
#include "mrsi_fast/plan.h"

using namespace mrsi_fast;

namespace {

const float* floats(Address address) { return pointer<const float>(address); }

void bind_operation_specs(py::module_& module) {
    Fields<SourceSpec>(module, "SourceSpec")
        .field("data", &SourceSpec::data)
        .field("stats", &SourceSpec::stats)
        .field("channels", &SourceSpec::channels)
        .field("upsample", &SourceSpec::upsample);
    Fields<ConvSpec>(module, "ConvSpec")
        .field("name", &ConvSpec::name)
        .field("sources", &ConvSpec::sources)
        .field("batch", &ConvSpec::batch)
        .field("height", &ConvSpec::height)
        .field("width", &ConvSpec::width)
        .field("groups", &ConvSpec::groups)
        .field("eps", &ConvSpec::eps)
        .address("gamma", &ConvSpec::gamma)
        .address("beta", &ConvSpec::beta)
        .field("film_scale", &ConvSpec::film_scale)
        .field("film_shift", &ConvSpec::film_shift)
        .field("method", &ConvSpec::method)
        .field("kernel", &ConvSpec::kernel)
        .field("stride", &ConvSpec::stride)
        .field("out_channels", &ConvSpec::out_channels)
        .address("weight", &ConvSpec::weight)
        .address("bias", &ConvSpec::bias)
        .field("residual", &ConvSpec::residual)
        .field("out", &ConvSpec::out)
        .field("out_stats", &ConvSpec::out_stats)
        .field("key", &ConvSpec::key);
    Fields<AttentionSpec>(module, "AttentionSpec")
        .field("name", &AttentionSpec::name)
        .field("qkv", &AttentionSpec::qkv)
        .field("out", &AttentionSpec::out)
        .field("batch", &AttentionSpec::batch)
        .field("tokens", &AttentionSpec::tokens)
        .field("heads", &AttentionSpec::heads)
        .field("head_channels", &AttentionSpec::head_channels);
}

void bind_solver_specs(py::module_& module) {
    Fields<SolverSpec>(module, "SolverSpec")
        .field("batch", &SolverSpec::batch)
        .field("maps", &SolverSpec::maps)
        .field("x", &SolverSpec::x)
        .field("y", &SolverSpec::y)
        .field("factor", &SolverSpec::factor)
        .field("grid_x", &SolverSpec::grid_x)
        .field("grid_y", &SolverSpec::grid_y)
        .field("stem_channels", &SolverSpec::stem_channels)
        .field("head", &SolverSpec::head)
        .field("stem", &SolverSpec::stem)
        .field("eval", &SolverSpec::eval)
        .field("base", &SolverSpec::base)
        .field("previous", &SolverSpec::previous)
        .field("noise", &SolverSpec::noise)
        .field("presence", &SolverSpec::presence)
        .field("both_heads", &SolverSpec::both_heads)
        .field("spread", &SolverSpec::spread);
    Fields<SolverStart>(module, "SolverStart")
        .address("initial", &SolverStart::initial)
        .address("z", &SolverStart::z)
        .address("mask", &SolverStart::mask)
        .address("anatomy", &SolverStart::anatomy)
        .field("c_in", &SolverStart::c_in);
    Fields<StepCoefficients>(module, "StepCoefficients")
        .field("c_skip", &StepCoefficients::c_skip)
        .field("c_out", &StepCoefficients::c_out)
        .field("base", &StepCoefficients::base)
        .field("now", &StepCoefficients::now)
        .field("prev", &StepCoefficients::prev)
        .field("noise", &StepCoefficients::noise)
        .field("next_c_in", &StepCoefficients::next_c_in)
        .field("commit", &StepCoefficients::commit);
}

// Every step ends with a look at the signals, so that Ctrl-C stops a run within one step.
void run(Plan& plan, const std::vector<StepCoefficients>& steps, Address film, const py::function& before_noise,
         const py::function& after_step, bool spread) {
    py::gil_scoped_release unlocked;
    plan.run(
        steps, floats(film),
        [&](int step) {
            py::gil_scoped_acquire locked;
            before_noise(step);
        },
        [&](int step) {
            py::gil_scoped_acquire locked;
            if (PyErr_CheckSignals()) throw py::error_already_set();
            after_step(step);
        },
        spread);
}

}  // namespace

void bind_plan(py::module_& module) {
    bind_operation_specs(module);
    bind_solver_specs(module);
    module.def("has_pairs", [] { return pair_kernels() != nullptr; });
    py::class_<OperationInfo>(module, "OperationInfo", "What a plan calls for one of its operations.")
        .def_readonly("name", &OperationInfo::name)
        .def_readonly("kind", &OperationInfo::kind)
        .def_readonly("kernels", &OperationInfo::kernels)
        .def_readonly("method", &OperationInfo::method)
        .def_readonly("kernel", &OperationInfo::kernel)
        .def_readonly("stride", &OperationInfo::stride)
        .def_readonly("in_channels", &OperationInfo::in_channels)
        .def_readonly("out_channels", &OperationInfo::out_channels)
        .def_readonly("height", &OperationInfo::height)
        .def_readonly("width", &OperationInfo::width)
        .def_readonly("items", &OperationInfo::items);
    py::class_<PackedWeights, std::shared_ptr<PackedWeights>>(module, "PackedWeights",
                                                              "Weights that plans of one network share.")
        .def(py::init<>());
    py::class_<Plan>(module, "Plan", "One network evaluation and solver step of fixed shape; see mrsi_fast/plan.h.")
        .def(py::init<std::size_t, std::size_t, int, std::shared_ptr<PackedWeights>>(), py::arg("arena_floats"),
             py::arg("film_width"), py::arg("threads"), py::arg("weights") = nullptr)
        .def("add_conv", &Plan::add_conv, py::arg("spec"))
        .def("add_attention", &Plan::add_attention, py::arg("spec"))
        .def("set_solver", &Plan::set_solver, py::arg("spec"))
        .def(
            "set_projection",
            [](Plan& plan, int rank_x, int rank_y, Address qx, Address qy, Address kept) {
                plan.set_projection(rank_x, rank_y, floats(qx), floats(qy), floats(kept));
            },
            py::arg("rank_x"), py::arg("rank_y"), py::arg("qx"), py::arg("qy"), py::arg("kept"))
        .def(
            "set_film",
            [](Plan& plan, int depth, Address weight, Address bias) {
                plan.set_film(depth, floats(weight), floats(bias));
            },
            py::arg("depth"), py::arg("weight"), py::arg("bias"))
        .def(
            "film_rows",
            [](const Plan& plan, Address embedding, int rows, Address out) {
                plan.film_rows(pointer<const double>(embedding), rows, pointer<float>(out));
            },
            py::arg("embedding"), py::arg("rows"), py::arg("out"), py::call_guard<py::gil_scoped_release>())
        .def(
            "start",
            [](Plan& plan, const SolverStart& start, Address presence) { plan.start(start, floats(presence)); },
            py::arg("start"), py::arg("presence"), py::call_guard<py::gil_scoped_release>())
        .def(
            "evaluate", [](Plan& plan, Address film) { plan.evaluate(floats(film)); }, py::arg("film"),
            py::call_guard<py::gil_scoped_release>())
        .def("run", &run, py::arg("steps"), py::arg("film"), py::arg("before_noise"), py::arg("after_step"),
             py::arg("spread") = false)
        .def("operations", &Plan::operations)
        .def("take_seconds", &Plan::take_seconds)
        .def_property_readonly("arena", [](Plan& plan) { return reinterpret_cast<Address>(plan.arena()); })
        .def_property_readonly("weight_bytes", [](const Plan& plan) { return 4 * plan.weight_floats(); })
        .def_property_readonly("scratch_bytes", [](const Plan& plan) { return 4 * plan.scratch_floats(); });
}
