"""Random inputs for each target, ten minutes each: ``make fuzz`` (MINUTES=10, TARGETS="reader extension", SEED=).

A round runs the property tests of a target with a seed of its own and as many examples as take about half a minute;
rounds follow each other until the time is over. Examples that fail are printed and stay in ``.hypothesis``; the next
run begins with them. Ends with 1 if any round fails. The extension is run under AddressSanitizer and UBSan.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import time
from types import ModuleType

from support.data import checkout
from support.fuzzing import VARIABLE

FILES, NAMES = "tests/faults/test_fuzz.py", "tests/mrsi/test_hostile_names.py"
TARGETS = {
    "reader": ([FILES, NAMES], "image or bytes or table or spreadsheet"),
    "discovery": ([FILES, NAMES], "tree or name or pattern or json"),
    "configuration": ([FILES], "configuration"),
    "operations": ([FILES], "tensors"),
    "extension": (["tests/ops/test_extension_fuzz.py"], ""),
}
ROUND_SECONDS, FIRST_EXAMPLES, MOST_EXAMPLES = 30.0, 200, 20_000


def sanitized() -> dict[str, str]:
    """Builds the extension with sanitizers, minutes the first time, and returns the environment that loads it."""
    spec = importlib.util.spec_from_file_location("csrc_build", checkout() / "csrc" / "build.py")
    assert spec is not None and spec.loader is not None
    build: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules["csrc_build"] = build
    spec.loader.exec_module(build)
    target = checkout() / "build" / "sanitized" / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    os.environ["MRSI_FAST_CUDA"] = "0"
    build.build(target, checkout() / "build" / "sanitize", sanitize=True)
    asked = [["g++", f"-print-file-name={name}"] for name in ("libasan.so", "libubsan.so")]
    found = [subprocess.run(one, capture_output=True, text=True, check=True).stdout.strip() for one in asked]
    return {
        "MRSI_FAST_FUZZ_EXTENSION": str(target),
        "LD_PRELOAD": " ".join(found),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:allocator_may_return_null=1",
        "PYTHONMALLOC": "malloc",
    }


def one_round(target: str, seed: int, count: int, environment: dict[str, str]) -> tuple[int, str]:
    """Runs the tests of a target once.

    Returns:
        The number of examples and, if a test failed, the end of what was printed.
    """
    files, chosen = TARGETS[target]
    plugin = ["-p", "support.sanitized_extension"] if "LD_PRELOAD" in environment else []
    # -s: what a sanitizer says of the process that it ends would be lost with pytest's own files
    command = [sys.executable, "-m", "pytest", "-q", "-s", *plugin, *files, "-k", chosen, f"--hypothesis-seed={seed}"]
    done = subprocess.run(
        [*command, "--hypothesis-show-statistics", "-o", "addopts=--import-mode=importlib"],
        cwd=checkout(),
        env={**os.environ, **environment, "HYPOTHESIS_PROFILE": "search", VARIABLE: str(count), "PYTHONPATH": "tests"},
        capture_output=True,
        text=True,
        check=False,
    )
    text = done.stdout + done.stderr
    run = sum(int(passed) + int(failed) for passed, failed in re.findall(r"(\d+) passing.* (\d+) failing", text))
    return run, text[-6000:] if done.returncode else ""


def fuzz(target: str, seconds: float, seed: int) -> int:
    """Rounds of one target until the time is over; returns how many failed."""
    environment = sanitized() if target == "extension" else {}
    begin, count, rounds, total, failures = time.monotonic(), FIRST_EXAMPLES, 0, 0, 0
    while (spent := time.monotonic() - begin) < seconds:
        run, problem = one_round(target, seed + rounds, count, environment)
        if problem:
            failures += 1
            print(f"{target}, seed {seed + rounds}, {count} examples a test:\n{problem}", flush=True)
        elif not run:
            raise SystemExit(f"{target}: no example was run.")
        rounds, total = rounds + 1, total + run
        took = time.monotonic() - begin - spent
        count = max(1, min(int(count * min(ROUND_SECONDS / took, 4)), MOST_EXAMPLES))
    told = f"seeds {seed} to {seed + rounds - 1}, {total} examples, {failures} failed rounds"
    print(f"{target}: {time.monotonic() - begin:.0f} s, {told}", flush=True)
    return failures


def main() -> int:
    asked = os.environ.get("TARGETS", "").split() or list(TARGETS)
    if unknown := set(asked) - set(TARGETS):
        raise SystemExit(f"There is no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}.")
    seconds, seed = 60 * float(os.environ.get("MINUTES") or 10), int(os.environ.get("SEED") or time.time())
    return int(sum(fuzz(target, seconds, seed) for target in asked) > 0)


if __name__ == "__main__":
    sys.exit(main())
