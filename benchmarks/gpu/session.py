"""One session on a borrowed GPU: ``python -m gpu.session`` from ``benchmarks/`` (``make gpu-record``), 480 s in all.

Parts run in order, each in a process with a limit of its own, and what they found is on disk after each: the kernels
are built, or taken as they were carried along; the GPU tests run; the benchmarks write their history, the table of
choices and the tables of docs/speed.md. Nothing is downloaded. ``--dry-run FOLDER`` goes the same way on CPU tensors.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from support.data import checkout

SESSION_S = 480.0
CARRIED_MB = 64.0
"""What may be carried to a machine: sources, and the extension as it was built elsewhere."""
TAIL = 2000  # characters of output that the log keeps


@dataclass(frozen=True)
class Part:
    """One step of a session.

    Attributes:
        name: For the log.
        command: What to run.
        folder: Where, below the checkout.
        share: Of the session's time, at most; what earlier parts leave is the later ones'.
    """

    name: str
    command: list[str]
    folder: str
    share: float


@dataclass(frozen=True)
class Done:
    """How a part went: seconds used and allowed, exit code (124: out of time), the end of its output."""

    part: str
    seconds: float
    allowed: float
    code: int
    tail: str


def has_cuda_kernels() -> bool:
    """Whether the extension that is there has them."""
    code = "from mrsi_fast.ops import _native; import sys; sys.exit(_native.lacks('cuda_solver_step') is not None)"
    return subprocess.run([sys.executable, "-c", code], cwd=checkout(), check=False).returncode == 0


def parts(dry: Path | None, seconds: float) -> list[Part]:
    """The session's parts in their order; a dry run builds nothing."""
    python, found = sys.executable, []
    if dry is None and not has_cuda_kernels() and shutil.which("nvcc"):
        found.append(Part("build", [python, "csrc/build.py", "--inplace"], ".", 0.35))
    tests = [python, "-m", "pytest", "-q", "-x", "-m", "not slow", "tests/gpu", *(["--dry-run"] if dry else [])]
    found.append(Part("tests", tests, ".", 0.25))
    benchmarks = [python, "-m", "gpu", *(["--dry-run", str(dry), "--rounds", "2"] if dry else []), "--seconds"]
    return [*found, Part("benchmarks", benchmarks, "benchmarks", 1.0)]


def run(part: Part, allowed: float) -> Done:
    """Runs a part within its time."""
    command = [*part.command, f"{allowed - 10:.0f}"] if part.command[-1] == "--seconds" else part.command
    started = time.monotonic()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=checkout() / part.folder, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            output, code = process.communicate(timeout=allowed)[0], process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            output, code = process.communicate()[0], 124
    return Done(part.name, round(time.monotonic() - started, 1), round(allowed, 1), code, output[-TAIL:])


def carried_mb() -> float:
    """Size of what a session takes along: tracked files and the compiled extension."""
    root = checkout()
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True)
    files = [root / name for name in listed.stdout.split("\0") if name]
    files += list((root / "mrsi_fast").glob("_C.*"))
    return sum(path.stat().st_size for path in files if path.is_file()) / 2**20


def main() -> int:
    """Runs a session; the exit code is that of the first part that failed."""
    parser = argparse.ArgumentParser(prog="python -m gpu.session", description=__doc__)
    parser.add_argument("--dry-run", type=Path, metavar="FOLDER", help="Show on CPU tensors that every part runs.")
    parser.add_argument("--seconds", type=float, default=SESSION_S, help="Time of the whole session.")
    options = parser.parse_args()
    folder = options.dry_run or checkout() / "benchmarks" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    started, log, size = time.monotonic(), [], carried_mb()
    print(f"carried along: {size:.1f} MiB of at most {CARRIED_MB:.0f}", flush=True)
    for part in parts(options.dry_run, options.seconds):
        left = options.seconds - (time.monotonic() - started)
        done = run(part, min(left, part.share * options.seconds))
        log.append(asdict(done))
        facts = {"session_s": options.seconds, "carried_mb": round(size, 1), "parts": log}
        (folder / "gpu-session.json").write_text(json.dumps(facts, indent=1) + "\n")
        print(f"{part.name}: {done.seconds:.1f} s of {done.allowed:.1f}, exit code {done.code}", flush=True)
    print(f"{time.monotonic() - started:.1f} s of {options.seconds:.0f}")
    return next((int(one["code"]) for one in log if one["code"]), 0)


if __name__ == "__main__":
    sys.exit(main())
