"""Tasks on workers: each done, each failure its own, what is begun again is said."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mrsi_fast import __version__, pool
from mrsi_fast.pool import Finished, Pool, PoolError, Workers, open_pool

CALLS: dict[Any, int] = {}
CALLING = threading.Lock()


def times(task: Any) -> int:
    with CALLING:
        CALLS[task] = CALLS.get(task, 0) + 1
        return CALLS[task]


def double(task: int) -> int:
    return 2 * task


def fail_on_odd(task: int) -> int:
    if task % 2:
        raise ValueError(f"{task} is odd")
    return task


def fail_twice(task: str) -> str:
    if times(task) < 3:
        raise OSError("not yet")
    return task


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A scheduler and a worker in this process."""
    distributed = pytest.importorskip("distributed", reason="the extra cluster is not installed")
    with (
        distributed.LocalCluster(1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def results(client: Any, function: Any, tasks: list[Any], **options: Any) -> tuple[list[Finished], list[str]]:
    said: list[str] = []
    names = [f"task {task}" for task in tasks]
    found = list(Pool(client, Workers(1, **options), said.append).each(function, tasks, names))
    return sorted(found, key=lambda one: one.index), said


def test_every_task_is_done_once(client: Any) -> None:
    found, said = results(client, double, list(range(20)))
    assert [one.value for one in found] == [2 * number for number in range(20)]
    assert {one.runs for one in found} == {1} and not said


def test_a_failure_is_its_own(client: Any) -> None:
    found, _ = results(client, fail_on_odd, list(range(6)), retries=0)
    assert [one.value for one in found if one.error is None] == [0, 2, 4]
    assert [str(one.error) for one in found if one.error is not None] == ["1 is odd", "3 is odd", "5 is odd"]


def test_what_fails_is_tried_again_and_said(client: Any) -> None:
    found, said = results(client, fail_twice, ["a"], retries=2)
    assert found[0].value == "a" and found[0].runs == 3
    assert len(said) == 2 and all("task a: it failed on" in line and "tried again" in line for line in said)
    (lost,), _ = results(client, fail_twice, ["b"], retries=1)
    assert isinstance(lost.error, OSError) and lost.runs == 2


def test_a_worker_of_another_version_does_nothing(client: Any) -> None:
    error = client.submit(pool._carry_out, double, 1, "run", 0, "0.0.1").exception()
    assert isinstance(error, PoolError) and f"has mrsi_fast {__version__}, but this is 0.0.1" in str(error)


def test_workers_without_a_graphics_card_are_waited_for_aloud(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(pool, "PATIENCE_SECONDS", 0.3)
    said: list[str] = []
    with pytest.raises(PoolError, match="workers of this machine"):
        list(Pool(client, Workers(1, gpu=True), said.append).each(double, [1], ["one"]))
    assert said == ["waiting for a worker that offers the resource GPU (dask worker --resources GPU=1)"]


def test_a_scheduler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="the extra cluster is not installed")
    monkeypatch.setattr(pool, "_CONNECT_SECONDS", 1)
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(PoolError, match=f"{address} cannot be reached"), open_pool(Workers(None, address), print):
            pass


@pytest.mark.parametrize("missing", ["distributed", "cryptography"])
def test_without_what_workers_need_the_extra_is_named(missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from mrsi_fast.cli import main; sys.argv[0] = 'mrsi-fast'; main()"
    )
    words = ["simulate", "--heads", "phantom", "--workers", "2", "-o", "never"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 2 and "pip install 'mrsi_fast[cluster]'" in done.stderr and not Path("never").exists()


@pytest.mark.parametrize(
    ("workers", "cpus", "threads"),
    [(Workers(4), 16, 4), (Workers(4), 2, 1), (Workers(4, threads=3), 2, 3), (Workers(None, "tcp://a:1"), 16, 1)],
)
def test_threads_of_a_task(workers: Workers, cpus: int, threads: int) -> None:
    assert workers.threads_of(cpus) == threads
