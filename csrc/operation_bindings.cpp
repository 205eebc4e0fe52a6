// The CPU operations for Python (mrsi_fast/ops): each takes one structure that names its tensors and sizes.
#include "bindings.h"
#include "mrsi_fast/conv3x3_gn_silu.h"
#include "mrsi_fast/group_norm_silu.h"
#include "mrsi_fast/network.h"
#include "mrsi_fast/self_attention.h"

using namespace mrsi_fast;

namespace {

void bind_group_norm_silu(py::module_& module) {
    Fields<GroupNormSilu>(module, "GroupNormSilu")
        .address("x", &GroupNormSilu::x)
        .address("weight", &GroupNormSilu::weight)
        .address("bias", &GroupNormSilu::bias)
        .address("scale", &GroupNormSilu::scale)
        .address("shift", &GroupNormSilu::shift)
        .field("batch", &GroupNormSilu::batch)
        .field("channels", &GroupNormSilu::channels)
        .field("spatial", &GroupNormSilu::spatial)
        .field("groups", &GroupNormSilu::groups)
        .field("channels_last", &GroupNormSilu::channels_last)
        .field("eps", &GroupNormSilu::eps)
        .field("threads", &GroupNormSilu::threads);
    Fields<GroupNormSiluGradients>(module, "GroupNormSiluGradients")
        .address("out", &GroupNormSiluGradients::out)
        .address("x", &GroupNormSiluGradients::x)
        .address("weight", &GroupNormSiluGradients::weight)
        .address("bias", &GroupNormSiluGradients::bias)
        .address("scale", &GroupNormSiluGradients::scale)
        .address("shift", &GroupNormSiluGradients::shift);
    module.def(
        "group_norm_silu",
        [](const GroupNormSilu& request, Address out) { group_norm_silu(request, pointer<float>(out)); },
        py::arg("request"), py::arg("out"), py::call_guard<py::gil_scoped_release>());
    module.def("group_norm_silu_backward", &group_norm_silu_backward, py::arg("request"), py::arg("gradients"),
               py::call_guard<py::gil_scoped_release>());
}

void bind_conv3x3_gn_silu(py::module_& module) {
    py::enum_<ConvMethod>(module, "ConvMethod", "How a convolution is computed.")
        .value("direct", kDirect)
        .value("pairs", kPairs)
        .value("winograd2", kWinograd2)
        .value("winograd4", kWinograd4);
    Fields<Filters>(module, "Filters")
        .address("data", &Filters::data)
        .field("out_step", &Filters::out_step)
        .field("in_step", &Filters::in_step)
        .field("tap_step", &Filters::tap_step)
        .field("method", &Filters::method)
        .field("kernel", &Filters::kernel)
        .field("stride", &Filters::stride)
        .field("in_channels", &Filters::in_channels)
        .field("out_channels", &Filters::out_channels);
    Fields<Conv3x3GnSilu>(module, "Conv3x3GnSilu")
        .address("x", &Conv3x3GnSilu::x)
        .field("batch", &Conv3x3GnSilu::batch)
        .field("height", &Conv3x3GnSilu::height)
        .field("width", &Conv3x3GnSilu::width)
        .field("in_channels", &Conv3x3GnSilu::in_channels)
        .field("out_channels", &Conv3x3GnSilu::out_channels)
        .field("groups", &Conv3x3GnSilu::groups)
        .field("eps", &Conv3x3GnSilu::eps)
        .address("gamma", &Conv3x3GnSilu::gamma)
        .address("beta", &Conv3x3GnSilu::beta)
        .address("scale", &Conv3x3GnSilu::scale)
        .address("shift", &Conv3x3GnSilu::shift)
        .field("method", &Conv3x3GnSilu::method)
        .address("weight", &Conv3x3GnSilu::weight)
        .address("bias", &Conv3x3GnSilu::bias)
        .address("residual", &Conv3x3GnSilu::residual)
        .address("out", &Conv3x3GnSilu::out)
        .field("threads", &Conv3x3GnSilu::threads);
    module.def("conv3x3_packed_floats", &conv3x3_packed_floats, py::arg("method"), py::arg("in_channels"),
               py::arg("out_channels"));
    module.def(
        "conv3x3_pack",
        [](const Filters& filters, Address packed, int threads) {
            conv3x3_pack(filters, pointer<float>(packed), threads);
        },
        py::arg("filters"), py::arg("packed"), py::arg("threads"), py::call_guard<py::gil_scoped_release>());
    module.def("conv3x3_gn_silu", &conv3x3_gn_silu, py::arg("request"), py::call_guard<py::gil_scoped_release>());
    module.def("conv3x3_filter_gradient_workspace", &conv3x3_filter_gradient_workspace, py::arg("request"));
    module.def(
        "conv3x3_filter_gradient",
        [](const Conv3x3GnSilu& request, Address grad, const Filters& filters, Address workspace, Address out) {
            conv3x3_filter_gradient(request, pointer<const float>(grad), filters, pointer<float>(workspace),
                                    pointer<float>(out));
        },
        py::arg("request"), py::arg("grad"), py::arg("filters"), py::arg("workspace"), py::arg("out"),
        py::call_guard<py::gil_scoped_release>());
}

void bind_self_attention(py::module_& module) {
    Fields<Attention>(module, "Attention")
        .address("qkv", &Attention::qkv)
        .address("out", &Attention::out)
        .field("batch", &Attention::batch)
        .field("tokens", &Attention::tokens)
        .field("heads", &Attention::heads)
        .field("head_channels", &Attention::head_channels)
        .field("scale", &Attention::scale);
    module.def("self_attention", &self_attention, py::arg("request"), py::arg("threads"),
               py::call_guard<py::gil_scoped_release>());
}

}  // namespace

void bind_operations(py::module_& module) {
    bind_group_norm_silu(module);
    bind_conv3x3_gn_silu(module);
    bind_self_attention(module);
}
