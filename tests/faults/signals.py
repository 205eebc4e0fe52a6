"""Signals at random moments of ``mrsi-fast sr`` and ``mrsi-fast train``: ``make signals`` (SIGNALS=200, SEED=).

Each round starts the command, waits a random share of its usual duration, sends SIGTERM, SIGINT or SIGKILL, checks the
exit code (143, 130, -9; 0 where the run was faster), runs the command again and compares every file of the result with
those of an undisturbed run: nothing lost, nothing mixed, nothing left behind. Signals begin once Python itself has
started: before, it ends with a traceback of its own. Ends with 1 if any round fails.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np

from support.tiny import tiny_training

COMMAND = "print(flush=True); import sys; from mrsi_fast.cli import main; sys.argv[0] = 'mrsi-fast'; main()"
PROGRAM = [sys.executable, "-c", COMMAND]
CODES = {signal.SIGTERM: (143, -15), signal.SIGINT: (130, -2), signal.SIGKILL: (-9,)}


def make_inputs(folder: Path) -> Path:
    """Two subjects, so that a signal can come between them."""
    x, y = np.meshgrid(*[np.linspace(-1, 1, 12)] * 2, indexing="ij")
    for subject in ("sub-01", "sub-02"):
        (folder / subject).mkdir(parents=True)
        for number, name in enumerate(("tNAA", "tCr")):
            head = (10 - number) * np.exp(-(x**2 + y**2)) * (1 + 0.1 * (subject == "sub-02"))
            for what, values in (("conc", head), ("crlb", np.full_like(head, 5.0))):
                image = nib.Nifti1Image(values[..., None].astype(np.float32), np.diag([10.0, 10, 12, 1]))
                nib.save(image, folder / subject / f"{what}_{name}.nii.gz")
    return folder


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    """A process that has come as far as this program."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*PROGRAM, *arguments], env=environment, start_new_session=True, **pipes)
    assert process.stdout is not None and process.stdout.readline() == b"\n"
    return process


def run(arguments: list[str]) -> tuple[int, str]:
    process = start(arguments)
    _, told = process.communicate()
    return process.returncode, told.decode()


def sums(folder: Path, endings: tuple[str, ...]) -> dict[str, str]:
    """Sha256 of the files that hold numbers, by name; times stand in others."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name.endswith(endings))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def left_behind(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*.part*")]


def rounds(name: str, command: list[str], out: Path, endings: tuple[str, ...], count: int, rng: random.Random) -> int:
    begin = time.monotonic()
    code, told = run(command)
    usual, wanted = time.monotonic() - begin, sums(out, endings)
    assert code == 0 and wanted, told
    seen, failures = Counter[str](), 0
    for number in range(count):
        shutil.rmtree(out)
        kind = rng.choice(list(CODES))
        process = start(command)
        time.sleep(rng.uniform(0, 1.1) * usual)
        process.send_signal(kind)
        _, told = process.communicate()
        problems = (
            [] if process.returncode in (*CODES[kind], 0) else [f"exit {process.returncode}: {told.decode()[-300:]}"]
        )
        if "Traceback" in told.decode():
            problems.append(f"traceback: {told.decode()[-300:]}")
        seen[f"{kind.name} {process.returncode}"] += 1
        code, text = run(command)
        if code != 0:
            problems.append(f"second run: exit {code}: {text[-300:]}")
        if sums(out, endings) != wanted:
            problems.append("the files differ from those of an undisturbed run")
        if left_behind(out):
            problems.append(f"left behind: {left_behind(out)[:3]}")
        failures += bool(problems)
        for problem in problems:
            print(f"{name} round {number}, {kind.name}: {problem}", flush=True)
    print(f"{name}: {count} signals, {failures} failures; {dict(sorted(seen.items()))}", flush=True)
    return failures


def main() -> int:
    count, seed = int(os.environ.get("SIGNALS", "200")), int(os.environ.get("SEED", "0"))
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = make_inputs(folder / "in")
        sr = ["sr", "-i", str(inputs / "sub-01"), "-i", str(inputs / "sub-02"), "-o", str(folder / "out"), "--engine",
              "native", "--threads", "1", "--evidence", "off"]  # fmt: skip
        failures = rounds("sr", sr, folder / "out", (".nii.gz",), count - count // 2, rng)
        config = folder / "training.toml"
        config.write_text(tiny_training(folder / "model", 12, checkpoint_minutes=1e-9))
        train = ["train", str(config)]
        failures += rounds("train", train, folder / "model", ("model.safetensors",), count // 2, rng)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
