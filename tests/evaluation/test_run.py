"""A whole evaluation on tiny simulated heads and a tiny random network: files, resumption, labels, held-out folders."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from mrsi_fast.config import ConfigError, DiffusionConfig, ModelConfig
from mrsi_fast.evaluation import EvaluationConfig, evaluate, plan, run
from mrsi_fast.evaluation import rows as table_rows
from mrsi_fast.evaluation.memorisation import Library
from mrsi_fast.models.pretrained import FolderConfig, save_pretrained
from mrsi_fast.models.unet import SelfAttentionUNet
from mrsi_fast.mrsi.export import write_map
from mrsi_fast.mrsi.forward import Acquisition
from mrsi_fast.mrsi.geometry import hr_affine
from mrsi_fast.mrsi.mapset import MapInputError
from mrsi_fast.simulation.config import SimulationConfig


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untrained network of a few thousand weights."""
    shape = ModelConfig(
        widths=(32,),
        encoder_blocks=(1,),
        decoder_blocks=(1,),
        encoder_attention=(False,),
        decoder_attention=(False,),
        embedding_width=32,
    )
    torch.manual_seed(0)
    network = SelfAttentionUNet(shape)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.02 * torch.randn_like(weight)
    config = FolderConfig(
        name="tiny",
        model=shape,
        trained_voxel_mm=(3, 20),
        trained_grid=(12, 96),
        diffusion=DiffusionConfig(residual_rms={str(f): (0.1,) * 8 for f in (1, 2, 4, 8)}),
    )
    folder = tmp_path_factory.mktemp("model")
    save_pretrained(folder, config, network.state_dict(), "# untrained\n")
    return str(folder)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every preset on 24x24 voxels of a coarse object."""
    preset = SimulationConfig.preset.__func__

    def coarse(cls: type[SimulationConfig], name: str) -> SimulationConfig:
        config = preset(cls, name)
        volume = config.volume.model_copy(update={"matrix": (24, 24), "metabolites": ("tNAA", "tCho")})
        return config.model_copy(update={"volume": volume, "object_voxel_mm": 3.0, "object_plane_mm": 5.0})

    monkeypatch.setattr(SimulationConfig, "preset", classmethod(coarse))


SETTINGS = {
    "preset": "realistic-3T",
    "scales": (2,),
    "heads": "phantom",
    "slices": 2,
    "fit_slices": 1,
    "samples": 8,
    "steps": (2,),
    "methods": ("zero-fill", "ridge"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


def test_one_command_writes_every_table_and_goes_on_where_it_stopped(model: str, folder: Path, tmp_path: Path) -> None:
    done: list[tuple] = []
    first = evaluate(model=model, output=folder, progress=lambda *a: done.append(a), **SETTINGS)
    for name in ("results.csv", "results.json", "results.md"):
        assert (folder / name).stat().st_size > 1000
    stored = json.loads((folder / "results.json").read_text())
    assert len(stored["rows"]) == len(first.rows)
    with (folder / "results.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == len(first.rows)
    label = ("preset", "N", "factor", "method", "operating_point", "consistency")
    assert all(line[key] for line in lines for key in label)
    assert {line["operating_point"] for line in lines} == {
        "point estimate",
        "one-step mean",
        "sample",
        "mean of 8 samples",
    }
    assert {line["convention"] for line in lines if line["metric"] == "psnr"} == {"yale", "brain"}

    part = next((first.parts).glob("001_x2.json"))
    part.unlink()
    before = (first.parts / "000_x2.json").stat().st_mtime_ns
    again = evaluate(model=model, output=folder, **SETTINGS)
    assert (first.parts / "000_x2.json").stat().st_mtime_ns == before
    assert json.dumps(again.rows) == json.dumps(first.rows)  # recomputed or read: identical numbers
    fresh = evaluate(model=model, output=tmp_path / "fresh", **SETTINGS)
    assert json.dumps(fresh.rows) == json.dumps(first.rows)

    text = (folder / "results.md").read_text()
    assert "## Published, other data, conventions unknown" in text
    assert text.index("29.73") > text.index("## Published")
    assert "realistic-3T, val heads, N = 24" in text and "no p" not in text.split("## Published")[1]
    assert "regressor" in text and "No p is given: 2 heads" in text
    assert "LPIPS: not available" in text or "LPIPS: AlexNet" in text


def test_other_settings_do_not_reuse_the_parts(model: str, folder: Path) -> None:
    other = evaluate(model="none", output=folder, **{**SETTINGS, "methods": ("zero-fill",)})
    assert len(list((folder / "parts").iterdir())) == 2
    assert {row["method"] for row in other.rows} == {"zero-fill"}


def test_figures(model: str, folder: Path) -> None:
    from mrsi_fast.report.evaluation_figures import draw_figures

    evaluation = evaluate(model=model, output=folder, **SETTINGS)
    files = draw_figures(evaluation)
    names = {file.name for file in files}
    assert {"spectrum_x2.png", "calibration_x2.png", "maps_x2.png"} <= names
    first = [file.read_bytes() for file in files]
    assert first == [file.read_bytes() for file in draw_figures(evaluation)]


def test_a_perfect_estimate_scores_perfectly(model: str) -> None:
    from mrsi_fast.evaluation import cases, scoring
    from mrsi_fast.simulation.volume import simulate_subject

    config = EvaluationConfig(**{**SETTINGS, "preset": "paper-like"})
    subject = simulate_subject(config.simulation("evaluated"), 0, 3, [(2, 2)])
    case = cases.simulated_case(subject, (2, 2))
    problem = cases.pose(case, case.mode)
    draws = np.stack([case.truth + 0.1 * s for s in (-1, 1, -1, 1, -1, 1, -1, 1)]).astype(np.float32)
    rows = scoring.score(problem, scoring.Estimate("m", "mean of 8 samples", 1, case.truth, draws), False)
    values = {(row["metric"], row["convention"], row["metabolite"]): row for row in rows}
    assert values["psnr", "yale", "tNAA"]["value"] == np.inf
    assert values["ssim", "brain", "tNAA"]["value"] == 1
    assert values["residual_relative", "", "tNAA"]["value"] < 1e-5
    assert values["coverage_brain", "", "tCho"]["value"] == 1
    for metric in ("level_WM", "level_GM"):
        assert values[metric, "", "tNAA"]["value"] == values[metric, "", "tNAA"]["true"]
    assert {row["convention"] for row in rows if row["metric"] == "spectrum"} == {""}
    blind = scoring.score(problem, scoring.Estimate("A+ y", "point estimate", 0, problem.prepared.volume.z), False)
    level = {row["metric"]: row for row in blind if row["metabolite"] == "tNAA" and "level" in row["metric"]}
    # Missing resolution moves the levels on the fine grid, and cancels in the measured band.
    assert abs(level["level_GM"]["value"] / level["level_GM"]["true"] - 1) > 0.005
    assert level["band_level_GM"]["value"] == pytest.approx(level["band_level_GM"]["true"], rel=1e-5)


def test_the_test_heads_are_named_as_such(model: str, tmp_path: Path) -> None:
    found = evaluate(model="none", output=tmp_path, **{**SETTINGS, "split": "test", "methods": ("zero-fill",)})
    assert {row["split"] for row in found.rows} == {"test"}
    assert "TEST heads" in (tmp_path / "results.md").read_text()


def write_pair(folder: Path, factor: int) -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((24, 20, 2), np.float32)
    truth[5:19, 4:16] = 8 + rng.random((14, 12, 2))
    low = np.moveaxis(
        Acquisition((24 // factor, 20 // factor), (factor, factor)).forward(np.moveaxis(truth, -1, 0)), 0, -1
    )
    affine = np.diag([4.0, 4.0, 10.0, 1.0])
    for name, scale in (("tNAA", 1.0), ("tCr", 0.6)):
        for kind, volume, grid in (("hr", truth, affine), ("lr", low, hr_affine(affine, (1 / factor, 1 / factor, 1)))):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            write_map(folder / kind / f"conc_{name}.nii.gz", scale * volume, grid, kind="map", name=name)


def test_held_out_pairs_of_measured_and_true_maps(model: str, tmp_path: Path) -> None:
    for subject in ("anna", "bert"):
        write_pair(tmp_path / "data" / subject, 2)
    settings = {"held_out": str(tmp_path / "data"), "samples": 8, "steps": (2,)}
    assert plan.plan(EvaluationConfig(**settings))[0].factors == (2, 2)
    found = evaluate(model=model, output=tmp_path / "out", **settings)
    assert {row["head"] for row in found.rows} == {"anna", "bert"}
    assert {row["split"] for row in found.rows} == {"held-out"}
    assert {row["method"] for row in found.rows} == {"zero-fill", "bicubic", "lanczos", run.OURS}
    text = (tmp_path / "out" / "results.json").read_text()
    assert str(tmp_path) not in text


def test_pairs_that_do_not_match_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path / "data" / "anna", 2)
    file = tmp_path / "data" / "anna" / "hr" / "conc_tNAA.nii.gz"
    image = nib.load(file)
    for name in ("tNAA", "tCr"):
        write_map(
            file.with_name(f"conc_{name}.nii.gz"),
            image.get_fdata(),
            image.affine @ np.diag([1.1, 1, 1, 1]),
            kind="map",
            name=name,
        )
    with pytest.raises(MapInputError, match="corners"):
        plan.plan(EvaluationConfig(held_out=str(tmp_path / "data")))


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="at least 8"):
        EvaluationConfig.parse({"samples": 4}, "test")
    with pytest.raises(ConfigError, match="scales"):
        EvaluationConfig.parse({"scales": (3,)}, "test")
    with pytest.raises(ConfigError, match="no such folder"):
        plan.plan(EvaluationConfig(held_out="nowhere"))


def test_memorisation_is_seen_through_shift_and_mirror() -> None:
    rng = np.random.default_rng(2)
    operator = Acquisition((8, 8), (4, 4))
    train, other = rng.standard_normal((2, 32, 32, 3))
    library = Library.of([train])
    copied = np.roll(train[::-1], (3, -5), axis=(0, 1)) + rng.standard_normal(train.shape) * 0.1
    assert min(library.nearest(copied, operator)) > 0.9
    assert max(library.nearest(other, operator)) < 0.3
    smooth = np.moveaxis(operator.measured(np.moveaxis(other, -1, 0)), 0, -1)
    assert library.nearest(smooth, operator) == []  # nothing that the data do not show


def test_rows_of_one_method_and_operating_point_are_not_mixed() -> None:
    def row(point: str, steps: int, head: str, value: float, metabolite: str = "tNAA") -> dict:
        return {
            "method": "m",
            "operating_point": point,
            "steps": steps,
            "head": head,
            "metric": "psnr",
            "convention": "brain",
            "metabolite": metabolite,
            "value": value,
        }

    rows = [
        row("sample", 8, "a", 1.0),
        row("sample", 8, "a", 3.0),
        row("sample", 20, "a", 50.0),
        row("mean", 8, "a", 70.0),
        row("sample", 8, "b", 5.0),
        row("sample", 8, "a", 99.0, "2HG"),
    ]
    assert table_rows.methods(rows) == [("m", "sample", 8), ("m", "sample", 20), ("m", "mean", 8)]
    assert table_rows.head_values(table_rows.of_method(rows, ("m", "sample", 8)), "psnr", "brain") == {
        "a": 2.0,
        "b": 5.0,
    }
    assert table_rows.head_values(rows, "psnr", "brain", apart=True) == {"a": 99.0}
