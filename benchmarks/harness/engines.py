"""All engines of ``bench_unet`` in float32, by the label of their rows."""

from __future__ import annotations

import functools
from collections.abc import Callable

from harness.onnx_peers import mnn, onnx_runtime, openvino
from harness.peers import Runner, UNetCase, compiled, eager, eager_channels, fused_eager, native_engine

ENGINES: dict[str, Callable[[UNetCase, int], Runner]] = {
    "native": native_engine,
    "native-amx": functools.partial(native_engine, pairs=True),
    "eager": eager,
    "eager-channels": eager_channels,
    "fused-eager": fused_eager,
    "compile": compiled,
    "ort": onnx_runtime,
    "openvino": openvino,
    "mnn": mnn,
}
