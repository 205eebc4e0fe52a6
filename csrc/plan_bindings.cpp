// The native network engine for Python: Plan, which mrsi_fast/engine/native.py fills, and two of its operations by
// themselves.
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <memory>
#include <tuple>
#include <vector>

#include "mrsi_fast/conv3x3_gn_silu.h"
#include "mrsi_fast/network.h"
#include "mrsi_fast/plan.h"
#include "mrsi_fast/self_attention.h"

namespace py = pybind11;
using mrsi_fast::PackedWeights;
using mrsi_fast::Plan;

namespace {

using Address = std::uintptr_t;

const float* floats(Address address) { return reinterpret_cast<const float*>(address); }

void add_conv(Plan& plan, const std::vector<std::tuple<std::int64_t, std::int64_t, int, bool>>& sources,
              const std::array<int, 3>& grid, int groups, double eps, const std::array<Address, 2>& affine,
              const std::array<std::int64_t, 2>& film, int tile, const std::array<int, 3>& shape,
              const std::array<Address, 2>& weights, const std::array<std::int64_t, 3>& buffers, std::int64_t key) {
    mrsi_fast::ConvSpec spec{};
    for (const auto& [data, stats, channels, upsample] : sources)
        spec.sources.push_back({data, stats, channels, upsample});
    spec.batch = grid[0], spec.height = grid[1], spec.width = grid[2];
    spec.groups = groups, spec.eps = eps, spec.gamma = floats(affine[0]), spec.beta = floats(affine[1]);
    spec.film_scale = film[0], spec.film_shift = film[1];
    spec.method = static_cast<mrsi_fast::Method>(tile), spec.kernel = shape[0], spec.stride = shape[1],
    spec.out_channels = shape[2];
    spec.weight = floats(weights[0]), spec.bias = floats(weights[1]);
    spec.residual = buffers[0], spec.out = buffers[1], spec.out_stats = buffers[2], spec.key = key;
    plan.add_conv(spec);
}

void set_solver(Plan& plan, const std::array<int, 4>& maps, const std::array<int, 4>& stem,
                const std::array<std::int64_t, 7>& buffers) {
    plan.set_solver({maps[0], maps[1], maps[2], maps[3], stem[0], stem[1], stem[2], stem[3], buffers[0], buffers[1],
                     buffers[2], buffers[3], buffers[4], buffers[5], buffers[6]});
}

// Every step ends with a look at the signals, so that Ctrl-C stops a run within one step.
void run(Plan& plan, const std::vector<std::array<double, 8>>& steps, Address film, const py::function& before_noise,
         const py::function& after_step, bool spread) {
    std::vector<mrsi_fast::StepCoefficients> coefficients;
    for (const auto& s : steps) coefficients.push_back({s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7] != 0.0});
    py::gil_scoped_release unlocked;
    plan.run(
        coefficients, floats(film),
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

// shape = (batch, height, width, in_channels, out_channels, groups, tile)
mrsi_fast::Conv3x3GnSilu describe(const std::array<int, 7>& shape, double eps, const std::array<Address, 5>& inputs,
                                  int threads) {
    mrsi_fast::Conv3x3GnSilu request{};
    request.batch = shape[0], request.height = shape[1], request.width = shape[2], request.in_channels = shape[3];
    request.out_channels = shape[4], request.groups = shape[5], request.tile = shape[6], request.eps = eps;
    request.x = floats(inputs[0]), request.gamma = floats(inputs[1]), request.beta = floats(inputs[2]);
    request.scale = floats(inputs[3]), request.shift = floats(inputs[4]), request.threads = threads;
    return request;
}

void conv3x3_gn_silu(const std::array<int, 7>& shape, double eps, const std::array<Address, 5>& inputs, Address weight,
                     Address bias, Address residual, Address out, int threads) {
    py::gil_scoped_release unlocked;
    mrsi_fast::Conv3x3GnSilu request = describe(shape, eps, inputs, threads);
    request.weight = floats(weight), request.bias = floats(bias), request.residual = floats(residual);
    request.out = reinterpret_cast<float*>(out);
    mrsi_fast::conv3x3_gn_silu(request);
}

// steps = (out, in, tap): how far apart neighbouring channels and taps of the filters lie, in floats
void conv3x3_pack(Address weight, const std::array<std::int64_t, 3>& steps, int tile, int in_channels, int out_channels,
                  Address packed, int threads) {
    py::gil_scoped_release unlocked;
    mrsi_fast::conv3x3_pack({floats(weight), steps[0], steps[1], steps[2], static_cast<mrsi_fast::Method>(tile), 3, 1,
                             in_channels, out_channels},
                            reinterpret_cast<float*>(packed), threads);
}

void conv3x3_filter_gradient(const std::array<int, 7>& shape, double eps, const std::array<Address, 5>& inputs,
                             Address grad, Address workspace, Address out, const std::array<std::int64_t, 3>& steps,
                             int threads) {
    py::gil_scoped_release unlocked;
    mrsi_fast::Filters filters{};
    filters.out_step = steps[0], filters.in_step = steps[1], filters.tap_step = steps[2];
    mrsi_fast::conv3x3_filter_gradient(describe(shape, eps, inputs, threads), floats(grad), filters,
                                       reinterpret_cast<float*>(workspace), reinterpret_cast<float*>(out));
}

// shape = (batch, tokens, heads, head_channels); qkv [batch][tokens][3][heads][head_channels]
void self_attention(const std::array<int, 4>& shape, float scale, Address qkv, Address out, int threads) {
    py::gil_scoped_release unlocked;
    mrsi_fast::self_attention(
        {floats(qkv), reinterpret_cast<float*>(out), shape[0], shape[1], shape[2], shape[3], scale}, threads);
}

}  // namespace

void bind_plan(py::module_& module) {
    module.def("conv3x3_packed_floats", &mrsi_fast::conv3x3_packed_floats, py::arg("tile"), py::arg("in_channels"),
               py::arg("out_channels"));
    module.def("conv3x3_pack", &conv3x3_pack);
    module.def("conv3x3_gn_silu", &conv3x3_gn_silu);
    module.def("conv3x3_filter_gradient_workspace", [](const std::array<int, 7>& shape) {
        return mrsi_fast::conv3x3_filter_gradient_workspace(describe(shape, 0.0, {}, 1));
    });
    module.def("conv3x3_filter_gradient", &conv3x3_filter_gradient);
    module.def("self_attention", &self_attention);
    module.def("has_pairs", [] { return mrsi_fast::pair_kernels() != nullptr; });
    py::class_<PackedWeights, std::shared_ptr<PackedWeights>>(module, "PackedWeights",
                                                              "Weights that plans of one network share.")
        .def(py::init<>());
    py::class_<Plan>(module, "Plan", "One network evaluation and solver step of fixed shape; see mrsi_fast/plan.h.")
        .def(py::init<std::size_t, std::size_t, int, std::shared_ptr<PackedWeights>>(), py::arg("arena_floats"),
             py::arg("film_width"), py::arg("threads"), py::arg("weights") = nullptr)
        .def("add_conv", &add_conv, py::kw_only(), py::arg("sources"), py::arg("grid"), py::arg("groups"),
             py::arg("eps"), py::arg("affine"), py::arg("film"), py::arg("tile"), py::arg("shape"), py::arg("weights"),
             py::arg("buffers"), py::arg("key") = -1)
        .def("add_attention", &Plan::add_attention, py::arg("qkv"), py::arg("out"), py::arg("batch"), py::arg("tokens"),
             py::arg("heads"), py::arg("head_channels"))
        .def("set_solver", &set_solver, py::kw_only(), py::arg("maps"), py::arg("stem"), py::arg("buffers"))
        .def("set_spread", &Plan::set_spread, py::kw_only(), py::arg("head"), py::arg("spread"))
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
                plan.film_rows(reinterpret_cast<const double*>(embedding), rows, reinterpret_cast<float*>(out));
            },
            py::arg("embedding"), py::arg("rows"), py::arg("out"), py::call_guard<py::gil_scoped_release>())
        .def(
            "start",
            [](Plan& plan, const std::array<Address, 5>& inputs, double c_in) {
                plan.start({floats(inputs[0]), floats(inputs[1]), floats(inputs[2]), floats(inputs[3]),
                            static_cast<float>(c_in)},
                           floats(inputs[4]));
            },
            py::arg("inputs"), py::arg("c_in"), py::call_guard<py::gil_scoped_release>())
        .def(
            "evaluate", [](Plan& plan, Address film) { plan.evaluate(floats(film)); },
            py::call_guard<py::gil_scoped_release>())
        .def("run", &run, py::arg("steps"), py::arg("film"), py::arg("before_noise"), py::arg("after_step"),
             py::arg("spread") = false)
        .def("take_seconds", &Plan::take_seconds)
        .def_property_readonly("arena", [](Plan& plan) { return reinterpret_cast<Address>(plan.arena()); })
        .def_property_readonly("weight_bytes", [](const Plan& plan) { return 4 * plan.weight_floats(); })
        .def_property_readonly("scratch_bytes", [](const Plan& plan) { return 4 * plan.scratch_floats(); });
}
