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


def _group_norm_silu(module: Any, backward: bool) -> Call:
    batch, channels, spatial, groups = sizes = (1, 96, 32 * 32, 6)
    x, out, grad, grad_x = (_floats(batch * channels * spatial) for _ in range(4))
    small = [_floats(channels) for _ in range(4)]
    inputs = (*map(_address, (x, *small[:2])), 0, 0, sizes, True, 1e-5, 1)

    def call() -> None:
        _ = x  # what is passed by address has to live
        if backward:
            grads = [_address(grad_x), _address(small[2]), _address(small[3]), 0, 0]
            module.group_norm_silu_backward(*inputs, _address(grad), grads)
        else:
            module.group_norm_silu(*inputs, _address(out))

    return call


def _convolution(module: Any, inputs: int, outputs: int, size: int, tile: int) -> Call:
    strips, pixels = -(-size // 4), size * size
    starts, end = [], 0
    for floats in (pixels * inputs, strips * 2 * inputs, pixels * outputs, strips * 2 * outputs):
        starts.append(end)
        end += -(-floats // 16) * 16
    affine, weights = [_floats(inputs) for _ in range(2)], [_floats(9 * inputs * outputs), _floats(outputs)]
    plan = module.Plan(end, 0, 1)
    plan.add_conv(
        sources=[(starts[0], starts[1], inputs, False)],
        grid=[1, size, size],
        groups=inputs // 16,
        eps=1e-5,
        affine=list(map(_address, affine)),
        film=[-1, -1],
        tile=tile,
        shape=[3, 1, outputs],
        weights=list(map(_address, weights)),
        buffers=[-1, starts[2], starts[3]],
    )
    return lambda: plan.evaluate(0)


def _attention(module: Any, tokens: int, heads: int) -> Call:
    channels = 32 * heads
    plan = module.Plan(4 * tokens * channels, 0, 1)
    plan.add_attention(0, 3 * tokens * channels, 1, tokens, heads, 32)
    return lambda: plan.evaluate(0)


_FORWARD, _BACKWARD = "mrsi_fast::group_norm_silu(*", "mrsi_fast::group_norm_silu_backward(*"
_EVALUATE = "mrsi_fast::Plan::evaluate(*"

KERNELS: dict[str, tuple[str, Callable[[Any], Call]]] = {
    "group_norm_silu 96x32x32": (_FORWARD, lambda module: _group_norm_silu(module, backward=False)),
    "group_norm_silu backward 96x32x32": (_BACKWARD, lambda module: _group_norm_silu(module, backward=True)),
    "conv3x3_gn_silu 96to96 32x32": (_EVALUATE, lambda module: _convolution(module, 96, 96, 32, 4)),
    "conv3x3_gn_silu 256to256 8x8": (_EVALUATE, lambda module: _convolution(module, 256, 256, 8, 4)),
    "conv3x3_gn_silu direct 32to32 8x8": (_EVALUATE, lambda module: _convolution(module, 32, 32, 8, 0)),
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
