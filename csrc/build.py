"""Compile csrc/ into the extension module mrsi_fast._C: by setup.py, or by hand: ``python csrc/build.py --inplace``.

Needs a C++17 compiler, pybind11 and ninja; never torch. Kernel files (``cpu/*.inl``) are compiled once for each
instruction set through the stubs ``cpu/isa_*.cpp``; CUDA sources (``cuda/*.cu``) by nvcc where a toolkit is found. What
was left out, and why, goes to ``_build_info.json`` beside the module.

Environment: ``MRSI_FAST_NATIVE`` and ``MRSI_FAST_CUDA`` = ``auto`` (leave out what cannot be built, one line why),
``1`` (fail instead) or ``0``; ``MRSI_FAST_CUDA_ARCHS`` (default ``80;90;120+PTX``); ``CUDA_HOME``; ``CXX``;
``MAX_JOBS``.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

CSRC = Path(__file__).resolve().parent
ROOT = CSRC.parent
DEFAULT_ARCHS = "80;90;120+PTX"
# -ffp-contract=fast lets a*b+c be one rounding (FMA). No -ffast-math, no -march=native: the numbers are quantities, and
# the binary must run on the next machine.
CXX_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-Wall", "-Wextra"]
ISA_FLAGS = {
    "plain": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma", "-mprefer-vector-width=512"]
    + ["-Wno-maybe-uninitialized"],  # gcc 12 warns about its own avx512fintrin.h
}
AMX_FLAGS = [*ISA_FLAGS["avx512"], "-mavx512bf16"]
SANITIZE_FLAGS = [
    "-g",
    "-O1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-fno-omit-frame-pointer",
]


class BuildError(Exception):
    """What cannot be built, and why, in one sentence."""


@dataclass(frozen=True)
class Part:
    """Whether a part of the extension is built, and the reason."""

    built: bool
    reason: str


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit: its folder, the folder of its static runtime, and the code it is asked to generate."""

    home: Path
    libraries: Path
    archs: tuple[str, ...]


@dataclass
class NinjaFile:
    """Rules and edges of one build, collected in order and written at once.

    Ninja runs in csrc/, so that sources and headers have the same names in every checkout and ccache knows them again.
    """

    folder: Path
    lines: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)

    def rule(self, name: str, command: str) -> None:
        """Declare a compile rule whose header dependencies the compiler reports."""
        deps = "\n  deps = gcc\n  depfile = $out.d" if "$out.d" in command else ""
        self.lines.append(f"rule {name}\n  command = {command}\n  description = {name} $out{deps}\n")

    def compile(self, rule: str, source: Path, name: str, **variables: str) -> None:
        """Add one object file, made from a source in csrc/."""
        target, source = escape(self.folder / name), source.relative_to(CSRC)
        extra = "".join(f"\n  {key} = {value}" for key, value in variables.items())
        self.lines.append(f"build {target}: {rule} {escape(source)}{extra}\n")
        self.objects.append(target)


def escape(path: Path) -> str:
    """A path as ninja reads it."""
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def switch(name: str) -> str:
    """Read an ``auto|1|0`` environment variable."""
    value = os.environ.get(name, "auto").strip().lower() or "auto"
    if value not in ("auto", "1", "0"):
        raise BuildError(f"{name}={value} is not understood; use auto, 1 or 0.")
    return value


def decide(name: str, obstacle: str | None, found: str) -> Part:
    """Turn what was found into a decision; with the switch at 1 an obstacle is an error."""
    wanted = switch(name)
    if wanted == "0":
        return Part(False, f"{name}=0")
    if obstacle and wanted == "1":
        raise BuildError(f"{name}=1, but {obstacle}.")
    return Part(not obstacle, obstacle or found)


def compiler() -> str | None:
    """The C++ compiler: $CXX, else the first of c++, g++, clang++ on PATH."""
    named = os.environ.get("CXX")
    if named:
        return named
    return next((path for path in map(shutil.which, ("c++", "g++", "clang++")) if path), None)


def ninja() -> str | None:
    """The ninja executable of the ``ninja`` package, else one on PATH."""
    try:
        import ninja as package

        return str(Path(package.BIN_DIR) / "ninja")
    except ImportError:
        return shutil.which("ninja")


def native_part() -> Part:
    """Whether the CPU kernels, and with them the extension, are built."""
    machine, obstacle = platform.machine(), None
    if sys.platform not in ("linux", "darwin"):
        obstacle = f"native kernels are not built on {sys.platform}"
    elif compiler() is None:
        obstacle = "no C++ compiler was found (tried $CXX, c++, g++, clang++)"
    elif ninja() is None:
        obstacle = "ninja was not found (pip install ninja)"
    return decide("MRSI_FAST_NATIVE", obstacle, f"{compiler()} on {machine}")


def find_toolkit() -> tuple[Toolkit | None, str]:
    """Look for a whole CUDA toolkit; an nvcc wrapper on PATH is not one, it needs headers and the static runtime."""
    if not list((CSRC / "cuda").glob("*.cu")):
        return None, "there are no CUDA sources"
    if sys.platform != "linux":
        return None, f"CUDA kernels are not built on {sys.platform}"
    named = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    standard = ["/usr/local/cuda", *sorted(map(str, Path("/usr/local").glob("cuda-*")), reverse=True), "/opt/cuda"]
    lacking = []
    for home in map(Path, named or standard):
        runtimes = [home / "lib64", home / "lib", *home.glob("targets/*/lib")]
        libraries = next((folder for folder in runtimes if (folder / "libcudart_static.a").is_file()), None)
        missing = [part for part in ("bin/nvcc", "include/cuda_runtime.h") if not (home / part).is_file()]
        missing += [] if libraries else ["libcudart_static.a"]
        if libraries and not missing:
            archs = tuple(os.environ.get("MRSI_FAST_CUDA_ARCHS", DEFAULT_ARCHS).replace(",", ";").split(";"))
            return Toolkit(home, libraries, archs), f"toolkit in {home}"
        lacking.append(f"{home} has no {' and no '.join(missing)}")
    return None, "no CUDA toolkit was found: " + "; ".join(lacking)


def arch_flags(archs: tuple[str, ...]) -> list[str]:
    """``80;120+PTX`` as nvcc options: machine code for each, and portable PTX where asked for."""
    flags = []
    for arch in archs:
        number, _, suffix = arch.strip().replace(".", "").partition("+")
        if not number.rstrip("af").isdigit() or suffix not in ("", "PTX"):
            raise BuildError(f"MRSI_FAST_CUDA_ARCHS has '{arch}'; write it like {DEFAULT_ARCHS}.")
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if suffix:
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


def isas() -> list[str]:
    """Instruction sets compiled for this processor family and system."""
    return list(ISA_FLAGS) if platform.machine() == "x86_64" and sys.platform == "linux" else ["plain"]


def amx_part() -> Part:
    """Whether convolutions in AMX tiles are built; older compilers and assemblers do not know the instructions."""
    if "avx512" not in isas():
        return Part(False, "AMX is part of x86-64 on Linux")
    program = 'int main() { __asm__ volatile("tdpbf16ps %tmm2, %tmm1, %tmm0"); }'
    command = [*shlex.split(str(compiler())), *AMX_FLAGS, "-x", "c++", "-c", "-", "-o", os.devnull]
    tried = subprocess.run(command, input=program, text=True, capture_output=True, check=False)
    return Part(tried.returncode == 0, "the compiler knows AMX" if tried.returncode == 0 else "the compiler is too old")


def include_flags() -> list[str]:
    """Our headers, then Python's and pybind11's as system headers (their warnings are not ours)."""
    import pybind11

    system = [sysconfig.get_path("include"), pybind11.get_include()]
    return ["-Iinclude", "-I.", *(f"-isystem {shlex.quote(str(folder))}" for folder in system)]


def cxx_edges(file: NinjaFile, extra: list[str], with_cuda: bool, with_amx: bool) -> None:
    """Objects of ``*.cpp``, ``cpu/*.cpp`` (baseline flags) and of every ``cpu/*.inl`` per instruction set."""
    openmp = ["-fopenmp"] if sys.platform == "linux" else ["-Wno-unknown-pragmas"]
    defines = ["-DMRSI_FAST_WITH_CUDA"] * with_cuda + ["-DMRSI_FAST_WITH_AMX"] * with_amx
    ccache = [path] if (path := shutil.which("ccache")) else []
    command = [*ccache, str(compiler()), "-MMD -MF $out.d", *CXX_FLAGS, *openmp, *defines, *include_flags(), *extra]
    file.rule("cxx", " ".join([*command, "$flags", "-c $in -o $out"]))
    folders = [CSRC, CSRC / "cpu"] + ([CSRC / "cuda"] if with_cuda else [])
    for source in (path for folder in folders for path in sorted(folder.glob("*.cpp"))):
        if source.name == "amx.cpp":
            if with_amx:
                file.compile("cxx", source, "cpu_amx.o", flags=" ".join(AMX_FLAGS))
        elif not source.name.startswith("isa_"):
            file.compile("cxx", source, f"{source.parent.name}_{source.stem}.o")
    for kernel in sorted((CSRC / "cpu").glob("*.inl")):
        for isa in isas():
            define = f"-DMRSI_FAST_KERNEL_FILE='\"cpu/{kernel.name}\"'"
            flags = " ".join([*ISA_FLAGS[isa], define])
            file.compile("cxx", CSRC / "cpu" / f"isa_{isa}.cpp", f"{kernel.stem}_{isa}.o", flags=flags)


def cuda_edges(file: NinjaFile, toolkit: Toolkit) -> None:
    """Objects of ``cuda/*.cu``: toolkit headers only, ``extern "C"`` launchers."""
    host = [f"-Xcompiler={flag}" for flag in ("-fPIC", "-fvisibility=hidden", "-Wall")]
    command = [str(toolkit.home / "bin" / "nvcc"), "-MD -MF $out.d", "-std=c++17 -O3 -lineinfo", *host]
    command += [*arch_flags(toolkit.archs), "-Iinclude -I. -c $in -o $out"]
    ccache = [path] if (path := shutil.which("ccache")) else []
    file.rule("nvcc", " ".join([*ccache, *command]))
    for source in sorted((CSRC / "cuda").glob("*.cu")):
        file.compile("nvcc", source, f"cuda_{source.stem}.cu.o")


def link_command(toolkit: Toolkit | None, extra: list[str]) -> str:
    """Link against neither torch nor an OpenMP runtime.

    The GOMP_* symbols stay open and are found in the OpenMP library that torch has loaded, whatever its file is called:
    a library of our own would bring a second pool of threads.
    """
    shared = "-bundle -undefined dynamic_lookup" if sys.platform == "darwin" else "-shared"
    cuda = f"-L{toolkit.libraries} -lcudart_static -ldl -lrt -lpthread" if toolkit else ""
    return " ".join([str(compiler()), shared, *extra, "$in", cuda, "-o $out"])


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One build in a folder at a time."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def run_ninja(folder: Path, toolkit: Toolkit | None, amx: Part, extra: list[str], verbose: bool) -> Path:
    """Write ``build.ninja`` into the folder and run it; returns the module."""
    file, module = NinjaFile(folder), folder / "_C.so"
    cxx_edges(file, extra, with_cuda=toolkit is not None, with_amx=amx.built)
    if toolkit:
        cuda_edges(file, toolkit)
    file.lines.append(f"rule link\n  command = {link_command(toolkit, extra)}\n  description = link $out\n")
    file.lines.append(f"build {escape(module)}: link {' '.join(file.objects)}\n")
    (folder / "build.ninja").write_text(f"builddir = {escape(folder)}\n" + "\n".join(file.lines))
    jobs = [f"-j{os.environ['MAX_JOBS']}"] if os.environ.get("MAX_JOBS") else []
    command = [str(ninja()), "-f", str(folder / "build.ninja"), *jobs, *(["-v"] if verbose else []), str(module)]
    if subprocess.run(command, check=False, cwd=CSRC, stdout=sys.stderr).returncode:
        raise BuildError("compiling failed (the compiler's messages stand above)")
    return module


def source_digest() -> str:
    """SHA-256 over csrc, so that a module can be told from the sources it no longer matches."""
    digest = hashlib.sha256()
    for path in sorted(path for path in CSRC.rglob("*") if path.suffix in (".cpp", ".h", ".inl", ".cu", ".cuh", ".py")):
        digest.update(path.relative_to(CSRC).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def build_info(cuda: Part, toolkit: Toolkit | None, amx: Part) -> dict[str, object]:
    """What ``mrsi-fast doctor`` reports about the module."""
    version = subprocess.run([str(compiler()), "--version"], capture_output=True, text=True, check=False).stdout
    return {
        "built_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "compiler": version.splitlines()[0] if version else str(compiler()),
        "cxx_flags": CXX_FLAGS,
        "isas": isas(),
        "amx": amx.reason,
        "openmp": sys.platform == "linux",
        "cuda": {"built": cuda.built, "reason": cuda.reason, "archs": list(toolkit.archs) if toolkit else []},
        "python": platform.python_version(),
        "source_sha256": source_digest(),
    }


def build(target: Path, work: Path, *, sanitize: bool = False, verbose: bool = False) -> None:
    """Compile the extension to ``target`` and write ``_build_info.json`` beside it.

    Args:
        target: Path of the module to write; replaced at once, so that a process that has it loaded is not disturbed.
        work: Folder for objects, kept between builds.
        sanitize: Build with AddressSanitizer and UndefinedBehaviorSanitizer.
        verbose: Show the compiler's command lines.

    Raises:
        BuildError: The compiler failed, or a switch at 1 asks for what is not possible.
    """
    toolkit, reason = find_toolkit()
    cuda, amx = decide("MRSI_FAST_CUDA", None if toolkit else reason, reason), amx_part()
    extra = SANITIZE_FLAGS if sanitize else []
    with locked(work):
        try:
            module = run_ninja(work, toolkit if cuda.built else None, amx, extra, verbose)
        except BuildError:
            if not cuda.built or switch("MRSI_FAST_CUDA") == "1":
                raise
            cuda = Part(False, "compiling with CUDA failed (the compiler's messages stand above)")
            module = run_ninja(work, None, amx, extra, verbose)
        if not cuda.built:
            print(f"mrsi_fast: CUDA kernels are left out: {cuda.reason}.", file=sys.stderr)
        target.parent.mkdir(parents=True, exist_ok=True)
        replace(module, target)
        info = json.dumps(build_info(cuda, toolkit if cuda.built else None, amx), indent=2)
        (target.parent / "_build_info.json").write_text(info + "\n")


def replace(source: Path, target: Path) -> None:
    """Copy a file over another in one step."""
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, partial)
    os.replace(partial, target)


def main() -> int:
    """Build into the checkout, for development; ccache is used where it is installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inplace", action="store_true", required=True, help="put the module into mrsi_fast/")
    parser.add_argument(
        "--sanitize", action="store_true", help="AddressSanitizer and UBSan (preload libasan to use it)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show command lines")
    options = parser.parse_args()
    target = ROOT / "mrsi_fast" / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    try:
        native = native_part()
        if not native.built:
            raise BuildError(native.reason)
        build(
            target,
            ROOT / "build" / ("sanitize" if options.sanitize else "inplace"),
            sanitize=options.sanitize,
            verbose=options.verbose,
        )
    except BuildError as error:
        print(f"mrsi_fast: {error}", file=sys.stderr)
        return 1
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
