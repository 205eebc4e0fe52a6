"""The audit sees a changed and a missing file, and a version that a dependant does not accept."""

from __future__ import annotations

from importlib.metadata import Distribution
from pathlib import Path

import pytest

from support.dependency_audit import changed_files, needed


def install(folder: Path, name: str, requires: str = "") -> Distribution:
    """A distribution of one file, as a wheel leaves it."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text(f"Name: {name}\nVersion: 1.0\n{requires}")
    (folder / f"{name}.py").write_text("")
    empty = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"  # sha256 of nothing
    info.joinpath("RECORD").write_text(f"{name}.py,sha256={empty},0\n{info.name}/RECORD,,\n")
    return Distribution.at(info)


def test_files_are_those_of_the_record(tmp_path: Path) -> None:
    one = install(tmp_path, "aaa")
    assert changed_files(one) == []
    (tmp_path / "aaa.py").write_text("changed")
    assert changed_files(one) == ["aaa.py"]
    (tmp_path / "aaa.py").unlink()
    assert changed_files(one) == ["aaa.py"]


def test_versions_are_those_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    lines = 'Requires-Dist: bbb_audit>=2\nRequires-Dist: ccc_audit\nRequires-Dist: ddd; extra == "x"\n'
    install(tmp_path, "aaa_audit", lines)
    install(tmp_path, "bbb_audit")
    seen: dict[str, Distribution] = {}
    problems: list[str] = []
    needed("aaa_audit", seen, problems)
    assert set(seen) == {"aaa-audit", "bbb-audit"}
    assert problems == [
        "aaa_audit needs bbb_audit>=2, installed is 1.0",
        "aaa_audit needs ccc_audit, which is not installed",
    ]
