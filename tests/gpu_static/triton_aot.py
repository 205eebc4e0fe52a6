"""Compiles the Triton kernels ahead of time for NVIDIA architectures, on a machine without a GPU."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_static.sass import read_cubin
from gpu_static.table import ARCHITECTURES, Row, make_row
from mrsi_fast.kernels.configs import Config, configuration


@dataclass(frozen=True)
class Job:
    """One kernel to compile: argument types (None: absent), constants, and the configuration it is launched with."""

    label: str
    kernel: Any
    types: dict[str, str | None]
    constants: dict[str, int | bool]
    config: Config


def jobs(architecture: int, element: str = "fp16") -> list[Job]:
    """The kernels at the shipped model's shapes: 96 channels on 32x32, heads of 32 on 16x16, and heads of 64."""
    from mrsi_fast.kernels import group_norm_silu as norm
    from mrsi_fast.kernels import self_attention as attention

    tensor, vector = f"*{element}", "*fp32"
    norm_sizes: dict[str, str | None] = {"pixels": "i32", "channels": "i32", "eps": "fp32"}
    vectors: dict[str, str | None] = {name: tensor for name in ("weight", "bias", "scale", "shift")}
    forward, backward = (
        configuration(name, architecture, 1024) for name in ("group_norm_silu", "group_norm_silu_backward")
    )
    width = {"WIDTH": 16, "PAD": 16}
    found = [
        *(
            Job(
                label,
                norm.forward_kernel,
                {"x": tensor, **vectors, "conv_bias": bias, "embedding": None, "y": tensor, **norm_sizes},
                {**width, "BLOCK": forward.block},
                forward,
            )
            for label, bias in (("group_norm_silu", None), ("group_norm_silu with conv_bias", tensor))
        ),
        Job(
            "group_norm_silu backward",
            norm.backward_kernel,
            {"grad": tensor, "x": tensor, **vectors, "grad_x": tensor, "sum_dv": vector, "sum_dv_xhat": vector}
            | norm_sizes,
            {**width, "BLOCK": backward.block},
            backward,
        ),
    ]
    sizes = {"tokens": "i32", "heads": "i32"}
    for head in (32, 64):
        for recompute in (False, True):
            kernel = "self_attention_backward" if recompute else "self_attention"
            config = configuration(kernel, architecture, 256)
            blocks = {"HEAD": head, "QUERIES": config.block, "KEYS": config.keys}
            outputs: dict[str, str | None] = (
                {"out": None, "grad": tensor, "log_sum": vector, "delta": vector}
                if recompute
                else {"out": tensor, "grad": None, "log_sum": None, "delta": None}
            )
            found.append(
                Job(
                    f"self_attention {'statistics' if recompute else 'forward'} <{head}>",
                    attention.forward_kernel,
                    {"qkv": tensor, **outputs, **sizes, "scale_log2e": "fp32"},
                    {**blocks, "DESCRIPTORS": config.descriptors},
                    config,
                )
            )
        types = {"qkv": tensor, "grad": tensor, "log_sum": vector, "delta": vector, "grad_qkv": tensor, **sizes}
        for part, function in (("query", attention.query_gradient_kernel), ("key", attention.key_gradient_kernel)):
            label = f"self_attention {part} gradient <{head}>"
            found.append(Job(label, function, {**types, "scale": "fp32"}, blocks, config))
    return found


def compile_job(job: Job, architecture: int) -> Row:
    """Compile one kernel and read its machine code.

    Raises:
        RuntimeError: TRITON_INTERPRET is set, which excludes compilation.
    """
    if os.environ.get("TRITON_INTERPRET"):
        raise RuntimeError("TRITON_INTERPRET is set; Triton cannot compile in that mode.")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    absent = {name: None for name, kind in job.types.items() if kind is None}
    signature = {name: kind or "constexpr" for name, kind in job.types.items()}
    signature |= {name: "constexpr" for name in job.constants}
    # Allocations are 16-byte aligned, and pixels, channels and tokens of the model are multiples of 16: what Triton
    # itself would find at a call and specialise on.
    names, sizes = job.kernel.arg_names, ("pixels", "channels", "tokens")
    aligned = [name for name, kind in job.types.items() if kind and (kind.startswith("*") or name in sizes)]
    source = ASTSource(
        fn=job.kernel,
        signature=signature,
        constexprs={**job.constants, **absent},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    options = {"num_warps": job.config.warps, "num_stages": job.config.stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        (code,) = read_cubin(cubin)
    dynamic = max(0, compiled.metadata.shared - code.static_shared)
    return make_row("Triton", job.label, code, architecture, 32 * job.config.warps, dynamic)


def triton_rows(architectures: Iterable[int] = ARCHITECTURES) -> list[Row]:
    """Rows of every Triton kernel, ordered by kernel and architecture."""
    rows = [compile_job(job, architecture) for architecture in architectures for job in jobs(architecture)]
    return sorted(rows, key=lambda row: (row.kernel, row.architecture))
