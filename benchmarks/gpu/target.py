"""Where GPU benchmarks run: a CUDA device, or CPU tensors for a dry run that times nothing worth keeping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch._inductor.config

Peer = Callable[[int], Any]
"""Runs once on one of several sets of inputs."""


@dataclass(frozen=True)
class Target:
    """A device and how large the work on it is.

    Attributes:
        device: "cuda", or "cpu" for a dry run.
    """

    device: torch.device

    @property
    def dry(self) -> bool:
        """Whether this only shows that the benchmarks run."""
        return self.device.type != "cuda"

    def ready(self) -> None:
        """Wait until the device has finished."""
        if not self.dry:
            torch.cuda.synchronize(self.device)

    def compiled(self, function: Callable[..., Any], mode: str) -> Callable[..., Any]:
        """``torch.compile``; a dry run spares the minutes that a compiler takes."""
        options: dict[str, Any] = {"backend": "eager"} if self.dry else {"mode": mode}
        # On an H100 its own convolutions took 1.5 to 2.3 times as long as cuDNN's, after 45 s of search for a shape.
        torch._inductor.config.max_autotune_conv_backends = "ATEN"
        return torch.compile(function, dynamic=False, **options)

    def queued(self, peer: Peer, sets: int) -> Callable[[], None]:
        """One function that runs ``peer`` on every set of inputs and waits for the last.

        On a GPU the calls are one CUDA graph, so that launching from Python is no part of a kernel's time.
        """

        def all_sets() -> None:
            for index in range(sets):
                peer(index)

        if self.dry:
            return all_sets
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                all_sets()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            all_sets()

        def replay() -> None:
            graph.replay()
            torch.cuda.synchronize(self.device)

        replay.reads = peer  # a graph does not keep the inputs that it reads: the peer does
        return replay

    def called(self, peer: Peer) -> Callable[[], None]:
        """One call as a user makes it, launching included, and the wait for it."""

        def call() -> None:
            peer(0)
            self.ready()

        return call

    def machine(self) -> dict[str, Any]:
        """Name, memory and versions of the GPU, for the results."""
        if self.dry:
            return {"gpu": "dry run on a CPU", "cpus": torch.get_num_threads()}
        facts = torch.cuda.get_device_properties(self.device)
        return {
            "gpu": facts.name,
            "architecture": f"sm_{facts.major}{facts.minor}",
            "memory_gb": round(facts.total_memory / 2**30),
            "multiprocessors": facts.multi_processor_count,
            "cuda": torch.version.cuda,
        }

    @property
    def architecture(self) -> int:
        """Compute capability as one number: 90 for sm_90."""
        if self.dry:
            return 0
        major, minor = torch.cuda.get_device_capability(self.device)
        return 10 * major + minor
