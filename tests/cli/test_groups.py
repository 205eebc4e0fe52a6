"""Options that several commands share are declared once, as groups, and mean the same in each of them."""

from __future__ import annotations

import typer
from typer.testing import CliRunner

from mrsi_fast.cli.app import app

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def options_of(name: str) -> dict[str, object]:
    return {parameter.name: parameter for parameter in COMMANDS[name].params}


def test_sr_check_and_validate_read_alike() -> None:
    reading = ["inputs", "more", "metabolites", "names", "units", "maps", "crlb", "snr", "fwhm", "pattern", "like"]
    reading += ["table_axes", "mask", "mask_labels", "crlb_unit", "fwhm_unit", "mhz", "slice_axis", "form"]
    reading += ["min_snr", "max_fwhm", "max_crlb"]
    for name in reading:
        facts = {
            (tuple(one.opts), getattr(one, "help", None), str(one.default))
            for one in (options_of(command)[name] for command in ("sr", "check", "validate"))
        }
        assert len(facts) == 1, name


def test_a_wrong_value_ends_before_a_model_is_loaded(tmp_path) -> None:
    for command in ("check", "validate"):
        words = [command, "-i", str(tmp_path), "--mask-labels", "one"]
        words += ["--model", str(tmp_path / "nowhere")] if command == "check" else []
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 2 and "give whole numbers" in done.output, done.output
