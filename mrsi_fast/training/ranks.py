"""Several processes that train one network: each has a share of every batch, and their gradients are summed.

Noise, noise levels and withheld conditions are drawn for the whole batch by every process, which then takes its rows,
and losses are divided by weights summed over all. A step is therefore that of one process on the whole batch, but for
the order of sums. The processes are started by ``torchrun`` or anything that sets the same variables.

``torch.distributed`` does the communication. It names no process that died, so each process writes a sign of life into
the store that they share, and looks for those of the others.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

BEAT_SECONDS = 2.0
"""Time between two signs of life."""

LOST_SECONDS = 25.0
"""Silence after which a process counts as dead."""

_GRACE_SECONDS = 5.0
"""Time for a process to end by an error of its own once another one is dead."""

_STEP_LIMIT = timedelta(hours=2)
"""Longest time that one process may wait for the others to come to the same place (a validation, a checkpoint)."""

_ENDED, _FAILED = "ended", "failed"


class RankLost(RuntimeError):
    """Another process of the run died; the message says which."""


class Ranks:
    """The processes of a run, seen from one of them; as it stands, a single one.

    Attributes:
        rank: Number of this process.
        count: How many there are.
    """

    rank, count = 0, 1

    @property
    def first(self) -> bool:
        """Whether this process writes logs, checkpoints and the model."""
        return self.rank == 0

    def rows(self, size: int) -> slice:
        """This process's rows of a batch of ``size``."""
        share = size // self.count
        return slice(self.rank * share, (self.rank + 1) * share)

    def summed(self, value: Tensor) -> Tensor:
        """Sum of a small tensor over all processes."""
        return value

    def reduce(self, network: nn.Module, loss: Tensor, received: int) -> tuple[Tensor, int]:
        """Sums gradients and losses over all processes.

        Args:
            network: Whose gradients become the sums.
            loss: This process's part of the loss.
            received: Number of the signal that this process has received, or 0.

        Returns:
            The loss of the whole batch, detached; the number of a signal that any process has received, or 0.

        Raises:
            RankLost: A process died.
        """
        return loss.detach(), received

    def of_first(self, value: Any) -> Any:
        """The first process's value, for all of them."""
        return value

    def agree(self, value: Tensor) -> bool:
        """Whether a scalar is the same in every process."""
        return True


ALONE = Ranks()


class _Several(Ranks):
    """One of several processes; see :class:`Ranks`."""

    def __init__(self, rank: int, count: int, life: _Life) -> None:
        self.rank, self.count, self._life = rank, count, life

    def summed(self, value: Tensor) -> Tensor:
        total = value.detach().clone()
        with self._life.collective():
            dist.all_reduce(total)
        return total

    def reduce(self, network: nn.Module, loss: Tensor, received: int) -> tuple[Tensor, int]:
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        grads = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        flags = loss.new_tensor([float(received == number) for number in _SIGNALS])
        packed = torch.cat([loss.detach().reshape(1), flags, *(one.reshape(-1) for one in grads)])
        with self._life.collective():
            dist.all_reduce(packed)
        start = 1 + len(_SIGNALS)
        for parameter, grad in zip(parameters, grads, strict=True):
            part = packed[start : start + grad.numel()].reshape(grad.shape)
            start += grad.numel()
            if parameter.grad is None:
                if not part.any():  # no process used it
                    continue
                parameter.grad = grad
            parameter.grad.copy_(part)
        heard = packed[1 : 1 + len(_SIGNALS)].tolist()
        return packed[0], next((int(one) for one, count in zip(_SIGNALS, heard, strict=True) if count), 0)

    def of_first(self, value: Any) -> Any:
        box = [value]
        with self._life.collective():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def agree(self, value: Tensor) -> bool:
        both = torch.stack([value.detach(), -value.detach()])
        with self._life.collective():
            dist.all_reduce(both, dist.ReduceOp.MAX)
        return bool(both[0] == -both[1])


class _Life:
    """Signs of life in the store of the run: this process's, and the look for those of the others."""

    def __init__(self, store: Store, rank: int, count: int) -> None:
        self.store, self.rank, self.count = store, rank, count
        self.lost = ""
        """Which processes are dead, as a sentence; empty while all live."""
        self._over, self._found = threading.Event(), threading.Event()
        self._heard = dict.fromkeys(set(range(count)) - {rank}, ("", time.monotonic()))
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._say("0")
        self._thread.start()

    def _say(self, text: str) -> None:
        self.store.set(f"life/{self.rank}", text)

    def _live(self) -> None:
        number = 0
        while not self._over.wait(BEAT_SECONDS):
            number += 1
            try:
                self._say(str(number))
                self._listen()
            except RuntimeError:
                self.lost = "Rank 0, which keeps the store of the run, died or cannot be reached."
            if self.lost:
                self._found.set()
                if not self._over.wait(_GRACE_SECONDS):  # the main thread hangs in a collective
                    print(f"mrsi-fast: {self._sentence()}", file=sys.stderr, flush=True)
                    os._exit(1)

    def _listen(self) -> None:
        now, dead = time.monotonic(), []
        for other, (before, since) in list(self._heard.items()):
            key = f"life/{other}"
            text = self.store.get(key).decode() if self.store.check([key]) else ""
            if text == _ENDED:
                del self._heard[other]
            elif text.startswith(_FAILED):
                dead.append(f"Rank {other} ended with an error: {text.removeprefix(_FAILED).strip()}")
            elif text != before:
                self._heard[other] = (text, now)
            elif now - since > LOST_SECONDS:
                dead.append(f"Rank {other} died: no sign of life for {now - since:.0f} s.")
        self.lost = " ".join(dead)

    def _sentence(self) -> str:
        return f"{self.lost} The last checkpoint is whole: start all processes again to resume it."

    @contextmanager
    def collective(self) -> Iterator[None]:
        """Turns the failure of a collective operation into the number of the process that is dead."""
        if self.lost:
            raise RankLost(self._sentence())
        try:
            yield
        except RuntimeError as error:  # DistBackendError, DistNetworkError and gloo's own
            if self._found.wait(LOST_SECONDS + 5 * BEAT_SECONDS):
                raise RankLost(self._sentence()) from error
            raise RankLost(f"The processes of the run have lost each other ({error}).") from error

    def end(self, error: BaseException | None) -> None:
        """Tells the others how this process ends."""
        self._over.set()
        self._thread.join(2 * BEAT_SECONDS)
        with suppress(RuntimeError):
            self._say(_ENDED if error is None else f"{_FAILED} {type(error).__name__}: {error}"[:500])
            end = time.monotonic() + LOST_SECONDS
            while self.rank == 0 and error is None and self._heard and time.monotonic() < end:
                self._listen()  # the store may live in this process: it stays until the others have ended
                time.sleep(0.1)


def launched(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher has started this process as one of several."""
    return all(environ.get(name) for name in VARIABLES) and environ["WORLD_SIZE"] not in ("", "0", "1")


def local_device(device: torch.device, environ: Mapping[str, str] = os.environ) -> torch.device:
    """The graphics card of this process, one of several on its machine."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", int(environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


@contextmanager
def open_ranks(device: torch.device) -> Iterator[Ranks]:
    """Joins the other processes of a run, if a launcher has started several.

    Args:
        device: Where this process computes.

    Raises:
        RankLost: The others cannot be reached.
    """
    if not launched():
        yield ALONE
        return
    device = local_device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        store, rank, count = next(rendezvous("env://"))
        backend = "nccl" if device.type == "cuda" else "gloo"
        group = PrefixStore("group", store)
        dist.init_process_group(backend, store=group, rank=rank, world_size=count, timeout=_STEP_LIMIT)
    except (RuntimeError, ValueError) as error:
        raise RankLost(f"The other processes of the run cannot be reached ({error}).") from error
    life = _Life(PrefixStore("life", store), rank, count)
    failure: BaseException | None = None
    try:
        yield _Several(rank, count, life)
    except BaseException as error:
        failure = error
        raise
    finally:
        together = failure is None or isinstance(failure, SystemExit)  # every process ends so: a signal was passed on
        life.end(None if together else failure)
        if together:
            with suppress(RuntimeError):
                dist.destroy_process_group()
