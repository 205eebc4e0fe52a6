"""A cohort on several processes gives what one process gives, whatever becomes of the processes on the way."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mrsi_fast.cli.app import app
from mrsi_fast.cli.inputs import InputSet
from mrsi_fast.cli.workers import Recorder, absolute
from mrsi_fast.mrsi.mapfiles import MapFiles
from support.cohort import BROKEN, hidden_in, maps_in, run, start, write_cohort

needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None,
    reason="the extra cluster is not installed",
)


def rows_of(output: Path) -> dict[str, dict]:
    return {row["label"]: row for row in json.loads((output / "run.json").read_text())["inputs"]}


def wait_for(condition: Callable[[], object], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_workers_and_a_scheduler_exclude_each_other(tmp_path: Path) -> None:
    words = ["sr", "-i", str(tmp_path), "-o", str(tmp_path / "out"), "--workers", "2", "--scheduler", "tcp://a:1"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2 and "give one of them" in done.output


def test_paths_are_absolute_for_workers_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    files = MapFiles(maps={"tNAA": Path("a.nii")}, tables=[Path("b.table")], remarks=("as it is",))
    found = absolute(InputSet(Path("sub"), "sub", files, anatomy=Path("t1.nii")))
    assert found.path == tmp_path / "sub" and found.anatomy == tmp_path / "t1.nii" and found.label == "sub"
    assert found.files.maps == {"tNAA": tmp_path / "a.nii"} and found.files.tables == [tmp_path / "b.table"]
    assert found.files.remarks == ("as it is",) and files.maps == {"tNAA": Path("a.nii")}


def test_what_a_worker_says_is_kept_in_order() -> None:
    recorder = Recorder(quiet=False, verbose=True)
    recorder.table(("a", "b"), [("1", "2")])
    recorder.warn("careful")
    with recorder.progress("x") as report:
        report(1, 2)
    recorder.error("gone")
    assert recorder.lines == [("say", "a  b"), ("say", "1  2"), ("warn", "careful"), ("error", "gone")]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, 12)
    return folder


@pytest.fixture(scope="module")
def words(cohort: Path, model_folder: Path) -> list[str]:
    """Every command but for its output."""
    return ["sr", "-i", f"{cohort}/s*", "--model", str(model_folder), "--threads", "1"]


@pytest.fixture(scope="module")
def expected(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one undisturbed process gives."""
    out = tmp_path_factory.mktemp("whole")
    code, said = run(*words, "-o", out)
    assert code == 0, said
    assert not hidden_in(out)
    return maps_in(out)


@pytest.mark.cluster
@needs_dask
def test_two_workers_and_two_shards_give_what_one_process_gives(model_folder: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "in"
    write_cohort(inputs, 12, broken=True)
    words = ["sr", "-i", f"{inputs}/s*", "-i", inputs / "s03", "--model", model_folder, "--threads", "1"]
    ways = {"one": ((),), "workers": (("--workers", "2"),), "shards": (("--shard", "1/2"), ("--shard", "2/2"))}
    for way, calls in ways.items():
        for call in calls:
            code, said = run(*words, "-o", tmp_path / way, *call)
            assert code == (0 if call == ("--shard", "1/2") else 4), said  # the broken ones have odd numbers
        rows = rows_of(tmp_path / way)
        assert {label for label, row in rows.items() if row["status"] != "done"} == set(BROKEN) and len(rows) == 12
        assert all(rows[label]["detail"] for label in BROKEN)
        assert not hidden_in(tmp_path / way)
    whole = maps_in(tmp_path / "one")
    assert {path.split("/")[0] for path in whole} == {f"s{n:02d}" for n in range(12)} - set(BROKEN)
    assert maps_in(tmp_path / "workers") == whole and maps_in(tmp_path / "shards") == whole
    write_cohort(inputs, 12)
    code, said = run(*words, "-o", tmp_path / "workers", "--workers", "2")
    assert code == 0 and "5 done, 7 skipped, 0 failed of 12 inputs." in said, said


@pytest.mark.cluster
@needs_dask
def test_a_killed_worker_loses_nothing(words: list[str], expected: dict[str, bytes], tmp_path: Path) -> None:
    import psutil

    out = tmp_path / "out"
    process = start(*words, "-o", out, "--workers", "2")

    def at_work() -> psutil.Process | None:
        """The worker that holds the lock of a result's place."""
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                if any(Path(file.path).match(f"{out}/*/.*.lock") for file in child.open_files()):
                    return child
            except psutil.Error:
                continue
        return None

    found: list[psutil.Process] = []
    wait_for(lambda: (child := at_work()) is not None and found.append(child) is None)
    found[0].kill()
    said = process.communicate(timeout=500)[0]
    assert process.returncode == 0, said
    assert maps_in(out) == expected and not hidden_in(out)
    rows = rows_of(out)
    again = [label for label, row in rows.items() if row["runs"] > 1]
    assert {row["status"] for row in rows.values()} == {"done"} and len(again) == 1, (rows, said)
    assert f"{again[0]}: the worker tls://127.0.0.1:" in said and "was lost, so it is begun again on" in said
    assert "begun 2 times" in (out / "summary.csv").read_text()


@pytest.mark.cluster
@needs_dask
def test_sigterm_ends_workers_and_leaves_nothing_half_done(
    words: list[str], expected: dict[str, bytes], tmp_path: Path
) -> None:
    import psutil

    out = tmp_path / "out"
    process = start(*words, "-o", out, "--workers", "2")
    wait_for(lambda: list(out.glob("*/*_desc-sr_mrsi.json")))
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 143, said
    assert not psutil.wait_procs(children, timeout=20)[1]
    assert not hidden_in(out) and maps_in(out).items() <= expected.items()
    code, said = run(*words, "-o", out)
    assert code == 0 and maps_in(out) == expected, said


@pytest.mark.cluster
def test_kill_9_at_any_moment_and_a_second_run(words: list[str], expected: dict[str, bytes], tmp_path: Path) -> None:
    moments = random.Random(18)
    code, said = run(*words, "-o", tmp_path / "timed")
    assert code == 0, said
    times = sorted(path.stat().st_mtime for path in (tmp_path / "timed").rglob("*_desc-sr_mrsi.json"))
    span = times[-1] - times[0]
    cut = 0
    for number in range(20):
        out = tmp_path / str(number)
        process = start(*words, "-o", out)
        wait_for(lambda: any(out.glob("s00/.*")) or process.poll() is not None)  # noqa: B023
        time.sleep(moments.uniform(0, 1.1 * span))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        cut += len(maps_in(out)) < len(expected)
        code, said = run(*words, "-o", out)
        assert code == 0 and maps_in(out) == expected, (number, said)
        assert not hidden_in(out), number
        shutil.rmtree(out)
    assert cut >= 10  # most were in the middle of the work


def free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def elsewhere(request: pytest.FixtureRequest) -> Iterator[tuple[tuple[str, ...], str]]:
    """Command prefix and address of another place to run a scheduler in: this host, or another network namespace."""
    if request.param == "process":
        yield (), "127.0.0.1"
        return
    name, (here, there) = f"mrsi{os.getpid()}", (f"mh{os.getpid()}", f"mt{os.getpid()}")
    inside = ("ip", "netns", "exec", name)
    steps = [
        ("ip", "netns", "add", name),
        ("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", name),
        ("ip", "addr", "add", "10.99.18.1/24", "dev", here),
        ("ip", "link", "set", here, "up"),
        (*inside, "ip", "addr", "add", "10.99.18.2/24", "dev", there),
        (*inside, "ip", "link", "set", there, "up"),
        (*inside, "ip", "link", "set", "lo", "up"),
    ]
    try:
        for step in steps:
            if shutil.which("ip") is None or subprocess.run(step, capture_output=True).returncode != 0:
                pytest.skip(f"network namespaces cannot be made here ({' '.join(step)})")
        yield inside, "10.99.18.2"
    finally:
        if shutil.which("ip") is not None:
            subprocess.run(("ip", "netns", "delete", name), capture_output=True)
            subprocess.run(("ip", "link", "delete", here), capture_output=True)


@pytest.mark.cluster
@needs_dask
@pytest.mark.parametrize("elsewhere", ["process", "network namespace"], indirect=True)
def test_a_scheduler_elsewhere_needs_its_address_alone(
    words: list[str], expected: dict[str, bytes], tmp_path: Path, elsewhere: tuple[tuple[str, ...], str]
) -> None:
    prefix, host = elsewhere
    port = free_port("127.0.0.1")
    address = f"tcp://{host}:{port}"
    dask = (*prefix, sys.executable, "-m", "distributed.cli")
    home = tmp_path / "elsewhere"
    home.mkdir()
    commands = [
        [*dask[:-1], "distributed.cli.dask_scheduler", "--host", host, "--port", str(port), "--no-dashboard"],
        [*dask[:-1], "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard", "--host", host],
    ]
    started = [
        subprocess.Popen(one, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        for one in commands
    ]
    try:
        code, said = run(*words, "-o", tmp_path / "out", "--scheduler", address)
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert code == 0, said
    assert maps_in(tmp_path / "out") == expected and not hidden_in(tmp_path / "out")


@pytest.mark.cluster
@needs_dask
def test_simulate_and_evaluate_on_workers(tmp_path: Path) -> None:
    preset = tmp_path / "small.toml"
    preset.write_text(
        'name = "small"\n[volume]\nmetabolites = ["tNAA", "tCho"]\nmatrix = [32, 32]\nfov_mm = [208.0, 208.0]\n'
        "slices = 1\nfirst_mm = 10.0\n"
    )
    for name, more in (("one", ()), ("two", ("--workers", "2"))):
        words = ["simulate", "--preset", preset, "--heads", "phantom", "--subjects", "3", "-o", tmp_path / name]
        code, said = run(*words, *more)
        assert code == 0, said
    assert maps_in(tmp_path / "one") == maps_in(tmp_path / "two") and len(maps_in(tmp_path / "one")) > 20
    for name, more in (("e1", ()), ("e2", ("--workers", "2"))):
        words = ["evaluate", "--phantom", "--model", "none", "--subjects", "2", "--slices", "1", "--scales", "4"]
        code, said = run(*words, "-o", tmp_path / name, *more)
        assert code == 0, said
    assert (tmp_path / "e1" / "results.csv").read_bytes() == (tmp_path / "e2" / "results.csv").read_bytes()
