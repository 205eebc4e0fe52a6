"""One folder, several subjects, settings and processes: no file of one result is ever shown as another's."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from mrsi_fast.cli.app import app
from mrsi_fast.cli.report import results_below
from mrsi_fast.publication import missing_files, read_record
from support.cohort import AFFINE, BROKEN, PROGRAM, write_cohort, write_subject


@pytest.fixture
def run(model_folder: Path) -> Callable[..., Result]:
    def command(*arguments: str | Path) -> Result:
        words = [str(one) for one in arguments]
        if words[0] == "sr":
            words += ["--model", str(model_folder), "--threads", "1", "--steps", "1"]
        return CliRunner().invoke(app, words)

    return command


def sr(run: Callable[..., Result], maps: Path, out: Path, *more: str) -> Result:
    samples = () if "--samples" in more else ("--samples", "0")
    return run("sr", "-i", maps, "-o", out, *samples, *more)


def the_map(folder: Path, name: str = "NAANAAG") -> np.ndarray:
    return nib.load(folder / f"res-x2_met-{name}_desc-sr_mrsi.nii.gz").get_fdata()


def check(out: Path, alone: dict[str, Path]) -> None:
    """Every map in the folder is, byte for byte, what its subject gives alone; every file belongs to a result."""
    complete, incomplete = results_below(out)
    assert complete and not incomplete
    owned: set[Path] = set()
    for path in complete:
        record = read_record(path)
        reference = alone[record["identity"]["sha256"]]
        names = set(record["files"])
        assert names == set(read_record(reference / path.name)["files"])
        for name in names:
            if name.endswith(".nii.gz"):
                assert (path.parent / name).read_bytes() == (reference / name).read_bytes(), name
        owned |= {path, *(path.parent / name for name in names)}
        owned |= set(path.parent.glob(f"{path.name.removesuffix('_desc-sr_mrsi.json')}_met-*_desc-ratio*"))
    for path in out.rglob("*desc-ratio_mrsi.json"):
        if "earlier" not in path.parts:
            record = json.loads(path.read_text())
            now = read_record(path.parent / f"{path.name.split('_met-')[0]}_desc-sr_mrsi.json")
            assert record["identity"]["inputs"]["result"] == now["identity"]["sha256"], path
            assert not missing_files(path.parent, record)
    files = {path for path in out.rglob("*") if path.is_file() and "earlier" not in path.parts}
    assert files - owned <= {out / name for name in ("run.json", "summary.csv", "report.html", "page.html")}


STEPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "one": ("one", ("--samples", "8", "--save-samples")),
    "two": ("two", ("--samples", "8", "--save-samples")),
    "two again with fewer samples": ("two", ("--samples", "2", "--save-samples", "--overwrite")),
    "one again with fewer maps": ("one", ("--samples", "8", "--save-samples", "--metabolites", "tNAA", "--overwrite")),
}
ORDERS = list(itertools.permutations(STEPS))


@pytest.fixture(scope="module")
def alone(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each step of :data:`STEPS` done by itself: identity -> folder; under "in" the inputs."""
    root = tmp_path_factory.mktemp("alone")
    folders = {"in": root / "in"}
    for who, level in (("one", 10.0), ("two", 30.0)):
        write_subject(root / "in" / who, level)
    for number, (who, options) in enumerate(STEPS.values()):
        words = ["sr", "-i", root / "in" / who, "-o", root / str(number), *options]
        words += ["--model", model_folder, "--threads", "1", "--steps", "1"]
        done = CliRunner().invoke(app, list(map(str, words)))
        assert done.exit_code == 0, done.output
        record = read_record(root / str(number) / "res-x2_desc-sr_mrsi.json")
        folders[record["identity"]["sha256"]] = root / str(number)
    assert len(folders) == 5
    return folders


@pytest.mark.parametrize(
    "order",
    [pytest.param(order, marks=[] if number % 8 == 0 else pytest.mark.slow) for number, order in enumerate(ORDERS)],
)
def test_every_order_of_two_subjects_in_one_folder(
    run: Callable[..., Result], alone: dict[str, Path], tmp_path: Path, order: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    for step in order:
        who, options = STEPS[step]
        done = sr(run, alone["in"] / who, out, *options)
        if done.exit_code == 4:  # without --overwrite, other settings of the same subject are refused
            assert "made with other settings" in done.output and "--overwrite" not in options
        else:
            assert done.exit_code == 0, done.output
        check(out, alone)
        for folder in {path.parent for path in results_below(out)[0]}:
            ratio = run("ratio", "tCho/tNAA", "-i", folder)
            assert ratio.exit_code in (0, 3), ratio.output  # 3: the maps of one subject were reduced to tNAA
        page = run("report", "-i", out, "-o", out / "page.html")
        assert page.exit_code == 0, page.output
        check(out, alone)
    assert len(results_below(out)[0]) == 2


def test_a_second_subject_is_done_beside_the_first(run: Callable[..., Result], tmp_path: Path) -> None:
    one, two = write_subject(tmp_path / "one", 10.0), write_subject(tmp_path / "two", 30.0)
    out = tmp_path / "out"
    assert sr(run, one, out).exit_code == 0
    before = {path.name: path.read_bytes() for path in out.glob("res-x2*")}
    for again in ((), ("--overwrite",)):
        done = sr(run, two, out, *again)
        assert done.exit_code == 0 and "holds the result of another input" in done.output
        assert {path.name: path.read_bytes() for path in out.glob("res-x2*")} == before
    assert np.nanmax(the_map(out / "two")) > 2 * np.nanmax(the_map(out))
    front = (out / "report.html").read_text()
    assert 'href="two/res-x2_report.html"' in front and 'href="res-x2_report.html"' in front


def test_the_summary_has_a_row_for_each_result(run: Callable[..., Result], tmp_path: Path) -> None:
    """Two subjects in folders of one name, one after the other; a run.json that points elsewhere."""
    output = tmp_path / "out"
    for number in (1, 2):
        write_subject(tmp_path / str(number) / "maps", number)
        assert run("sr", "-i", tmp_path / str(number) / "maps", "-o", output).exit_code == 0
    results = ["res-x2_desc-sr_mrsi.json", "maps/res-x2_desc-sr_mrsi.json"]

    def rows() -> list[dict[str, Any]]:
        return json.loads((output / "run.json").read_text())["inputs"]

    assert [row["record"] for row in rows()] == results and {row["label"] for row in rows()} == {"maps"}
    page = (output / "report.html").read_text()
    assert "maps/res-x2_report.html" in page and 'href="res-x2_report.html"' in page
    shutil.copytree(output, tmp_path / "elsewhere")
    odd = rows() + [rows()[0] | {"label": "odd", "record": f"../elsewhere/{results[0]}"}]
    (output / "run.json").write_text(json.dumps({"inputs": odd}))
    assert run("sr", "-i", tmp_path / "1" / "maps", "-o", output).exit_code == 0
    assert sorted(row["record"] for row in rows()) == sorted(results)


@pytest.mark.parametrize("name", ["summary.csv", "run.json", "report.html"])
def test_somebody_elses_tables_and_pages_stay(run: Callable[..., Result], tmp_path: Path, name: str) -> None:
    maps, output = write_subject(tmp_path / "maps", 10.0, ("tNAA",)), tmp_path / "study"
    output.mkdir()
    (output / name).write_text("<html><title>my own</title>")
    done = sr(run, maps, output)
    assert done.exit_code == 2 and f"{name}: was not written by mrsi-fast" in done.output
    assert [path.name for path in output.iterdir()] == [name]
    (output / name).unlink()
    assert sr(run, maps, output).exit_code == 0 == sr(run, maps, output, "--overwrite").exit_code


def test_files_of_one_name_from_two_places(run: Callable[..., Result], tmp_path: Path) -> None:
    out, single = tmp_path / "out", "conc_tNAA.nii.gz"
    for who, level in (("one", 10.0), ("two", 30.0), ("three", 90.0)):
        maps = write_subject(tmp_path / who, level)
        assert sr(run, maps / single, out).exit_code == 0
    tops = sorted(np.nanmax(the_map(path.parent)) for path in results_below(out)[0])
    assert len(tops) == 3 and tops[1] > 2 * tops[0] and tops[2] > 2 * tops[1]
    for who in ("one", "two", "three"):
        assert "finished before" in sr(run, tmp_path / who / single, out).output


def test_a_changed_input_is_done_again_and_the_former_result_kept(run: Callable[..., Result], tmp_path: Path) -> None:
    maps, out = write_subject(tmp_path / "sub", 10.0, ("tNAA",)), tmp_path / "out"
    (maps / "crlb_tNAA.nii.gz").unlink()
    assert sr(run, maps, out).exit_code == 0
    first = the_map(out)
    write_subject(maps, 30.0, ("tNAA",))
    done = sr(run, maps, out)
    assert done.exit_code == 0
    assert "the input has changed since (crlb of tNAA, map of tNAA)" in done.output and "were moved to" in done.output
    assert np.nanmax(the_map(out)) > 2 * np.nanmax(first)
    np.testing.assert_array_equal(the_map(out / "earlier" / "res-x2-1"), first)
    assert len(results_below(out)[0]) == 1  # reports and ratios do not look at the former one
    assert "finished before" in sr(run, maps, out).output


def test_a_renamed_or_recompressed_input_is_the_same_one(run: Callable[..., Result], tmp_path: Path) -> None:
    maps, out = write_subject(tmp_path / "sub", 10.0), tmp_path / "out"
    assert sr(run, maps, out).exit_code == 0
    (maps / "conc_tNAA.nii.gz").rename(maps / "conc_NAA+NAAG.nii.gz")
    image = nib.load(maps / "conc_tCho.nii.gz")
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32), AFFINE), maps / "conc_tCho.nii")
    (maps / "conc_tCho.nii.gz").unlink()
    maps.rename(tmp_path / "moved")
    assert "finished before" in sr(run, tmp_path / "moved", out).output


@pytest.mark.parametrize("what", ["gone", "cut", "one bit"])
@pytest.mark.parametrize(
    "which", ["srstd_mrsi.nii.gz", "sample003_mrsi.nii.gz", "met-NAANAAG_desc-sr_", "x2_report.html"]
)
def test_complete_means_every_file_as_it_was_written(
    run: Callable[..., Result], tmp_path: Path, what: str, which: str
) -> None:
    maps, out = write_subject(tmp_path / "sub", 10.0, ("tNAA",)), tmp_path / "out"
    options = ("--samples", "8", "--save-samples")
    assert sr(run, maps, out, *options).exit_code == 0
    target = next(path for path in sorted(out.iterdir()) if which in path.name)
    before = target.read_bytes()
    if what == "gone":
        target.unlink()
    else:
        half = len(before) // 2
        target.write_bytes(before[:half] + (b"" if what == "cut" else bytes([before[half] ^ 1]) + before[half + 1 :]))
    done = sr(run, maps, out, *options)
    assert done.exit_code == 0 and target.name in done.output and "done again" in done.output
    if target.suffix == ".gz":
        assert target.read_bytes() == before
    assert "finished before" in sr(run, maps, out, *options).output


def test_samples_asked_for_later_are_made(run: Callable[..., Result], tmp_path: Path) -> None:
    maps, out = write_subject(tmp_path / "sub", 10.0), tmp_path / "out"
    assert sr(run, maps, out, "--samples", "8").exit_code == 0
    assert sr(run, maps, out, "--samples", "8", "--save-samples").exit_code == 0
    assert len(list(out.glob("*desc-sample*"))) == 16
    assert "finished before" in sr(run, maps, out, "--samples", "8").output  # they do no harm


def test_files_that_no_record_names_are_moved_aside(run: Callable[..., Result], tmp_path: Path) -> None:
    maps, out = write_subject(tmp_path / "sub", 10.0), tmp_path / "out"
    out.mkdir()
    strange = out / "res-x2_met-NAANAAG_desc-sample000_mrsi.nii.gz"
    strange.write_bytes(b"of an earlier version")
    (out / ".res-x2_met-NAANAAG_desc-sr_mrsi.nii.gz.abcd1234.part.nii.gz").write_bytes(b"half")
    (out / ".run.json.abcd1234.part.json").write_bytes(b"half")
    (out / "notes.txt").write_text("mine")
    assert sr(run, maps, out).exit_code == 0
    assert (
        not strange.exists() and (out / "earlier" / "res-x2-1" / strange.name).read_bytes() == b"of an earlier version"
    )
    assert not list(out.glob(".*")) and (out / "notes.txt").read_text() == "mine"


def test_a_damaged_record_is_no_result(run: Callable[..., Result], tmp_path: Path) -> None:
    maps, out = write_subject(tmp_path / "sub", 10.0), tmp_path / "out"
    assert sr(run, maps, out).exit_code == 0
    record = out / "res-x2_desc-sr_mrsi.json"
    record.write_text(record.read_text()[:200])
    assert run("ratio", "tCho/tNAA", "-i", out).exit_code == 3
    assert run("report", "-i", out).exit_code == 3
    done = sr(run, maps, out)
    assert done.exit_code == 0 and "is damaged" in done.output and len(results_below(out)[0]) == 1


def test_ratios_of_two_results_do_not_meet(run: Callable[..., Result], tmp_path: Path) -> None:
    for who, level in (("one", 10.0), ("two", 30.0)):
        assert sr(run, write_subject(tmp_path / who, level), tmp_path / f"out-{who}").exit_code == 0
    target = tmp_path / "ratios"
    assert run("ratio", "tCho/tNAA", "-i", tmp_path / "out-one", "-o", target, "--times", "2").exit_code == 0
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    refused = run("ratio", "tCho/tNAA", "-i", tmp_path / "out-two", "-o", target)
    assert refused.exit_code != 0 and "made from another result" in refused.output
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert run("ratio", "tCho/tNAA", "-i", tmp_path / "out-one", "-o", target).exit_code == 0
    assert not [path.name for path in target.iterdir() if "probability" in path.name]  # of the first call


def test_maps_whose_files_would_have_one_name(run: Callable[..., Result], tmp_path: Path) -> None:
    maps = write_subject(tmp_path / "sub", 10.0, ("Foo1", "Foo-1"))
    done = sr(run, maps, tmp_path / "out", "--metabolites", "all")
    assert done.exit_code == 3 and "would both be written as" in done.output, done.output


@pytest.mark.parametrize("tail", [("-i", "st/A", "-i", "st/B", "-o", "st"), ("-i", "st/A", "-o", "st/A")])
def test_results_never_go_among_the_inputs(run: Callable[..., Result], tmp_path: Path, tail: tuple[str, ...]) -> None:
    for who in ("A", "B"):
        write_subject(tmp_path / "st" / who, 10.0)
    before = sorted(path for path in (tmp_path / "st").rglob("*"))
    done = run("sr", "--samples", "0", *(str(tmp_path / one) if "/" in one or one == "st" else one for one in tail))
    assert done.exit_code == 2 and "never overwritten" in done.output
    assert sorted(path for path in (tmp_path / "st").rglob("*")) == before


def test_a_report_overwrites_nothing_but_a_page(run: Callable[..., Result], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert sr(run, write_subject(tmp_path / "sub", 10.0), out).exit_code == 0
    target = out / "res-x2_met-NAANAAG_desc-sr_mrsi.nii.gz"
    before = target.read_bytes()
    (tmp_path / "map.html").symlink_to(target)
    for name in (target, tmp_path / "map.html"):
        done = run("report", "-i", out, "-o", name)
        assert done.exit_code == 2 and "Traceback" not in done.output
    assert target.read_bytes() == before


def test_shards_give_what_one_process_gives(run: Callable[..., Result], tmp_path: Path) -> None:
    """Twelve subjects, five of them broken in different ways: seven done, five named; mended ones alone run again."""
    cohort = tmp_path / "cohort"
    inputs = [word for path in write_cohort(cohort, 12, broken=True) for word in ("-i", str(path))]

    def go(out: Path, *more: str) -> Result:
        return run("sr", *inputs, "-o", out, "--samples", "0", *more)

    assert go(tmp_path / "whole").exit_code == 4
    for part in ("1/3", "2/3", "3/3"):
        assert go(tmp_path / "parts", "--shard", part).exit_code in (0, 3, 4)
    whole, parts = (
        {path.relative_to(out): path.read_bytes() for path in out.rglob("*.nii.gz")}
        for out in (tmp_path / "whole", tmp_path / "parts")
    )
    assert whole == parts and len({path.parts[0] for path in whole}) == 7
    rows = {row["label"]: row for row in json.loads((tmp_path / "parts" / "run.json").read_text())["inputs"]}
    bad = {label for label, row in rows.items() if row["status"] != "done"}
    assert len(rows) == 12 and bad == set(BROKEN)
    assert all(rows[label]["detail"] for label in bad)
    table = (tmp_path / "parts" / "summary.csv").read_text().splitlines()
    assert len(table) == 13 and sum(",done," in line for line in table) == 7
    for label in bad:
        write_subject(cohort / label, 3.0, ("tNAA",))
    again = go(tmp_path / "parts")
    assert again.exit_code == 0 and "5 done, 7 skipped, 0 failed of 12 inputs." in again.output


@pytest.mark.slow
@pytest.mark.parametrize("labels", [("sub-01", "sub-02"), ("ana", "bob")])
def test_two_processes_at_once(
    run: Callable[..., Result], model_folder: Path, tmp_path: Path, labels: tuple[str, str]
) -> None:
    out = tmp_path / "out"
    for who, level in zip(labels, (10.0, 30.0), strict=True):
        write_subject(tmp_path / who, level)
    common = ["--model", model_folder, "--threads", "1", "--samples", "8", "--save-samples", "--steps", "1"]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, ["sr", "-i", tmp_path / who, "-o", out, *common])],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for who in (*labels, labels[0])  # one of them twice
    ]
    said = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said
    complete, incomplete = results_below(out)
    assert len(complete) == 2 and not incomplete
    tops = sorted(
        np.nanmax(
            nib.load(path.with_name(path.name.replace("_desc", "_met-NAANAAG_desc", 1)[:-4] + "nii.gz")).get_fdata()
        )
        for path in complete
    )
    assert tops[1] > 2 * tops[0]
    rows = json.loads((out / "run.json").read_text())["inputs"]
    assert {row["label"] for row in rows} == set(labels)
    assert not list(out.rglob(".*"))
