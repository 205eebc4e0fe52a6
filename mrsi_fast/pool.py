"""Independent tasks, a subject each: in this process, or on the workers of a Dask cluster.

Dask (the extra ``cluster``) is imported where workers are asked for, and nowhere else. A worker does one task at a time
in a thread, so that model and data of two subjects never stand in one memory; the task itself uses the CPU threads that
``Pool.threads`` says. A task whose worker dies is begun again on another one, and so is a task that raises, up to
``retries`` times. Tasks must therefore be safe to repeat: results that appear whole or not at all.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from mrsi_fast._version import __version__

PATIENCE_SECONDS = 60.0
"""How long a cluster of this machine may be without any worker before its tasks are given up."""

_LOOK_SECONDS = 5.0
"""Time between two looks at the cluster while no task ends."""

_CONNECT_SECONDS = 20
"""How long a scheduler is tried to be reached."""

GPU = "GPU"
"""The resource that a worker with a graphics card declares: ``dask worker --resources GPU=1``."""

Say = Callable[[str], None]


class PoolError(RuntimeError):
    """Workers that cannot be had or do not fit; the message says what to do."""


@dataclass(frozen=True)
class Workers:
    """Where tasks run.

    Attributes:
        count: Processes to start on this machine; None for none.
        scheduler: Address of a running Dask scheduler, such as ``tcp://10.0.0.5:8786``.
        threads: CPU threads of a task; None for a fair share of this machine, or 1 on a scheduler's workers.
        gpu: A task needs a graphics card of its own.
        retries: How often a task that raises is tried again.
    """

    count: int | None = None
    scheduler: str | None = None
    threads: int | None = None
    gpu: bool = False
    retries: int = 2

    @property
    def asked(self) -> bool:
        """Whether tasks leave this process."""
        return self.count is not None or self.scheduler is not None

    def threads_of(self, cpus: int) -> int:
        """CPU threads of one task, given how many CPUs this process may use.

        A scheduler's worker counts its own threads (``--nthreads``), each of which takes a task: one CPU each.
        """
        if self.threads is not None:
            return self.threads
        return 1 if self.scheduler is not None else max(1, cpus // (self.count or 1))


@dataclass(frozen=True)
class Finished:
    """How one task ended.

    Attributes:
        index: Position of the task.
        value: Its result, or None if it failed.
        error: Its last exception, or None.
        runs: How often it was begun: more than once where a worker was lost or the task was tried again.
        worker: Where it ran last; empty for this process.
    """

    index: int
    value: Any = None
    error: BaseException | None = None
    runs: int = 1
    worker: str = ""


class Pool:
    """Workers of a Dask cluster that are ready for tasks; see :func:`open_pool`."""

    def __init__(self, client: Any, workers: Workers, say: Say) -> None:
        self.client, self.workers, self.say = client, workers, say
        self.under_way: frozenset[int] = frozenset()
        """Positions of the tasks that were begun and have not ended, once :meth:`each` was left early."""

    def each(self, function: Callable[[Any], Any], tasks: Sequence[Any], names: Sequence[str]) -> Iterator[Finished]:
        """Runs a function on every task; gives the results as they come.

        Args:
            function: Of an importable module, with one argument.
            tasks: Its arguments, to be pickled.
            names: What to call the tasks.

        Raises:
            PoolError: The cluster is lost.
        """
        run, begun = uuid.uuid4().hex, _Begun(names, self.say)
        self.client.subscribe_topic(run, begun)
        options = {"resources": {GPU: 1}} if self.workers.gpu else {}
        waiting = {
            self.client.submit(
                _carry_out, function, task, run, index, __version__,
                key=f"mrsi-fast-{run}-{index}", pure=False, retries=self.workers.retries, **options,
            ): index
            for index, task in enumerate(tasks)
        }  # fmt: skip
        try:
            yield from self._collect(waiting, begun)
        finally:
            self.under_way = frozenset(waiting.values()) & begun.places.keys()
            self.client.cancel(list(waiting))
            self.client.unsubscribe_topic(run)

    def _collect(self, waiting: dict[Any, int], begun: _Begun) -> Iterator[Finished]:
        from distributed import wait

        watch = _Watch(self)
        while waiting:
            try:
                done = wait(list(waiting), timeout=_LOOK_SECONDS, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                watch.look()
                continue
            except Exception as error:  # a cancelled future or a closed connection: the scheduler has gone
                raise self._lost() from error
            for future in done:
                index = waiting.pop(future)
                yield self._finished(future, index, begun)

    def _finished(self, future: Any, index: int, begun: _Begun) -> Finished:
        from distributed.scheduler import KilledWorker

        value, error = None, None
        if future.status == "finished":
            value = future.result()
        elif future.status == "error":
            error = future.exception()
            if isinstance(error, KilledWorker):
                died = error.allowed_failures + 1
                error = PoolError(f"{died} workers died while at work on it, perhaps of too little memory")
        else:
            raise self._lost()
        return Finished(index, value, error, begun.count(index), begun.places.get(index, ""))

    def _lost(self) -> PoolError:
        where = self.workers.scheduler or "of this machine"
        return PoolError(f"The Dask scheduler {where} was lost. Run the same command again: finished results stay.")


class _Begun:
    """Hears from the workers which task each of them begins, and tells when one is begun again."""

    def __init__(self, names: Sequence[str], say: Say) -> None:
        self.names, self.say = names, say
        self.places: dict[int, str] = {}
        self._counts: Counter[int] = Counter()
        self._raised: set[int] = set()
        self._lock = threading.Lock()

    def __call__(self, event: tuple[float, Any]) -> None:
        facts = event[1]
        index, place = int(facts["index"]), str(facts["worker"])
        with self._lock:
            if facts["what"] == "raised":
                self._raised.add(index)
                return
            self._counts[index] += 1
            before, self.places[index] = self.places.get(index), place
            raised = index in self._raised
            self._raised.discard(index)
        if before is not None and raised:
            self.say(f"{self.names[index]}: it failed on {before} and is tried again on {place}")
        elif before is not None:
            self.say(f"{self.names[index]}: the worker {before} was lost, so it is begun again on {place}")

    def count(self, index: int) -> int:
        """How often a task was begun."""
        with self._lock:
            return max(1, self._counts[index])


class _Watch:
    """Looks at a cluster where nothing happens."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.since, self.said = pool, time.monotonic(), False

    def look(self) -> None:
        """Says once that no worker is there; gives a cluster of this machine up when none comes back.

        Raises:
            PoolError: No worker of this machine is left.
        """
        client = self.pool.client
        workers = client.sync(client.scheduler.identity, n_workers=-1)["workers"]  # its own copy may be an old one
        fitting = [one for one in workers.values() if not self.pool.workers.gpu or GPU in (one.get("resources") or {})]
        if fitting:
            self.since, self.said = time.monotonic(), False
            return
        if self.pool.workers.scheduler is None and time.monotonic() - self.since > PATIENCE_SECONDS:
            raise PoolError("All workers of this machine have died. Try fewer --workers: each needs memory of its own.")
        if not self.said:
            kind = f" that offers the resource {GPU} (dask worker --resources {GPU}=1)" if self.pool.workers.gpu else ""
            self.pool.say(f"waiting for a worker{kind}")
            self.said = True


def _carry_out(function: Callable[[Any], Any], task: Any, run: str, index: int, version: str) -> Any:
    """One task, on a worker."""
    from distributed import get_worker

    worker = get_worker()
    facts = {"index": index, "worker": worker.address}
    worker.log_event(run, facts | {"what": "begun"})
    if version != __version__:
        raise PoolError(f"the worker {worker.address} has mrsi_fast {__version__}, but this is {version}")
    try:
        return function(task)
    except Exception:
        worker.log_event(run, facts | {"what": "raised"})
        raise


def worker_number() -> int | None:
    """Number of the worker that this code runs on, if it is one of a cluster of this machine."""
    from distributed import get_worker

    try:
        name = get_worker().name
    except ValueError:
        return None
    return name if isinstance(name, int) else None


@contextmanager
def open_pool(workers: Workers, say: Say) -> Iterator[Pool]:
    """Starts workers on this machine, or joins those of a scheduler.

    Args:
        workers: What was asked for.
        say: Told in a line what becomes of workers.

    Raises:
        PoolError: Dask is not installed, the scheduler cannot be reached, or no worker starts.
    """
    try:
        import dask
        from distributed import Client
    except ImportError as error:
        raise PoolError("Workers need Dask: pip install 'mrsi_fast[cluster]'.") from error
    with ExitStack() as stack:
        settings = {
            "distributed.comm.timeouts.connect": f"{_CONNECT_SECONDS}s",
            "distributed.deploy.lost-worker-timeout": "10 minutes",  # for a busy machine to start another
        }
        stack.enter_context(dask.config.set(settings))
        if workers.scheduler is None:
            cluster = _start(workers, stack)
            client = stack.enter_context(Client(cluster))
        else:
            try:
                client = stack.enter_context(Client(workers.scheduler, timeout=f"{_CONNECT_SECONDS}s"))
            except (OSError, ValueError) as error:
                raise PoolError(
                    f"The Dask scheduler {workers.scheduler} cannot be reached ({error}). Start one with `dask "
                    "scheduler`, and give the address that it prints."
                ) from error
        yield Pool(client, workers, say)


def _start(workers: Workers, stack: ExitStack) -> Any:
    """A cluster of this machine, which nobody else can use: bound to the loopback interface, encrypted, own keys."""
    from distributed import LocalCluster
    from distributed.security import Security

    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mrsi-fast-", ignore_cleanup_errors=True))
    threading_variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    try:
        security = Security.temporary()
    except ImportError as error:
        raise PoolError("Workers need the package cryptography: pip install 'mrsi_fast[cluster]'.") from error
    try:
        return stack.enter_context(
            LocalCluster(
                n_workers=workers.count,
                threads_per_worker=1,
                memory_limit=0,  # the system's own limit: Dask would kill a worker for what its allocator keeps
                protocol="tls",
                security=security,
                host="127.0.0.1",
                dashboard_address=None,
                local_directory=folder,
                silence_logs=logging.CRITICAL,
                env=dict.fromkeys(threading_variables, str(workers.threads or 1)),
                resources={GPU: 1} if workers.gpu else None,
            )
        )
    except (OSError, RuntimeError, TimeoutError) as error:
        raise PoolError(f"{workers.count} workers could not be started on this machine ({error}).") from error
