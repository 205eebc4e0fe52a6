"""``mrsi-fast report`` on a folder that somebody else filled: no link out of it, no pipe, no picture undecoded."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from support import results
from support.faults import command

NAME = "res-x2_met-GPCPCh_desc-sr_mrsi.nii.gz"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    results.save(results.view(samples=0), tmp_path / "out")
    return tmp_path / "out"


def seal(folder: Path, data: bytes) -> None:
    """Lets the record agree with what lies there under ``NAME``."""
    path = folder / "res-x2_desc-sr_mrsi.json"
    record = json.loads(path.read_text())
    record["files"][NAME]["sha256"] = hashlib.sha256(data).hexdigest()
    path.write_text(json.dumps(record))


def test_links_out_of_the_folder_are_not_followed(folder: Path, tmp_path: Path) -> None:
    (folder / NAME).rename(tmp_path / "somebody_elses.nii.gz")
    (folder / NAME).symlink_to(tmp_path / "somebody_elses.nii.gz")
    done = command("report", "-i", folder)
    assert done.exit_code == 3 and "links out of the folder" in done.output and not list(folder.glob("*.html"))
    (folder / NAME).unlink()
    (tmp_path / "somebody_elses.nii.gz").rename(folder / "kept.nii.gz")
    (folder / NAME).symlink_to("kept.nii.gz")
    assert command("report", "-i", folder).exit_code == 0


def test_a_record_that_is_a_link_out_of_the_folder(folder: Path, tmp_path: Path) -> None:
    record = folder / "res-x2_desc-sr_mrsi.json"
    record.rename(tmp_path / record.name)
    record.symlink_to(tmp_path / record.name)
    assert command("report", "-i", folder).exit_code == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
@pytest.mark.parametrize("name", [NAME, "res-x2_desc-sr_mrsi.json"])
def test_a_pipe_ends_at_once(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert command("report", "-i", folder).exit_code == 3


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b damaged", b"<svg onload='alert(1)'/>", b"\x89PNG\r\n\x1a\n"])
def test_only_maps_that_can_be_decoded_are_shown(folder: Path, data: bytes) -> None:
    (folder / NAME).write_bytes(data)
    seal(folder, data)
    done = command("report", "-i", folder)
    assert done.exit_code == 3 and NAME in done.output and "Traceback" not in done.output
    assert not list(folder.glob("*.html"))
