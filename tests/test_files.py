"""Atomic writing: a target is either its old self or its new self."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mrsi_fast.files import as_umask_leaves, atomic_path, leads_out, open_regular, read_json, sweep, write_text


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


def test_the_umask_outlives_writers_that_ask_for_it_at_once(tmp_path: Path) -> None:
    previous, interval = os.umask(0o027), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns between any two steps
    try:
        with ThreadPoolExecutor(4) as pool:
            modes = set().union(*pool.map(lambda _: {as_umask_leaves(0o666) for _ in range(5000)}, range(4)))
    finally:
        sys.setswitchinterval(interval)
        left = os.umask(previous)
    assert left == 0o027 and modes == {0o640}


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.nii.gz") as temporary:
        (tmp_path / temporary.name.replace(".a.", ".b.")).touch()
    kept = {"a.nii.gz", "b.part.txt", ".hidden", ".link.part"}
    for name in kept - {"a.nii.gz", ".link.part"}:
        (tmp_path / name).touch()
    (tmp_path / ".link.part").symlink_to(tmp_path / "a.nii.gz")
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_pipes_devices_and_folders_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "device.json").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "device"):
        for read in (open_regular, read_json):
            with pytest.raises(OSError, match="regular file|directory"):
                read(tmp_path / f"{name}.json")


def test_json_without_end_and_without_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"ä": [1, null]}', encoding="utf-8")
    assert read_json(path) == {"ä": [1, None]}
    path.write_text("[" * 200_000)
    with pytest.raises(ValueError):
        read_json(path)
    path.write_bytes(b'"\xff"')
    with pytest.raises(ValueError):
        read_json(path)
    monkeypatch.setattr("mrsi_fast.files.LARGEST_TEXT", 100)
    path.write_text(f'"{"a" * 100}"')
    with pytest.raises(OSError, match="larger than 100 bytes"):
        read_json(path)


def test_links_are_followed_within_a_folder_alone(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "file").touch()
    (inside / "near").symlink_to("file")
    (inside / "far").symlink_to(outside / "file")
    (inside / "folder").symlink_to(outside)
    (tmp_path / "alias").symlink_to(inside)
    assert not leads_out(inside / "near", inside) and not leads_out(tmp_path / "alias" / "near", inside)
    assert leads_out(inside / "far", inside) and leads_out(inside / "folder" / "file", inside)
