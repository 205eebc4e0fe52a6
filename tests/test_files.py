"""Atomic writing: a target is either its old self or its new self."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mrsi_fast.files import atomic_path, write_text


def test_failure_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "map.nii.gz"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="midway"), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("midway")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_suffix_is_kept_and_mode_follows_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "map.nii.gz") as temporary:
            assert temporary.name.endswith(".nii.gz")
            temporary.write_bytes(b"x")
        write_text(tmp_path / "note.json", "ä")
    finally:
        os.umask(previous)
    assert (tmp_path / "map.nii.gz").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "note.json").read_text(encoding="utf-8") == "ä"
