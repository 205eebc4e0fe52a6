"""Several processes train what one trains; a signal to any of them stops all, and a dead one is named."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from mrsi_fast.config import ConfigError
from mrsi_fast.diffusion.denoiser import Denoiser
from mrsi_fast.diffusion.losses import SigmaDistribution
from mrsi_fast.models.unet import SelfAttentionUNet
from mrsi_fast.simulation import Simulator
from mrsi_fast.training import TrainConfig
from mrsi_fast.training.checkpoint import CHECKPOINT
from mrsi_fast.training.data import BatchStream, step_generator, withhold
from mrsi_fast.training.loop import Trainer
from mrsi_fast.training.objective import training_loss
from mrsi_fast.training.ranks import ALONE, Ranks, launched
from support.tiny import FULL_RATE, tiny_training

PROGRAM = """
import os, signal, sys
import torch
from mrsi_fast.training import loop, train
path, rank, step, act = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
torch.set_num_threads(1)
update, save = loop.Trainer.update, loop.save_checkpoint

def acting(trainer, batch):
    loss = update(trainer, batch)
    if (trainer.ranks.rank, trainer.step) == (rank, step):
        print("acts", flush=True)
        if act == "raise":
            raise ValueError("on purpose")
        os.kill(os.getpid(), getattr(signal, act))
    return loss

def telling(folder, modules, optimiser, meta):
    print("saved at step", meta["step"], flush=True)
    save(folder, modules, optimiser, meta)

loop.Trainer.update, loop.save_checkpoint = acting, telling
train(path)
"""


def config(folder: Path, name: str, spread: float = 0.0, optimiser: str = FULL_RATE) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(tiny_training(folder / name, 20, spread, optimiser, batch_size=4))
    return path


def start(path: Path, count: int, rank: int = -1, step: int = 0, act: str = "none") -> list[subprocess.Popen[str]]:
    """So many processes; one of them does something to itself after a step."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {**os.environ, "OMP_NUM_THREADS": "1"}
    several = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if count > 1 else {}
    return [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path), str(rank), str(step), act],
            env={**common, **several, **({"RANK": str(number), "LOCAL_RANK": str(number)} if several else {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(count)
    ]


def ends(processes: list[subprocess.Popen[str]]) -> tuple[list[int], list[str]]:
    said = [process.communicate(timeout=580)[0] for process in processes]
    return [process.returncode for process in processes], said


class Threads(Ranks):
    """A process of two, as a thread."""

    def __init__(self, rank: int, meeting: threading.Barrier, brought: dict[int, Tensor]) -> None:
        self.rank, self.count, self.meeting, self.brought = rank, 2, meeting, brought

    def summed(self, value: Tensor) -> Tensor:
        self.brought[self.rank] = value
        self.meeting.wait()
        return self.brought[0] + self.brought[1]


def test_the_parts_of_a_batch_make_up_its_loss_and_gradient(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    settings = TrainConfig.load(config(tmp_path, "run", spread=0.2))
    torch.manual_seed(1)
    network = SelfAttentionUNet(settings.model)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # heads start at 0
    denoiser = Denoiser(network, settings.diffusion.sigma_max)
    sigmas = SigmaDistribution(0.02, settings.diffusion.sigma_max, 0.5)

    def gradient(ranks: Ranks) -> tuple[Tensor, list[Tensor]]:
        batch = next(iter(BatchStream(settings.simulation, 0, 4, 3, 4, ranks)))
        batch = withhold(batch, settings.dropout, step_generator(0, 3, 1), ranks)
        loss, rms = settings.loss, settings.diffusion.residual_rms
        value = training_loss(denoiser, batch, rms, sigmas, loss, step_generator(0, 3, 2), ranks)
        return value.detach(), list(torch.autograd.grad(value, list(network.parameters())))

    whole, expected = gradient(ALONE)
    meeting, brought, parts = threading.Barrier(2), {}, {}
    threads = [
        threading.Thread(target=lambda rank=rank: parts.update({rank: gradient(Threads(rank, meeting, brought))}))
        for rank in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.testing.assert_close(parts[0][0] + parts[1][0], whole, rtol=1e-6, atol=0)
    largest = max(float(one.abs().max()) for one in expected)
    for first, second, one in zip(parts[0][1], parts[1][1], expected, strict=True):
        torch.testing.assert_close(first + second, one, rtol=1e-4, atol=1e-6 * largest)


def test_rows_of_a_batch_are_those_of_the_whole() -> None:
    settings = TrainConfig.parse({"output": "x", "steps": 1, "simulation": {"anatomy": {"heads": "phantom"}}}, "test")
    simulator = Simulator(settings.simulation)
    whole, part = simulator.batch(5, 2, 3), simulator.batch(5, 2, 1, first=2)
    assert all((whole[name][2:] == part[name]).all() for name in whole)


def test_a_batch_has_to_be_dealt_out_evenly(tmp_path: Path) -> None:
    three = Ranks()
    three.count = 3
    with pytest.raises(ConfigError, match="batch_size = 4 cannot be dealt out evenly to 3 processes"):
        Trainer(TrainConfig.load(config(tmp_path, "run")), three)


def test_a_launcher_is_known_by_its_variables() -> None:
    full = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    assert launched(full) and not launched({**full, "WORLD_SIZE": "1"})
    assert not any(launched({key: value for key, value in full.items() if key != left}) for left in full)


@pytest.mark.cluster
@pytest.mark.parametrize(("spread", "optimiser"), [(0.0, FULL_RATE), (0.2, "")], ids=["full rate", "second head"])
def test_two_processes_train_what_one_trains_even_if_interrupted(tmp_path: Path, spread: float, optimiser: str) -> None:
    alone, two = (config(tmp_path, name, spread, optimiser) for name in ("alone", "two"))
    codes, said = ends(start(alone, 1))
    assert codes == [0], said
    codes, said = ends(start(two, 2, rank=1, step=9, act="SIGTERM"))
    assert codes == [143, 143], said
    assert [text.count("saved at step") for text in said] == [1, 0] and "saved at step 10" in said[0], said
    codes, said = ends(start(two, 2))
    assert codes == [0, 0], said
    expected, found = (safetensors.torch.load_file(tmp_path / name / CHECKPOINT) for name in ("alone", "two"))
    assert expected.keys() == found.keys()
    weights = [name for name in expected if name.startswith(("network/", "average/"))]
    assert {name: largest for name in weights if (largest := (expected[name] - found[name]).abs().max()) > 1e-6} == {}
    lines = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("alone", "two")]
    assert len(lines[0]) == len(lines[1]) == 21  # rank 0 alone writes


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("rank", "act", "words"),
    [(1, "SIGKILL", "Rank 1 died"), (0, "SIGKILL", "Rank 0"), (1, "raise", "Rank 1 ended with an error: ValueError")],
)
def test_a_process_that_dies_ends_the_others_and_is_named(tmp_path: Path, rank: int, act: str, words: str) -> None:
    processes = start(config(tmp_path, "run"), 2, rank=rank, step=3, act=act)
    other = processes[1 - rank]
    processes[rank].wait(timeout=500)
    since = time.monotonic()
    said = other.communicate(timeout=100)[0]
    assert time.monotonic() - since < 60
    assert other.returncode not in (0, None) and words in said, said


@pytest.mark.cluster
def test_torchrun_trains_by_the_program(tmp_path: Path) -> None:
    path = config(tmp_path, "run")
    path.write_text(path.read_text().replace("steps = 20", "steps = 2"))
    program = tmp_path / "mrsi-fast"
    program.write_text(f"#!{sys.executable}\nfrom mrsi_fast.cli import main\n\nmain()\n")
    program.chmod(0o755)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    done = subprocess.run(
        [*launcher, str(program), "train", str(path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Model folder:") == 1 and (tmp_path / "run" / "model" / "model.safetensors").exists()
