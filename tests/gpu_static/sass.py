"""Reads GPU machine code without a GPU: registers, spills, vector width and tensor-core instructions of a cubin."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from support.cuda_tools import cuobjdump

# Instruction classes by opcode. 64-bit floating point is a class because it must not occur.
CLASSES = {
    "tensor": r"(HMMA|HGMMA|UTCHMMA)",
    "ldg": r"LDG\.",
    "ldg128": r"LDG\..*\b128",
    "stg": r"STG\.",
    "stg128": r"STG\..*\b128",
    "async_copy": r"(LDGSTS|UTMALDG|UBLKCP)",
    "ldmatrix": r"LDSM",
    "local": r"(LDL|STL)",
    "float64": r"(DADD|DMUL|DFMA|DSETP|F2F\.F64|F2F\.F32\.F64)",
    "float_atomic": r"(ATOM|ATOMG|ATOMS|RED|REDG)\b.*\.F(16|32|64)",
}


@dataclass(frozen=True)
class KernelCode:
    """One kernel in one cubin.

    Attributes:
        symbol: Mangled name.
        registers: Per thread.
        stack: Bytes of stack frame per thread; 0 without spills.
        local: Bytes of local memory per thread.
        static_shared: Bytes of static shared memory per block.
        instructions: Number of instructions.
        counts: Instructions by class of ``CLASSES``.
    """

    symbol: str
    registers: int
    stack: int
    local: int
    static_shared: int
    instructions: int
    counts: Counter[str]

    @property
    def name(self) -> str:
        """Readable name with template arguments: ``group_norm_silu_fused_kernel<half, 8>``."""
        match = re.search(r"\d+([a-z_]+_kernel)(?:I(.*?)EE?v)?", self.symbol)
        if match is None:
            return self.symbol
        kernel, arguments = match.groups()
        if not arguments:
            return kernel
        element = "bfloat16" if "__nv_bfloat16" in arguments else "half" if "__half" in arguments else ""
        element = element or ("float" if arguments.startswith("f") else "")
        numbers = re.findall(r"Li(\d+)", arguments)
        return f"{kernel}<{', '.join([element, *numbers] if element else numbers)}>"


def _run(*arguments: str) -> str:
    tool = cuobjdump()
    environment = {**os.environ, "PATH": f"{tool.parent}{os.pathsep}{os.environ.get('PATH', '')}"}  # it calls nvdisasm
    run = subprocess.run([str(tool), *arguments], capture_output=True, text=True, env=environment)
    if run.returncode:
        raise RuntimeError(f"cuobjdump {' '.join(arguments)} failed: {run.stderr.strip()}")
    return run.stdout


def read_cubin(path: Path) -> list[KernelCode]:
    """Return the kernels of a cubin, ordered by name.

    Raises:
        ToolMissingError: cuobjdump is not installed.
        RuntimeError: cuobjdump cannot read the file.
    """
    opcodes: dict[str, list[str]] = {}
    current: list[str] = []
    for line in _run("-sass", str(path)).splitlines():
        if function := re.match(r"\s+Function : (\S+)", line):
            current = opcodes.setdefault(function[1], [])
        elif code := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(?:@!?U?P\S+\s+)?([A-Z][A-Z0-9_.]+)", line):
            current.append(code[1])
    kernels = []
    usage = r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)"
    for symbol, *numbers in re.findall(usage, _run("-res-usage", str(path))):
        registers, stack, shared, local = map(int, numbers)
        codes = opcodes[symbol]
        counts = Counter({name: sum(bool(re.match(p, code)) for code in codes) for name, p in CLASSES.items()})
        kernels.append(KernelCode(symbol, registers, stack, local, shared, len(codes), counts))
    return sorted(kernels, key=lambda kernel: kernel.name)
