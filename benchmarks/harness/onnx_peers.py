"""Peers that take the network as an ONNX file: ONNX Runtime, OpenVINO and MNN."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import torch

from harness.peers import INPUTS, Missing, PlainEvaluation, Runner, UNetCase, installed, plain_operations

ONNX_OPSET = 21
MNN_OPSET = 18
"""Where GroupNormalization is no operation yet and is exported as InstanceNormalization, which MNN takes."""


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="mrsi_fast_peers_")  # removed when the process ends


_exported: dict[tuple[int, int], tuple[UNetCase, Path]] = {}  # by id of the case, which is kept alive beside it


def export_onnx(case: UNetCase, opset: int = ONNX_OPSET) -> Path:
    """The evaluation as an ONNX file with static shapes; made once for a case and an opset."""
    if (id(case), opset) in _exported:
        return _exported[id(case), opset][1]
    for name in ("onnx", "onnxscript"):
        installed(name)
    path = Path(_folder().name) / f"unet{len(_exported)}.onnx"
    module = PlainEvaluation(case, torch.contiguous_format).eval()
    with torch.no_grad(), plain_operations():
        torch.onnx.export(
            module, case.inputs, path, input_names=list(INPUTS), opset_version=opset, dynamo=True, verbose=False
        )
    _exported[id(case), opset] = (case, path)
    return path


def onnx_runtime(case: UNetCase, threads: int) -> Runner:
    """ONNX Runtime on the CPU in float32, all graph optimisations, threads that do not spin while others run."""
    runtime = installed("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = runtime.InferenceSession(export_onnx(case), options, providers=["CPUExecutionProvider"])
    wanted = {one.name for one in session.get_inputs()}
    feed = {name: one.numpy() for name, one in zip(INPUTS, case.inputs, strict=True) if name in wanted}
    return lambda: torch.from_numpy(session.run(None, feed)[0])


def openvino(case: UNetCase, threads: int, precision: str = "f32") -> Runner:
    """OpenVINO on the CPU, the precision asked for (its default may be lower), one stream on pinned threads."""
    core = installed("openvino").Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise Missing("OpenVINO finds no instructions for bfloat16 in this processor")
    model = core.compile_model(
        str(export_onnx(case)),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": "1",
            "ENABLE_CPU_PINNING": True,
            "PERFORMANCE_HINT": "LATENCY",
        },
    )
    request = model.create_infer_request()
    named = dict(zip(INPUTS, case.inputs, strict=True))
    feed = {port.any_name: named[port.any_name].numpy() for port in model.inputs}
    return lambda: torch.from_numpy(request.infer(feed, share_inputs=True)[model.output(0)])


def mnn(case: UNetCase, threads: int) -> Runner:
    """MNN on the CPU, high precision (float32), from ONNX of an opset that it takes.

    Its converter is called below ``MNN.tools``, whose import would install a package that reports usage.
    """
    library, converter = installed("MNN.expr"), installed("_tools")
    names = [one.name for one in installed("onnx").load(export_onnx(case, MNN_OPSET)).graph.input]
    model = Path(_folder().name) / f"unet{len(_exported)}.mnn"
    words = {"-f": "ONNX", "--modelFile": export_onnx(case, MNN_OPSET), "--MNNModel": model, "--bizCode": "none"}
    converter.mnnconvert(["mnnconvert", *(str(one) for pair in words.items() for one in pair)])
    module = mnn_module(model, names, [], threads)
    named = dict(zip(INPUTS, case.inputs, strict=True))
    feed = [library.const(named[name].numpy(), list(named[name].shape), library.NCHW, library.float) for name in names]
    return lambda: torch.from_numpy(module.forward(feed)[0].read())


def mnn_module(model: Path, inputs: list[str], outputs: list[str], threads: int) -> Any:
    """An MNN file, ready to run in float32."""
    library = installed("MNN.nn")
    settings = {"backend": "CPU", "numThread": threads, "precision": "high", "power": "high", "memory": "high"}
    runtime = library.create_runtime_manager((settings,))
    return library.load_module_from_file(str(model), inputs, outputs, runtime_manager=runtime)
