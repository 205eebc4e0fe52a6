// The CPU operations for Python (mrsi_fast/ops): each takes one structure that names its tensors and sizes.
#include "bindings.h"
#include "mrsi_fast/checks.h"
#include "mrsi_fast/conv3x3_gn_silu.h"
#include "mrsi_fast/group_norm_silu.h"
#include "mrsi_fast/network.h"
#include "mrsi_fast/self_attention.h"

using namespace mrsi_fast;

namespace {

void check_film(const float* scale, const float* shift) {
    require_aligned("scale", scale), require_aligned("shift", shift);
}

std::int64_t checked(const GroupNormSilu& op) {
    const std::int64_t count = values_of("x", {op.batch, op.channels, op.spatial});
    require_groups(op.groups, op.channels);
    require(op.eps >= 0.0, "eps must not be negative.");
    require_threads(op.threads);
    require_tensor("x", op.x, count), require_tensor("weight", op.weight), require_tensor("bias", op.bias);
    check_film(op.scale, op.shift);
    return count;
}

void check_gradients(const GroupNormSilu& op, const GroupNormSiluGradients& grad) {
    const std::int64_t count = checked(op);
    require_tensor("gradients.out", grad.out, count), require_tensor("gradients.x", grad.x, count);
    require_tensor("gradients.weight", grad.weight), require_tensor("gradients.bias", grad.bias);
    require(!grad.scale == !op.scale && !grad.shift == !op.shift,
            "scale and shift have gradients where they are given.");
    check_film(grad.scale, grad.shift);
}

void check_filters(const Filters& filters) {
    require((filters.kernel == 1 || filters.kernel == 3) && (filters.stride == 1 || filters.stride == 2),
            "a convolution has kernel 1 or 3 and stride 1 or 2.");
    require(filters.method == kDirect || filters.method == kPairs || (filters.kernel == 3 && filters.stride == 1),
            "Winograd's method needs kernel 3 and stride 1.");
    values_of("filters", {filters.in_channels, filters.out_channels, filters.kernel, filters.kernel}, 1);
}

// A convolution of one tensor by one of the float32 methods, without what reads its weights.
std::int64_t checked(const Conv3x3GnSilu& op) {
    const std::int64_t count = values_of("x", {op.batch, op.height, op.width, op.in_channels});
    require(op.method != kPairs, "this operation computes in float32.");
    require(op.in_channels >= 1 && op.out_channels >= 1, "a convolution has at least one channel in and out.");
    require_threads(op.threads);
    require_tensor("x", op.x, count);
    if (op.groups != 0) {
        require_groups(op.groups, op.in_channels);
        require(op.eps >= 0.0, "eps must not be negative.");
        require_tensor("gamma", op.gamma), require_tensor("beta", op.beta);
    }
    check_film(op.scale, op.shift);
    return values_of("out", {op.batch, op.height, op.width, op.out_channels});
}

void check_convolution(const Conv3x3GnSilu& op) {
    const std::int64_t count = checked(op);
    require_tensor("weight", op.weight), require_tensor("out", op.out, count);
    require_aligned("bias", op.bias), require_aligned("residual", op.residual);
}

// Filters as a result: dense, so that no value lies outside of 9 in_channels out_channels.
void check_result(const Filters& filters, const Conv3x3GnSilu& op) {
    const std::int64_t count = values_of("filters", {op.in_channels, op.out_channels, 9}, 1);
    for (const std::int64_t step : {filters.out_step, filters.in_step, filters.tap_step})
        require(step >= 0 && step <= count, "filters: a step is negative or too large.");
    const std::int64_t last =
        (op.out_channels - 1) * filters.out_step + (op.in_channels - 1) * filters.in_step + 8 * filters.tap_step;
    require(last == count - 1, "filters: the result is not dense.");
}

void check_attention(const Attention& op, int threads) {
    values_of("attention", {op.heads, op.head_channels}, 1);
    const std::int64_t count = values_of("out", {op.batch, op.tokens, op.heads, op.head_channels});
    require_threads(threads);
    require_tensor("qkv", op.qkv, count), require_tensor("out", op.out, count);
}

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
        [](const GroupNormSilu& request, Address out) {
            require_tensor("out", pointer<float>(out), checked(request));
            group_norm_silu(request, pointer<float>(out));
        },
        py::arg("request"), py::arg("out"), py::call_guard<py::gil_scoped_release>());
    module.def(
        "group_norm_silu_backward",
        [](const GroupNormSilu& request, const GroupNormSiluGradients& gradients) {
            check_gradients(request, gradients);
            group_norm_silu_backward(request, gradients);
        },
        py::arg("request"), py::arg("gradients"), py::call_guard<py::gil_scoped_release>());
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
    module.def(
        "conv3x3_packed_floats",
        [](ConvMethod method, int in_channels, int out_channels) {
            check_filters({nullptr, 0, 0, 0, method, 3, 1, in_channels, out_channels});
            return conv3x3_packed_floats(method, in_channels, out_channels);
        },
        py::arg("method"), py::arg("in_channels"), py::arg("out_channels"));
    module.def(
        "conv3x3_pack",
        [](const Filters& filters, Address packed, int threads) {
            check_filters(filters);
            require(filters.method != kPairs, "this operation computes in float32.");
            require_threads(threads);
            require_tensor("filters.data", filters.data), require_tensor("packed", pointer<float>(packed));
            conv3x3_pack(filters, pointer<float>(packed), threads);
        },
        py::arg("filters"), py::arg("packed"), py::arg("threads"), py::call_guard<py::gil_scoped_release>());
    module.def(
        "conv3x3_gn_silu",
        [](const Conv3x3GnSilu& request) {
            check_convolution(request);
            conv3x3_gn_silu(request);
        },
        py::arg("request"), py::call_guard<py::gil_scoped_release>());
    module.def(
        "conv3x3_filter_gradient_workspace",
        [](const Conv3x3GnSilu& request) {
            checked(request);
            require(request.method != kDirect, "the gradient of the filters is computed by Winograd's method.");
            return conv3x3_filter_gradient_workspace(request);
        },
        py::arg("request"));
    module.def(
        "conv3x3_filter_gradient",
        [](const Conv3x3GnSilu& request, Address grad, const Filters& filters, Address workspace, Address out) {
            const std::int64_t count = checked(request);
            require(request.method != kDirect, "the gradient of the filters is computed by Winograd's method.");
            require_tensor("grad", pointer<float>(grad), count), require_tensor("out", pointer<float>(out));
            require_tensor("workspace", pointer<float>(workspace)), check_result(filters, request);
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
    module.def(
        "self_attention",
        [](const Attention& request, int threads) {
            check_attention(request, threads);
            self_attention(request, threads);
        },
        py::arg("request"), py::arg("threads"), py::call_guard<py::gil_scoped_release>());
}

}  // namespace

void bind_operations(py::module_& module) {
    bind_group_norm_silu(module);
    bind_conv3x3_gn_silu(module);
    bind_self_attention(module);
}
