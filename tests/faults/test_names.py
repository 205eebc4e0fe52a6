"""Row 66: odd names, loops of links, and pipes in place of files."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from mrsi_fast.identity import image_digest
from support.faults import command, fault, head, save, scan


@fault(66)
def test_names_and_loops(tmp_path, row):
    for name in ("P 07", "Zoë-\U0001f9e0", "x" * 200, "a\nb", os.fsdecode(b"\xff\xfe")):
        scan(tmp_path / name)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "P 07" / "conc_tCr.nii.gz").symlink_to(tmp_path / "P 07" / "conc_tCr.nii.gz")
    done = command("validate", "-i", tmp_path)
    assert done.exit_code == 4 and done.output.count("  tNAA") == 4, done.output
    assert "P 07: FAIL" in done.output and "conc_tCr.nii.gz: is a broken link" in done.output
    assert "\x1b" not in done.output and "a\nb" not in done.output
    given = command("validate", *[part for path in sorted(tmp_path.iterdir()) for part in ("-i", path)])
    assert given.exit_code == 4 and given.output.count("  tNAA") >= 4, given.output


@fault(66)
def test_no_name_beside_a_map_loses_the_result_or_reaches_the_terminal(sr, tmp_path, row):
    names = ("\x1b[31mNAA", "\u202eAAN", os.fsdecode(b"\xff"), "\x9b31mNAA", "a\x7fb")
    for name in names:
        save(tmp_path / "in" / f"conc_{name}.nii.gz", head((9, 8, 1)))
    save(tmp_path / "in" / "conc_tCr.nii.gz", head((9, 8, 1)))
    done = sr("-i", tmp_path / "in", "-o", tmp_path / "out")
    assert done.exit_code == 0 and list((tmp_path / "out").glob("*report.html")), done.output
    assert "more were found and not read" in done.output and "\\x1b[31mNAA" in done.output
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", done.output), ascii(done.output)


@fault(66)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_in_place_of_any_file_ends_at_once(sr, model, tmp_path, row):
    """Nothing waits for a writer; `report`: tests/report/test_hostile_folder.py, records: tests/test_files.py."""
    out = tmp_path / "out"
    assert sr("-i", scan(tmp_path / "in", (9, 8, 1)), "-o", out).exit_code == 0
    record = next(out.glob("*_desc-sr_mrsi.json"))
    record.unlink()
    other = Path(shutil.copytree(model, tmp_path / "model"))
    (other / "config.json").unlink()
    for path in (record, other / "config.json", tmp_path / "train.toml", tmp_path / "a.table", tmp_path / "conc_a.nii"):
        os.mkfifo(path)
    for line, code in (
        (("train", tmp_path / "train.toml"), 2),
        (("ratio", "tCr/tNAA", "-i", out), 3),
        (("sr", "-i", tmp_path / "in", "-o", tmp_path / "new", "--model", other), 5),
        (("sr", "-i", tmp_path / "a.table", "-o", tmp_path / "new", "--model", model), 3),
        (("validate", "-i", tmp_path / "conc_a.nii"), 3),
    ):
        done = command(*line)
        assert done.exit_code == code and "Unexpected" not in done.output, done.output
    with pytest.raises(OSError, match="regular file"):
        image_digest(tmp_path / "conc_a.nii")
