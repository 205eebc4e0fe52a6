"""``mrsi-fast train`` trains, resumes what is finished without work, and refuses bad settings with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mrsi_fast.cli.app import app
from mrsi_fast.models.pretrained import load_pretrained
from support.tiny import tiny_training


def settings(folder: Path) -> str:
    """A run of two steps, one slice each, that validates once at its end."""
    run = folder / "run"
    return tiny_training(run, 2, name="tiny", batch_size=1, validation_steps=1000, device="cpu")


def train(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["train", str(config), *arguments])


@pytest.mark.slow
def test_a_run_ends_in_a_model_folder_and_says_how_it_went(tmp_path: Path) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text(settings(tmp_path))
    done = train(config)
    assert done.exit_code == 0, done.output
    assert "step: 2 of 2" in done.stderr and "loss" in done.stderr
    assert f"Model folder: {tmp_path / 'run' / 'model'}" in done.stdout
    assert load_pretrained(tmp_path / "run" / "model").config.name == "tiny"
    weights = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    assert train(config, "-q").exit_code == 0  # finished: nothing left to train
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("steps = 2\n", "output: Field required"),
        ('output = "run"\nsteps = 0\n', "steps: Input should be greater than 0"),
        ('output = "run"\nsteps = 2\ncolour = "red"\n', "colour: Extra inputs are not permitted"),
        ("steps = [", "not a valid configuration file"),
        ('output = ""\nsteps = 2\n', "output: Value error, the folder has no name"),
        ('output = "run"\nsteps = 2\n[loss]\nspread = inf\n', "loss.spread: Input should be a finite number"),
        ('output = "run"\nsteps = 2\n[optimiser]\nlearning_rate = nan\n', "learning_rate: Input should be"),
    ],
)
def test_bad_settings(text: str, expected: str, tmp_path: Path) -> None:
    config = tmp_path / "bad.toml"
    config.write_text(text)
    done = train(config)
    assert done.exit_code == 2 and expected in done.stderr and "Traceback" not in done.output


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"output": "a", "output": "b", "steps": 2}', "the key output stands twice"),
        ('["run"]', "holds no table of settings"),
        ('{"output": "run", "steps": NaN}', "steps: Input should be a finite number"),
    ],
)
def test_bad_settings_in_json(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(text)
    done = train(tmp_path / "bad.json")
    assert done.exit_code == 2 and expected in done.stderr


def test_a_damaged_checkpoint_is_a_model_problem(tmp_path: Path) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text(settings(tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"damaged")
    done = train(config)
    assert done.exit_code == 5 and "is damaged" in done.stderr
