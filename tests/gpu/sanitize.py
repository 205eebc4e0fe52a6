"""Runs every CUDA kernel under compute-sanitizer: memory, races, barriers and uninitialised reads (``make gpu``).

Without an argument it starts itself once under each tool; ``--body`` is what runs there, on ``--device``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import torch

from mrsi_fast import ops
from mrsi_fast.mrsi.forward import Acquisition

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # started as a script
from support.cuda_tools import ToolMissingError, compute_sanitizer  # noqa: E402

TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
FOUND = 9


def body(device: torch.device) -> None:
    """Each kernel variant once, on small and odd shapes."""
    with ops.override("cuda"):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            for size, groups in (((2, 96, 9, 7), 6), ((1, 6, 3, 11), 3), ((1, 32, 80, 50), 2)):
                x = torch.randn(size).to(device, dtype).contiguous(memory_format=torch.channels_last)
                vector, film = torch.randn(size[1]).to(device, dtype), torch.randn(size[:2]).to(device, dtype)
                out = torch.empty_like(x)
                torch.ops.mrsi_fast.group_norm_silu_out(
                    x, vector, vector, groups, film, film, 1e-5, out, conv_bias=vector, embedding=film
                )
        modes = Acquisition((8, 8), (4, 4)).modes(torch.float32, device)
        state = torch.randn(4, 3, 32, 32).to(device)
        coefficients, step = torch.randn(2, 4).to(device), torch.tensor([1], device=device)
        for bases in ((None, None, None), (modes.hr_x.contiguous(), modes.hr_y.contiguous(), modes.kept)):
            ops.solver_step(*state, coefficients, step, *bases)
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> int:
    """Returns 0 if no tool found anything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--body", action="store_true")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    if options.body:
        body(torch.device(options.device))
        return 0
    try:
        sanitizer = compute_sanitizer()
    except ToolMissingError as error:
        print(f"The kernels were not run under compute-sanitizer: {error}.")
        return 1
    # Blocks of PyTorch's cache would hide a step beyond a tensor.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    worst = 0
    for tool in TOOLS:
        command = [str(sanitizer), "--tool", tool, "--error-exitcode", str(FOUND), sys.executable, str(Path(__file__))]
        status = subprocess.run([*command, "--body"], env=environment).returncode
        print(f"compute-sanitizer {tool}: {'clean' if status == 0 else f'exit code {status}'}")
        worst = max(worst, status)
    return 1 if worst else 0


if __name__ == "__main__":
    sys.exit(main())
