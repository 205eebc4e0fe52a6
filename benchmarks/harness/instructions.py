"""Counts the instructions of the compiled kernels at shapes of the network: a measure that no busy machine disturbs.

``count(kernel)`` runs this file under valgrind's callgrind, which runs it in a Python without PyTorch, calls the kernel
once on one thread and counts from its entry to its return. The kernel's work must not depend on its data.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Call = Callable[[], None]


_OPENMP = [f"{folder}/libgomp.so.1" for folder in ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/usr/lib64")]


class CannotCount(Exception):
    """Instructions cannot be counted here; the message is a clause that says why."""


def _floats(count: int) -> Any:
    values = (ctypes.c_float * count)()
    for index in range(0, count, 7):
        values[index] = (index % 101 - 50) / 50.0
    return values


def _address(buffer: Any) -> int:
    return ctypes.addressof(buffer)


def _struct(module: Any, kind: str, /, **fields: Any) -> Any:
    """As ``mrsi_fast.ops._native.struct``, which imports PyTorch."""
    filled = getattr(module, kind)()
    for field, value in fields.items():
        setattr(filled, field, value)
    return filled


def _group_norm_silu(module: Any, backward: bool) -> Call:
    batch, channels, spatial = 1, 96, 32 * 32
    x, out, grad, grad_x = (_floats(batch * channels * spatial) for _ in range(4))
    small = [_floats(channels) for _ in range(4)]
    sizes = {"batch": batch, "channels": channels, "spatial": spatial, "groups": 6, "channels_last": True, "eps": 1e-5}
    given = {"x": _address(x), "weight": _address(small[0]), "bias": _address(small[1])}
    request = _struct(module, "GroupNormSilu", **given, **sizes)
    wanted = {"x": _address(grad_x), "weight": _address(small[2]), "bias": _address(small[3])}
    gradients = _struct(module, "GroupNormSiluGradients", out=_address(grad), **wanted)

    def call() -> None:
        _ = x, small, grad, grad_x  # what is passed by address has to live
        if backward:
            module.group_norm_silu_backward(request, gradients)
        else:
            module.group_norm_silu(request, _address(out))

    return call


def _convolution(module: Any, inputs: int, outputs: int, size: int, method: str) -> Call:
    strips, pixels = -(-size // 4), size * size
    starts, end = [], 0
    for floats in (pixels * inputs, strips * 2 * inputs, pixels * outputs, strips * 2 * outputs):
        starts.append(end)
        end += -(-floats // 16) * 16
    affine, weights = [_floats(inputs) for _ in range(2)], [_floats(9 * inputs * outputs), _floats(outputs)]
    plan = module.Plan(end, 0, 1)
    spec = _struct(
        module,
        "ConvSpec",
        sources=[_struct(module, "SourceSpec", data=starts[0], stats=starts[1], channels=inputs)],
        **{"batch": 1, "height": size, "width": size, "out_channels": outputs, "groups": inputs // 16, "eps": 1e-5},
        method=module.ConvMethod.__members__[method],
        out=starts[2],
        out_stats=starts[3],
    )
    spec.gamma, spec.beta = map(_address, affine)
    spec.weight, spec.bias = map(_address, weights)
    plan.add_conv(spec)
    return lambda: plan.evaluate(0)


def _attention(module: Any, tokens: int, heads: int) -> Call:
    channels = 32 * heads
    plan = module.Plan(4 * tokens * channels, 0, 1)
    sizes = {"batch": 1, "tokens": tokens, "heads": heads, "head_channels": 32}
    plan.add_attention(_struct(module, "AttentionSpec", qkv=0, out=3 * tokens * channels, **sizes))
    return lambda: plan.evaluate(0)


_FORWARD, _BACKWARD = "mrsi_fast::group_norm_silu(*", "mrsi_fast::group_norm_silu_backward(*"
_EVALUATE = "mrsi_fast::Plan::evaluate(*"

KERNELS: dict[str, tuple[str, Callable[[Any], Call]]] = {
    "group_norm_silu 96x32x32": (_FORWARD, lambda module: _group_norm_silu(module, backward=False)),
    "group_norm_silu backward 96x32x32": (_BACKWARD, lambda module: _group_norm_silu(module, backward=True)),
    "conv3x3_gn_silu 96to96 32x32": (_EVALUATE, lambda module: _convolution(module, 96, 96, 32, "winograd4")),
    "conv3x3_gn_silu 256to256 8x8": (_EVALUATE, lambda module: _convolution(module, 256, 256, 8, "winograd4")),
    "conv3x3_gn_silu direct 32to32 8x8": (_EVALUATE, lambda module: _convolution(module, 32, 32, 8, "direct")),
    "self_attention 16x16 5x32": (_EVALUATE, lambda module: _attention(module, 256, 5)),
}
"""By name: the function whose instructions are counted, and what makes the call."""


def extension_path() -> Path | None:
    """Where the compiled extension lies, without importing it."""
    spec = importlib.util.find_spec("mrsi_fast")
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    found = [path for suffix in importlib.machinery.EXTENSION_SUFFIXES for path in package.glob(f"_C{suffix}")]
    return found[0] if found else None


def obstacle() -> str | None:
    """Why instructions cannot be counted here, as a clause, or None."""
    if shutil.which("valgrind") is None:
        return "valgrind is not installed"
    return "the compiled extension is not there" if extension_path() is None else None


def count(kernel: str) -> int:
    """Instructions of one call, the same at every time on every machine with this binary and instruction set.

    Args:
        kernel: A key of ``KERNELS``.

    Raises:
        CannotCount: valgrind or the extension is missing, or valgrind cannot run the kernel.
    """
    reason = obstacle()
    if reason is not None:
        raise CannotCount(reason)
    options = ["--tool=callgrind", "--collect-atstart=no", f"--toggle-collect={KERNELS[kernel][0]}"]
    command = [
        "valgrind",
        *options,
        "--callgrind-out-file=/dev/null",
        sys.executable,
        "-I",
        "-S",
        __file__,
        kernel,
        str(extension_path()),
    ]
    runtime = next((str(path) for path in map(Path, _OPENMP) if path.exists()), None)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({"LD_PRELOAD": runtime} if runtime else {})}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None or int(found[1]) == 0:
        raise CannotCount(f"valgrind counted nothing (exit code {done.returncode}: {done.stderr.strip()[-200:]})")
    return int(found[1])


def main() -> None:
    """Calls one kernel of one extension once: ``KERNEL PATH``."""
    spec = importlib.util.spec_from_file_location("_C", sys.argv[2])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    KERNELS[sys.argv[1]][1](module)()


if __name__ == "__main__":
    main()
