"""The README's speed section: every number from the history, between markers, unfit machines named."""

from __future__ import annotations

import re

import pytest

from mrsi_fast.report.benchmarks.readme import BEGIN, END, rewrite, section
from mrsi_fast.report.benchmarks.records import SGEMM_AGAIN, History
from mrsi_fast.report.benchmarks.table import duration, text_table


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
    with pytest.raises(ValueError, match="has to stand there once"):
        rewrite(readme, text)


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
