"""The speed tables: every number from the history, between markers, unfit machines named."""

from __future__ import annotations

import re

import pytest

from harness.readme import BEGIN, END, SHORT_BEGIN, SHORT_END, rewrite, section, short_table
from harness.records import QUALITY, SGEMM_AGAIN, History
from harness.table import duration, text_table


def with_engines(made: History) -> History:
    seconds = {"native": "bench_norm[ours-t1]", "eager": "bench_norm[eager-t1]", "ort": "bench_conv[ours-t1]"}
    rows = {
        f"bench_unet[{label}-t1]": made.rows[name].model_copy(update={"label": label, "than": "bench_unet[eager-t1]"})
        for label, name in seconds.items()
    }
    missing = {"bench_unet[openvino-t1]": "openvino is not installed"}
    return made.model_copy(update={"rows": {**made.rows, **rows}, "missing": missing})


def test_the_tables_hold_what_the_history_holds(history):
    made = with_engines(history(0, noise=0.0))
    text = section([made], ["docs/speed_engines.png"])
    assert text.startswith(BEGIN) and text.endswith(END)
    assert "| **mrsi_fast, native engine** | 1 ms |  |" in text
    assert "| PyTorch eager, contiguous | 1.8 ms | 1.80 [1.80, 1.80] |" in text
    assert "| ONNX Runtime | 6 ms | 6.00 [6.00, 6.00] |" in text
    assert "| OpenVINO, float32 | openvino is not installed |  |" in text
    assert "Example 1, 2 CPUs, avx2" in text and "![speed engines](docs/speed_engines.png)" in text


def test_the_latest_machine_is_told_in_full_and_others_in_two_tables(history):
    def machine(cpu: str, started: str, ours: str) -> History:
        made = with_engines(history(0, noise=0.0))
        level = {
            name.replace("bench_norm[ours", "bench_group_norm_silu[ours-forward-level0"): row
            for name, row in made.rows.items()
        }
        volume = made.rows["bench_conv[ours-t1]"].model_copy(update={"facts": {"words": f"volume by {ours}"}})
        rows = {**level, "bench_volume[native-t1]": volume}
        runs = [made.runs[0].model_copy(update={"started": started})]
        return made.model_copy(update={"rows": rows, "runs": runs, "machine": {**made.machine, "cpu": cpu}})

    older = machine("Older(R) CPU 1", "2026-01-01 00:00 UTC", "older")
    newer = machine("Newer(TM) Processor 2 @ 3 GHz", "2026-01-02 00:00 UTC", "newer")
    text = section([older, newer], ["docs/speed_engines.png"])
    assert text == section([newer, older], ["docs/speed_engines.png"])
    first, second = text.split("**Older 1, 2 CPUs, avx2**")
    assert "**Newer 2, 2 CPUs, avx2**" in first and "docs/speed_engines.png" in first
    assert first.count("| engine |") == second.count("| engine |") == 1
    assert "volume by newer" in first and "volume by older" not in text
    assert "Every ratio is the median" in first.replace("\n", " ") and "Every ratio" not in second
    assert "| operation | than | faster, 1 thread |" in second
    assert "| GroupNorm-SiLU, forward | PyTorch | 1.80 [1.80, 1.80] |" in second


def test_volumes_have_their_quality_beside_them(history):
    made = history(0, noise=0.0)
    rows = {
        "bench_volume[native-64x64-1-steps-t1]": made.rows["bench_norm[ours-t1]"],
        "bench_volume[eager-64x64-8-steps-t1]": made.rows["bench_conv[ours-t1]"],
    }
    point = {"label": "1 step", "row": next(iter(rows)), "lpips": 0.18, "psnr": 21.16, "seed_style": False}
    figures = {QUALITY: {"points": [point], "zero_fill": {"lpips": 0.3, "psnr": 20.0}, "title": "3 heads"}}
    text = section([made.model_copy(update={"rows": {**made.rows, **rows}, "figures": figures})])
    assert "| bench_volume[native-64x64-1-steps-t1] | 1 ms |  | 0.180 | 21.2 dB |" in text
    assert "| bench_volume[eager-64x64-8-steps-t1] | 6 ms |  |  |  |" in text and "Quality: 3 heads." in text


def test_an_unfit_machine_stands_over_the_tables(history):
    made = with_engines(history(0, {SGEMM_AGAIN: 1.2}, noise=0.0))
    text = re.sub(r"\s+", " ", section([made]))
    assert text.index("MACHINE UNFIT: in ops-t1") < text.index("| engine |")
    assert text_table(made)[0].startswith("MACHINE UNFIT")
    assert "MACHINE UNFIT" not in section([with_engines(history(0, noise=0.0))])


def test_only_the_text_between_the_markers_changes(tmp_path, history):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    text = section([with_engines(history(0))])
    assert rewrite(readme, text) and readme.read_text() == f"before\n\n{text}\n\nafter\n"
    assert not rewrite(readme, text)
    readme.write_text("no markers\n")
    with pytest.raises(ValueError, match="needs the line"):
        rewrite(readme, text)


def test_the_short_table_has_at_most_eight_rows(tmp_path, history):
    text = short_table([with_engines(history(0, noise=0.0))])
    assert text.startswith(SHORT_BEGIN) and text.endswith(SHORT_END)
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert "| **mrsi_fast, native engine** | 1 ms |  |" in rows and len(rows) <= 8
    page = tmp_path / "README.md"
    page.write_text(f"{SHORT_BEGIN}\n{SHORT_END}\n")
    assert rewrite(page, text) and not rewrite(page, text)


def test_the_terminal_lists_rows_that_did_not_run(history):
    lines = text_table(with_engines(history(0)))
    assert "bench_unet[openvino-t1]: not run: openvino is not installed" in lines
    assert any(line.startswith("bench_norm[ours-t1]") and "1.8" in line for line in lines)
    assert text_table(History(machine={})) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (2.345, "2.35 s"),
        (0.0231, "23.1 ms"),
        (4.1e-4, "410 us"),
        (1e-9, "1 ns"),
        (27900.0, "7.75 h"),
        (150.0, "2.5 min"),
    ],
)
def test_durations_have_units_that_fit(seconds, words):
    assert duration(seconds) == words


def renamed(made: History, names: dict[str, tuple[str, dict]]) -> History:
    """The history with rows under other names: new name -> (former name, what changes)."""
    rows = {new: made.rows[old].model_copy(update=changes) for new, (old, changes) in names.items()}
    return made.model_copy(update={"rows": {**made.rows, **rows}})


def test_fewer_bits_have_their_error_beside_them(history):
    made = renamed(
        history(0, noise=0.0),
        {
            "bench_low_precision[native-t1]": ("bench_norm[ours-t1]", {"facts": {"error": 6e-6}}),
            "bench_low_precision[openvino-bf16-t1]": ("bench_norm[eager-t1]", {"facts": {"error": 0.012}}),
        },
    )
    made = made.model_copy(update={"missing": {"bench_low_precision[autocast-bf16-t1]": "no such instructions"}})
    text = section([made])
    assert "| **mrsi_fast, native engine (float32)** | 6.0e-06 | 1 ms |  |" in text
    assert "| OpenVINO, bfloat16 | 1.2e-02 | 1.8 ms | 1.80 [1.80, 1.80] |" in text
    assert "`torch.autocast` to bfloat16 |  | not available: no such instructions |  |" in text


def test_one_slice_is_told_shape_by_shape(history):
    case = "b1-512to256-8"
    made = renamed(
        history(0, noise=0.0),
        {
            f"bench_conv3x3[native-{case}-t1]": ("bench_norm[ours-t1]", {"case": case}),
            f"bench_conv3x3[onednn-{case}-t1]": ("bench_norm[eager-t1]", {"case": case}),
        },
    )
    made = made.model_copy(update={"missing": {f"bench_conv3x3[mnn-{case}-t1]": "MNN is not installed"}})
    assert "| 512 -> 256, 8x8 | 1 | 1 ms | 1.80 [1.80, 1.80] | MNN is not installed |" in section([made])


def test_commands_are_told_beyond_the_import_of_pytorch(history):
    made = renamed(
        history(0, noise=0.0),
        {
            "bench_command[import-torch--t2]": ("bench_norm[ours-t1]", {}),
            "bench_command[example-mean-t2]": (
                "bench_norm[eager-t1]",
                {"facts": {"stages": {"sampling": 2.5, "report": 0.25, "publish": 0.001}}},
            ),
        },
    )
    assert "mean and SD | 1.8 ms | 0.00 s [0.00, 0.00] | 2.50 s | sampling 2.50, report 0.25 |" in section([made])


def test_every_table_says_at_which_commit_and_rule_it_was_recorded(history):
    text = section([with_engines(history(0, noise=0.0))])
    assert re.search(r"Recorded at commit \S+, timing rule \d\.", text.replace("\n", " "))
