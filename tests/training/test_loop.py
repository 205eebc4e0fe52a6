"""Training resumes exactly, stops cleanly, refuses what does not fit; on the analytic head, with a tiny network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mrsi_fast.config import ConfigError
from mrsi_fast.models.pretrained import load_pretrained
from mrsi_fast.training import Interrupted, TrainConfig, train
from mrsi_fast.training.checkpoint import CHECKPOINT, DAMAGED, PREVIOUS, CheckpointError
from mrsi_fast.training.config import ConditionDropout, OptimiserConfig
from mrsi_fast.training.data import revisited, step_generator, visits, withhold
from mrsi_fast.training.loop import Diverged, Trainer
from mrsi_fast.training.objective import measure_residual_rms
from mrsi_fast.training.optimiser import learning_rate_share
from support.tiny import tiny_training


def write_config(
    folder: Path, output: str, steps: int = 40, workers: int = 0, checkpoint_minutes: float = 10.0
) -> Path:
    path = folder / f"{output}.toml"
    path.write_text(tiny_training(folder / output, steps, workers=workers, checkpoint_minutes=checkpoint_minutes))
    return path


def run_and_kill(config: Path, at_step: int, number: signal.Signals) -> subprocess.CompletedProcess[str]:
    script = (
        "import os, signal, sys, torch; from mrsi_fast.training import train\n"
        "torch.set_num_threads(1)\n"
        "def report(step, steps, message):\n"
        f"    if step == {at_step}: os.kill(os.getpid(), {int(number)})\n"
        "train(sys.argv[1], report)\n"
    )
    return subprocess.run([sys.executable, "-c", script, str(config)], capture_output=True, text=True, timeout=300)


def test_kill_9_and_resume_equal_an_uninterrupted_run_to_the_bit(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    whole = train(write_config(tmp_path, "whole"))
    broken = write_config(tmp_path, "broken", checkpoint_minutes=1e-9, workers=1)
    killed = run_and_kill(broken, 21, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = train(write_config(tmp_path, "broken", checkpoint_minutes=1e-9, workers=1))
    expected, found = load_pretrained(whole).network.state_dict(), load_pretrained(resumed).network.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    losses = [
        json.loads(line)["loss"] for line in (tmp_path / "whole" / "log.jsonl").open() if "loss" in json.loads(line)
    ]
    assert len(losses) == 40 and all(loss == loss for loss in losses)


def test_muon_bfloat16_and_several_passes_resume_to_the_bit_as_well(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    extra = 'precision = "bfloat16"\npasses = 3\nspacing = 2\n'
    folders = []
    for name in ("whole", "broken"):
        path = write_config(tmp_path, name, steps=12, checkpoint_minutes=1e-9)
        text = path.read_text().replace("[optimiser]", "[optimiser]\nfilter_learning_rate = 0.01")
        path.write_text(extra + text)
        if name == "broken":
            assert run_and_kill(path, 5, signal.SIGTERM).returncode == 143
        folders.append(train(path))
    expected, found = (load_pretrained(folder).network.state_dict() for folder in folders)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_every_batch_is_visited_so_often_and_so_far_apart() -> None:
    assert visits(8, 1, 64) == list(range(8))
    order = visits(3000, 3, 5)
    assert order[:9] == [0, 1, 2, 3, 4, 5, 0, 6, 1] and order[-6:] == [1003, 998, 993, 1004, 999, 994]
    assert all(order.count(number) == 3 for number in range(980))
    news = [number for number in range(len(order)) if order[number] == max(order[: number + 1])]
    assert [order[number] for number in news] == list(range(1005))  # in the order in which they are simulated


@pytest.mark.parametrize("start", [0, 7, 100])
def test_a_batch_is_kept_until_its_last_visit(start: int) -> None:
    order = visits(200, 3, 5)[start:]
    first, taken = min(order), []

    def simulated():
        for number in range(first, max(order) + 1):
            taken.append(number)
            yield {"number": torch.tensor(number)}

    seen = [int(batch["number"]) for batch in revisited(simulated(), first, order)]
    assert seen == order and taken == sorted(set(order))


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Trainer, "update", lambda trainer, batch: torch.tensor(float("nan")))
    path = write_config(tmp_path, "run", steps=4, checkpoint_minutes=1e-9)
    path.write_text(path.read_text().replace("log_steps = 1", "log_steps = 1000"))
    with pytest.raises(Diverged, match="not finite in one of the 1 steps .* lower the learning rates"):
        train(path)
    assert not (tmp_path / "run" / CHECKPOINT).exists()


def test_a_gradient_that_is_no_number_is_not_saved_either(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(float("inf")))
    with pytest.raises(Diverged, match="its gradient was not finite"):
        train(write_config(tmp_path, "run", steps=4, checkpoint_minutes=1e-9))
    assert not (tmp_path / "run" / CHECKPOINT).exists()


def test_sigterm_saves_and_leaves_with_143(tmp_path: Path) -> None:
    stopped = run_and_kill(write_config(tmp_path, "run", steps=1000), 3, signal.SIGTERM)
    assert stopped.returncode == 143, stopped.stderr
    assert (tmp_path / "run" / CHECKPOINT).exists() and not (tmp_path / "run" / "model").exists()


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    path = write_config(tmp_path, "run", steps=1)
    train(path)
    path.write_text(path.read_text().replace("warmup_steps = 4", "warmup_steps = 5"))
    with pytest.raises(ConfigError, match="trained with other settings .optimiser."):
        train(path)


def test_fine_tuning_starts_from_weights_and_scales_of_a_model(tmp_path: Path) -> None:
    first = train(write_config(tmp_path, "first", steps=1))
    path = write_config(tmp_path, "second", steps=1)
    text = path.read_text().replace("steps = 1\n", f"initial = {str(first)!r}\nsteps = 1\n", 1)
    path.write_text(text.replace("2 = [0.1,", "2 = [0.7,"))
    trainer = Trainer(TrainConfig.load(path))
    trainer.prepare()
    expected = load_pretrained(first)
    for module in (trainer.network, trainer.average.module):
        assert all(torch.equal(t, expected.network.state_dict()[n]) for n, t in module.state_dict().items())
    assert trainer.rms == expected.config.diffusion.residual_rms
    path.write_text(text.replace("widths = [32]", "widths = [64]").replace(f"{tmp_path}/second", f"{tmp_path}/third"))
    with pytest.raises(ConfigError, match="another shape"):
        Trainer(TrainConfig.load(path)).prepare()


def flip(path: Path, where: float) -> None:
    """Flips one bit, which safetensors does not see among the values."""
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("harm", ["cut", "bit", "pipe"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_resumed(tmp_path: Path, harm: str) -> None:
    path = write_config(tmp_path, "run", steps=4, checkpoint_minutes=1e-9)
    expected = load_pretrained(train(path)).network.state_dict()
    checkpoint, said = tmp_path / "run" / CHECKPOINT, list[str]()
    if harm == "cut":
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    elif harm == "bit":
        flip(checkpoint, 0.9)
    else:
        checkpoint.unlink()
        os.mkfifo(checkpoint)
    again = load_pretrained(train(path, lambda step, steps, message: said.append(message))).network.state_dict()
    assert said[0].startswith("run/checkpoint.safetensors is damaged (")
    assert "resumed from the checkpoint before, at step" in said[0]
    assert all(torch.equal(expected[name], again[name]) for name in expected)
    assert (tmp_path / "run" / DAMAGED).exists() and checkpoint.is_file()
    flip(checkpoint, 0.9)
    flip(tmp_path / "run" / PREVIOUS, 0.9)
    with pytest.raises(CheckpointError, match="checkpoint.safetensors is damaged .*previous.safetensors is damaged"):
        train(path)


@pytest.mark.parametrize("where", [0.9, 0.999])
def test_no_flipped_bit_is_resumed(tmp_path: Path, where: float) -> None:
    path = write_config(tmp_path, "run", steps=1)
    train(path)
    flip(tmp_path / "run" / CHECKPOINT, where)
    (tmp_path / "run" / PREVIOUS).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="checksum"):
        train(path)


def test_one_training_owns_its_folder(tmp_path: Path) -> None:
    path = write_config(tmp_path, "run", steps=2)
    seen = list[str]()

    def second(step: int, steps: int, message: str) -> None:
        with pytest.raises(ConfigError, match="another training is at work there"):
            train(path)
        seen.append(message)

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".checkpoint.safetensors.abc.part.safetensors").write_bytes(b"of a killed training")
    train(path, second)
    assert seen and not list((tmp_path / "run").glob(".*")), "neither the lock nor what was left there"
    train(path)  # free again


def test_interrupted_is_a_system_exit_with_its_code() -> None:
    assert Interrupted(143).code == 143


def test_cuda_is_refused_with_a_sentence_where_there_is_none(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    settings = TrainConfig.load(write_config(tmp_path, "run")).model_copy(update={"device": "cuda"})
    with pytest.raises(ConfigError, match="CUDA is not available"):
        train(settings)


def test_unknown_settings_are_refused(tmp_path: Path) -> None:
    path = write_config(tmp_path, "run")
    path.write_text("colour = 1\n" + path.read_text())
    with pytest.raises(ConfigError, match="colour"):
        train(path)


def test_learning_rate_rises_stays_and_falls_to_almost_nothing() -> None:
    settings = OptimiserConfig(warmup_steps=10, cooldown_steps=20)
    rates = [learning_rate_share(step, 100, settings) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11) and rates[50] == 1.0 and rates[99] == pytest.approx(1 / 21)
    assert all(a <= b for a, b in zip(rates[:50], rates[1:50], strict=False))
    assert all(a >= b for a, b in zip(rates[50:], rates[51:], strict=False))


def test_withholding_keeps_a_present_map_and_its_shares() -> None:
    size = 4000
    presence = torch.ones(size, 8)
    presence[: size // 2, 1:] = 0.0
    batch = {"presence": presence, "anatomy_present": torch.ones(size)}
    dropout = ConditionDropout(all_maps=0.25, named=0.5, other=0.5, anatomy=0.3)
    kept = withhold(batch, dropout, step_generator(0, 0, 1))
    assert (kept["presence"].sum(1) >= 1).all()
    assert (kept["presence"] <= presence).all()
    full = kept["presence"][size // 2 :]
    assert full[:, 2].mean().item() == pytest.approx(0.25 + 0.75 * (0.5 + 0.5 / 8), abs=0.04)
    assert kept["anatomy_present"].mean().item() == pytest.approx(0.3, abs=0.03)


def test_residual_rms_is_measured_in_the_brain_and_only_there() -> None:
    torch.manual_seed(0)
    hr = torch.randn(3, 8, 16, 16) * 0.5
    brain = torch.zeros(3, 16, 16)
    brain[:, 4:12, 4:12] = 1
    z = torch.where(brain[:, None] > 0, 0.0, 100.0).expand_as(hr)
    batch = {
        "hr": hr,
        "z": z,
        "brain": brain,
        "presence": torch.ones(3, 8),
        "scale": torch.full((3, 8), 2.0),
        "factors": torch.tensor([[2.0, 2.0], [4.0, 4.0], [8.0, 8.0]]),
    }
    rms = measure_residual_rms([batch], 8)
    for index, key in enumerate(("2", "4", "8")):
        expected = (hr[index, :, 4:12, 4:12] / 2).square().mean((-2, -1)).sqrt()
        torch.testing.assert_close(torch.tensor(rms[key]), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="never used factor 8"):
        measure_residual_rms([{key: value[:2] for key, value in batch.items()}], 8)
