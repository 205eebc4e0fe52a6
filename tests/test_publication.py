"""A result on disk is the former one or the new one, wherever the writing process is killed."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from mrsi_fast import publication
from mrsi_fast.publication import Busy, Place, exclusive, missing_files, read_record, sha256_of

STEM = "res-x2"


class Killed(BaseException):
    pass


def stage(place: Place, staging: Path, text: str, names: tuple[str, ...]) -> None:
    files = {}
    for name in names:
        path = staging / f"{place.stem}_met-{name}_desc-sr_mrsi.nii.gz"
        path.write_text(f"{text} {name}")
        files[path.name] = {"sha256": sha256_of(path)}
    record = {"identity": {"sha256": text}, "files": files}
    (staging / place.record_path.name).write_text(json.dumps(record))


def publish(place: Place, text: str, names: tuple[str, ...], keep: bool = False) -> None:
    with place.locked(), place.staging() as staging:
        stage(place, staging, text, names)
        place.publish(staging, keep)


def texts(place: Place) -> set[str]:
    """What the folder shows of this place, and that the record tells the truth about it."""
    record = place.record()
    assert record is not None and not missing_files(place.folder, record)
    assert set(place.files()) == {place.record_path.name, *record["files"]}
    return {(place.folder / name).read_text() for name in record["files"]}


@pytest.mark.parametrize("keep", [False, True])
def test_killed_anywhere_the_next_run_finds_one_whole_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    """Every change of the file system is counted; the process is 'killed' before the n-th, for every n."""
    counted, at = 0, -1

    def counting(function):  # type: ignore[no-untyped-def]
        def call(*arguments, **options):  # type: ignore[no-untyped-def]
            nonlocal counted
            counted += 1
            if counted == at:
                raise Killed
            return function(*arguments, **options)

        return call

    for name in ("rename", "replace", "unlink", "mkdir"):
        monkeypatch.setattr(Path, name, counting(getattr(Path, name)))
    monkeypatch.setattr(publication.shutil, "rmtree", counting(publication.shutil.rmtree))
    old, new = {"old a", "old b"}, {"new b", "new c"}
    seen = set()
    for number in range(1, 100):
        place = Place(tmp_path / str(number), STEM)
        at = -1
        publish(place, "old", ("a", "b"))
        counted, at = 0, number
        killed = False
        try:
            publish(place, "new", ("b", "c"), keep)
        except Killed:
            killed = True
        at = -1
        record = place.record() if place.record_path.exists() else None
        if record is not None:  # what a reader sees right after the kill
            assert not missing_files(place.folder, record)
        with place.locked():
            seen.add(frozenset(texts(place)))
            assert texts(place) in (old, new)
        assert not list(place.folder.glob(".*"))
        if not killed:
            break
    assert seen == {frozenset(old), frozenset(new)} and number > 8
    kept = sorted(path.read_text() for path in place.folder.glob("earlier/*/*.nii.gz"))
    assert kept == (sorted(old) if keep else [])


def test_what_belongs_to_nobody_is_kept_aside(tmp_path: Path) -> None:
    place = Place(tmp_path, STEM)
    stranger = tmp_path / f"{STEM}_met-x_desc-sample003_mrsi.nii.gz"
    stranger.write_text("somebody's")
    other = tmp_path / f"{STEM}x4_met-x_desc-sr_mrsi.nii.gz"  # another stem
    other.write_text("another's")
    publish(place, "new", ("a",))
    assert texts(place) == {"new a"} and other.exists()
    assert (tmp_path / "earlier" / f"{STEM}-1" / stranger.name).read_text() == "somebody's"


def test_ratios_of_a_result_go_with_it_unless_it_is_the_same(tmp_path: Path) -> None:
    place = Place(tmp_path, STEM)
    ratio = tmp_path / f"{STEM}_met-aOverb_desc-ratiostd_mrsi.nii.gz"
    publish(place, "one", ("a",))
    ratio.write_text("of one")
    publish(place, "one", ("a", "b"))
    assert ratio.exists()
    publish(place, "two", ("a",))
    assert not ratio.exists() and (tmp_path / "earlier" / f"{STEM}-1" / ratio.name).exists()


def test_leftovers_are_swept_but_not_those_of_others(tmp_path: Path) -> None:
    (tmp_path / f".{STEM}.abc.part").mkdir()
    (tmp_path / f".{STEM}_met-a_desc-sr_mrsi.nii.gz.abc.part.nii.gz").write_text("half")
    other = tmp_path / f".{STEM}x4.abc.part"
    other.mkdir()
    with Place(tmp_path, STEM).locked():
        pass
    assert list(tmp_path.iterdir()) == [other]


def _hold(path: Path, entered: object, leave: object) -> None:
    with exclusive(path):
        entered.set()  # type: ignore[attr-defined]
        leave.wait(30)  # type: ignore[attr-defined]
        os._exit(9)  # as if killed


def test_a_lock_keeps_others_out_and_ends_with_its_process(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    entered, leave, path = context.Event(), context.Event(), tmp_path / ".lock"
    process = context.Process(target=_hold, args=(path, entered, leave))
    process.start()
    assert entered.wait(30)
    with pytest.raises(Busy), exclusive(path, wait=False):
        pass
    leave.set()
    with exclusive(path):  # waits for the end of the other
        pass
    process.join()
    assert not path.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"identity": {}, "files": {}}', '{"identity": 3, "files": []}'])
def test_damaged_records(tmp_path: Path, text: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(publication.UnreadableRecord, match=r"record\.json"):
        read_record(path)


def test_a_record_reaches_no_file_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "in").mkdir()
    record = {"files": {"../secret": {"sha256": sha256_of(tmp_path / "secret")}}}
    assert missing_files(tmp_path / "in", record) == ["../secret"]


@pytest.mark.parametrize(
    "journal",
    [
        {"aside": {}, "gone": ["../precious"], "come": []},
        {"aside": {}, "gone": [], "come": ["../precious"]},
        {"aside": {"../precious": "earlier/a/precious"}, "gone": [], "come": []},
        {"aside": {f"{STEM}_desc-sr_mrsi.json": "../precious"}, "gone": [], "come": []},
        {"aside": {f"{STEM}_desc-sr_mrsi.json": "earlier/../precious"}, "gone": [], "come": []},
        {"aside": [], "gone": 3},
        None,
    ],
)
def test_a_planted_journal_moves_and_removes_nothing(tmp_path: Path, journal: object) -> None:
    (tmp_path / "precious").write_text("mine")
    place = Place(tmp_path / "results", STEM)
    publish(place, "one", ("a",))
    planted = place.folder / f".{STEM}.abc.part"
    planted.mkdir()
    (planted / place.record_path.name).write_text("{}")
    (planted / "journal.json").write_text("{" if journal is None else json.dumps(journal))
    with place.locked():
        pass
    assert (tmp_path / "precious").read_text() == "mine" and texts(place) == {"one a"} and not planted.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_in_place_of_a_file_is_a_missing_file(tmp_path: Path) -> None:
    place = Place(tmp_path, STEM)
    publish(place, "one", ("a",))
    record = place.record()
    assert record is not None
    (name,) = record["files"]
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    assert missing_files(tmp_path, record) == [name]
