"""A stride-1 3x3 convolution by ncnn and by MNN, float32, weights packed when it is loaded."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from harness.onnx_peers import mnn_module
from harness.peers import Missing, Runner, installed

if TYPE_CHECKING:
    from harness.convolutions import ConvInputs

NCNN_GRAPH = "7767517\n2 2\nInput x 0 1 x\nConvolution conv 1 1 x y 0={outputs} 1=3 4=1 5=1 6={weights}\n"
"""A network of one convolution: outputs, kernel, padding, bias, number of weights; see ncnn's wiki."""

NCNN_FLOAT32 = b"\0\0\0\0"
"""Flag in front of weights that are stored as they are."""

REDUCED = ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage")


def ncnn_convolution(inputs: ConvInputs, threads: int) -> Runner:
    """ncnn has no batches: the images go through one after the other, each by all threads; results are put together."""
    library = installed("ncnn")
    net = library.Net()
    net.opt.num_threads, net.opt.use_vulkan_compute, net.opt.openmp_blocktime = threads, False, 0
    for name in REDUCED:
        if hasattr(net.opt, f"use_{name}"):
            setattr(net.opt, f"use_{name}", False)
    graph = NCNN_GRAPH.format(outputs=len(inputs.weight), weights=inputs.weight.numel())
    if net.load_param_mem(graph) != 0:
        raise Missing("this ncnn does not take a network of one convolution")
    model = NCNN_FLOAT32 + inputs.weight.contiguous().numpy().tobytes() + inputs.bias.numpy().tobytes()
    net.load_model_mem(model)
    arrays = inputs.x.contiguous().numpy()  # a matrix does not keep the array that it is made of
    images = [library.Mat(one).clone() for one in arrays]
    alive: list[Any] = []

    def run() -> Tensor:
        alive[:] = [model]  # the network refers to it, and arrays to the matrices that they show
        found = []
        for image in images:
            extractor = net.create_extractor()
            extractor.input("x", image)
            alive.append(extractor.extract("y")[1])
            found.append(np.array(alive[-1], copy=False))
        return torch.from_numpy(found[0][None] if len(found) == 1 else np.stack(found))

    return run


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="mrsi_fast_convolutions_")  # removed when the process ends


def mnn_convolution(inputs: ConvInputs, threads: int) -> Runner:
    """MNN in high precision, which is float32."""
    library = installed("MNN.expr")
    layout, kind = library.NCHW, library.float
    x = library.placeholder(list(inputs.x.shape), layout, kind)
    x.name = "x"
    weight = library.const(inputs.weight.contiguous().numpy(), list(inputs.weight.shape), layout, kind)
    bias = library.const(inputs.bias.numpy(), [len(inputs.bias)], layout, kind)
    packed, pad = library.convert(x, library.NC4HW4), library.Padding_Mode.CAFFE
    y = library.convert(library.conv2d(packed, weight, bias, [1, 1], [1, 1], [1, 1], 1, pad), layout)
    y.name = "y"
    path = Path(_folder().name) / f"{inputs.x.shape}-{len(inputs.weight)}.mnn"
    library.save([y], str(path))
    module = mnn_module(path, ["x"], ["y"], threads)
    feed = [library.const(inputs.x.contiguous().numpy(), list(inputs.x.shape), layout, kind)]
    return lambda: torch.from_numpy(module.forward(feed)[0].read())
