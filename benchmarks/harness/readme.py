"""The tables of docs/speed.md and the short one of the README, written from recorded rows between two markers each."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Sequence
from pathlib import Path

from harness.peer_tables import commands, low_precision, one_slice
from harness.ratios import Ratio
from harness.records import QUALITY, History, newest_first
from harness.table import controls, duration, heads_by_threads, unfit
from mrsi_fast.files import write_text

BEGIN = "<!-- speed: written by `make bench-report`; do not edit by hand -->"
END = "<!-- end of speed -->"
SHORT_BEGIN = "<!-- speed table: written by `make bench-report`; do not edit by hand -->"
SHORT_END = "<!-- end of speed table -->"

ENGINES = {
    "native": "**mrsi_fast, native engine**",
    "native-amx": "mrsi_fast, `native-amx`: sums of two bfloat16",
    "fused-eager": "mrsi_fast, operations one by one",
    "eager": "PyTorch eager, contiguous",
    "eager-channels": "PyTorch eager, channels-last",
    "compile": "`torch.compile`, weights frozen",
    "max-autotune": '`torch.compile(mode="max-autotune")`, weights frozen',
    "ort": "ONNX Runtime",
    "openvino": "OpenVINO, float32",
    "mnn": "MNN, float32",
}
"""Engines of ``bench_unet`` in the words of the table, in its order."""

OPERATIONS = {
    "bench_conv3x3_gn_silu[native-b8-all": "GroupNorm-SiLU + 3x3 convolution, 8 slices",
    "bench_conv3x3_gn_silu[native-b1-all": "GroupNorm-SiLU + 3x3 convolution, 1 slice",
    "bench_conv3x3[native-b8-all": "3x3 convolution alone, 8 slices",
    "bench_conv3x3[native-b1-all": "3x3 convolution alone, 1 slice",
    "bench_conv3x3[native-amx-b8-all": "the same on AMX, 8 slices",
    "bench_conv3x3[native-amx-b1-all": "the same on AMX, 1 slice",
    "bench_group_norm_silu[ours-forward-level0": "GroupNorm-SiLU, forward",
    "bench_group_norm_silu[ours-training-level0": "GroupNorm-SiLU, forward and backward",
    "bench_self_attention[native-16x16-5x32": "self-attention, 16x16 positions",
    "bench_self_attention[native-8x8-8x32": "self-attention, 8x8 positions",
    "bench_solver_step[native-step": "solver step",
    "bench_solver_step[native-step-hard": "solver step, hard data consistency",
    "bench_data_consistency[ours-hard-60x60": "data consistency alone, odd matrix",
    "bench_sampling[native": "sampling run, 8 steps",
    "bench_sampling[native-amx": "sampling run, 8 steps, `native-amx`",
    "bench_training_step[ours": "training step, float32",
    "bench_training_step[bfloat16": "training step, bfloat16 against float32",
}
"""Rows of the second table by the beginning of their names, up to the number of threads."""

ALONE = {
    "bench_startup[import-t2]": "`import mrsi_fast`",
    "bench_startup[help-t2]": "`mrsi-fast --help`",
    "bench_startup[first-result-t2]": "`mrsi-fast sr` on the example, one-step mean, from start to files",
    "bench_simulation[phantom-t1]": "simulating a training batch of 8 slices, analytic head",
    "bench_simulation[heads-t1]": "simulating a training batch of 8 slices, label maps",
}

METHOD = (
    "Times are medians. Every ratio is the median of ratios taken within rounds, with a 95 % bootstrap interval: peers "
    "run in turn, in shuffled order, with as many threads, on the same input, and their results are compared first."
)

PEER_NAMES = {"onednn": "oneDNN, packed weights", "eager": "PyTorch", "fourier": "Fourier mask"}


def section(histories: Sequence[History], plots: Sequence[str] = ()) -> str:
    """Markdown of the whole section, markers included: the latest machine in full, of the others two tables each.

    Args:
        histories: One for each machine.
        plots: Paths of the latest machine's plots, relative to docs/speed.md.
    """
    latest, *others = newest_first(histories)
    told = functools.partial(_recorded, latest)
    parts = [_machine(latest, METHOD), _engines(latest), low_precision(latest, told), _operations(latest)]
    parts += [one_slice(latest, told), commands(latest, told), _alone(latest), _volume(latest)]
    parts += [[f"![{Path(plot).stem.replace('_', ' ')}]({plot})"] for plot in plots]
    for history in others:
        told = functools.partial(_recorded, history)
        parts += [_machine(history, "Another machine."), _engines(history), low_precision(history, told)]
        parts += [_ratios(history), one_slice(history, told), commands(history, told)]
    return "\n".join([BEGIN, "", *(line for part in parts if part for line in [*part, ""]), END])


def recorded(history: History, names: Sequence[str]) -> str:
    """At which commits and by which timing rule rows were recorded, a sentence."""
    runs: dict[tuple[str, int], list[str]] = {}
    for name in names:
        contest = history.contests[history.rows[name].contest]
        key = ", ".join(dict.fromkeys(history.runs[run].commit or "unknown" for run, _ in contest.sessions))
        runs.setdefault((key, max(history.timing(name))), []).append(name)
    parts = [f"commit {commit}, timing rule {timing}" for commit, timing in runs]
    if len(parts) == 1:
        return f"Recorded at {parts[0]}."
    counts = [f"{len(rows)} rows at {part}" for rows, part in zip(runs.values(), parts, strict=True)]
    return f"Recorded: {'; '.join(counts)}."


def _recorded(history: History, names: Sequence[str]) -> list[str]:
    return _wrapped(recorded(history, names))


def short_table(histories: Sequence[History]) -> str:
    """Markdown of the README's table, markers included: one evaluation by each engine on the latest machine.

    Args:
        histories: One for each machine.
    """
    latest = newest_first(histories)[0]
    table = [line for line in _engines(latest) if line.startswith("|") and ENGINES["mnn"] not in line]
    machine = f"{latest.machine_name}, {latest.started}"
    return "\n".join([SHORT_BEGIN, "", *table, "", machine, "", SHORT_END])


def rewrite(page: Path, text: str) -> bool:
    """Puts a text between those lines of a file that are its first and last; returns whether that changed the file.

    Raises:
        ValueError: The two lines are not there, once each and in order.
    """
    lines, before = text.splitlines(), page.read_text(encoding="utf-8")
    first, last = lines[0], lines[-1]
    start, end = before.find(first), before.find(last)
    if not 0 <= start < end or before.count(first) != 1 or before.count(last) != 1:
        raise ValueError(f"{page.name}: needs the line {first!r} once, and {last!r} after it.")
    after = before[:start] + text + before[end + len(last) :]
    if after != before:
        write_text(page, after)
    return after != before


def _machine(history: History, words: str) -> list[str]:
    named = ("python", "torch", "onnxruntime", "openvino", "ncnn", "MNN")
    found = {name: dict.fromkeys(run.versions[name] for run in history.runs if name in run.versions) for name in named}
    versions = ", ".join(f"{name} {' and '.join(numbers)}" for name, numbers in found.items() if numbers)
    head = f"**{history.machine_name}** ({'; '.join(one for one in (history.started, versions) if one)})."
    return _wrapped(" ".join([head, words, *unfit(history), controls(history)]))


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False)


def _threads(history: History, name: str) -> list[int]:
    return [
        threads
        for threads in sorted({contest.threads for contest in history.contests.values()})
        if f"{name}-t{threads}]" in history.rows
    ]


def _engines(history: History) -> list[str]:
    threads = sorted({t for label in ENGINES for t in _threads(history, f"bench_unet[{label}")})
    if not threads:
        return []
    lines = [
        "One evaluation of the shipped network, 8 slices of 8 maps of 64x64, float32:",
        "",
        heads_by_threads("| engine |", threads),
        "|---|" + "---:|---:|" * len(threads),
    ]
    for label, words in ENGINES.items():
        cells = []
        for t in threads:
            name, native = f"bench_unet[{label}-t{t}]", f"bench_unet[native-t{t}]"
            if name not in history.rows:
                cells += [history.missing.get(name, ""), ""]
                continue
            ratio = None if label == "native" else _faster(history, native, name)
            cells += [duration(history.seconds(name)), "" if ratio is None else str(ratio)]
        if any(cells):
            lines.append(f"| {words} | " + " | ".join(cells) + " |")
    rows = [name for name in history.rows if name.startswith("bench_unet[")]
    return [*lines, "", *_wrapped(" ".join([*_remarks(history, threads), recorded(history, rows)]))]


def _remarks(history: History, threads: Sequence[int]) -> list[str]:
    """How far the native engine is from a model of its arithmetic, and what it gains by the second thread."""
    sentences = []
    for t in threads:
        name = f"bench_unet[native-t{t}]"
        over = history.over_model(name) if name in history.rows else None
        if over is not None:
            sentences.append(f"{over:.2f} times with {t} thread{'s' * (t > 1)}")
    if sentences:
        sentences = [
            "Of what a model of its arithmetic says (stride-1 3x3 convolutions at 0.85 x 4 R, all else at R) it takes "
            f"{', '.join(sentences)}."
        ]
    scaling = history.scaling("bench_unet[native-t1]")
    if scaling is not None:
        sentences.append(f"By the second thread it gains {scaling} of what a matrix product gains.")
    return sentences


def _faster(history: History, name: str, than: str) -> Ratio | None:
    return history.faster(name, than) if name in history.rows else None


def _operations(history: History) -> list[str]:
    lines, names = [], []
    for beginning, words in OPERATIONS.items():
        for threads in _threads(history, beginning):
            name = f"{beginning}-t{threads}]"
            row, ratio = history.rows[name], history.faster(name)
            if row.than is None or ratio is None:
                continue
            names.append(name)
            peer = history.rows[row.than].label
            share = history.shares(name).get("share_of_gemm")
            lines.append(
                f"| {words} | {threads} | {duration(history.seconds(name))} | {duration(history.seconds(row.than))} "
                f"({PEER_NAMES.get(peer, peer)}) | {ratio} | {'' if share is None else f'{share:.2f}'} |"
            )
    if not lines:
        return []
    heads = ["| operation | threads | ours | theirs | times faster | share of R |", "|---|---:|---:|---:|---:|---:|"]
    note = (
        "8 slices of 8 maps of 64x64 where nothing else is said; convolutions are all that one evaluation has, the "
        "norm is one of 96 channels. R is the better of PyTorch's and our own matrix product (1024x1024) in the same "
        "rounds. Arithmetic is counted as the direct method needs it, which Winograd convolutions undercut: shares "
        "above 1 are no mistake."
    )
    return [*heads, *lines, "", *_wrapped(f"{note} {recorded(history, names)}")]


def _ratios(history: History) -> list[str]:
    """The ratios of the operations alone, a column for each number of threads."""
    threads = [
        t
        for t in sorted({contest.threads for contest in history.contests.values()})
        if any(f"{beginning}-t{t}]" in history.rows for beginning in OPERATIONS)
    ]
    lines: list[str] = []
    told: list[str] = []
    for beginning, words in OPERATIONS.items():
        names = [f"{beginning}-t{t}]" for t in threads]
        found = {name: ratio for name in names if name in history.rows and (ratio := history.faster(name)) is not None}
        if found:
            told += found
            peer = history.rows[str(history.rows[next(iter(found))].than)].label
            cells = [str(found.get(name, "")) for name in names]
            lines.append(f"| {words} | {PEER_NAMES.get(peer, peer)} | " + " | ".join(cells) + " |")
    if not lines:
        return []
    heads = "".join(f" faster, {t} thread{'s' * (t > 1)} |" for t in threads)
    table = [f"| operation | than |{heads}", "|---|---|" + "---:|" * len(threads), *lines]
    return [*table, "", *_recorded(history, told)]


def _alone(history: History) -> list[str]:
    lines = [
        f"| {words} | {duration(history.seconds(name))} |" for name, words in ALONE.items() if name in history.rows
    ]
    names = [name for name in ALONE if name in history.rows]
    return ["| from nothing, and data | time |", "|---|---:|", *lines, "", *_recorded(history, names)] if lines else []


def _volume(history: History) -> list[str]:
    names = [name for name in history.rows if name.startswith("bench_volume[")]
    if not names:
        return []
    quality = history.figures.get(QUALITY, {})
    reached = {point["row"]: f" {point['lpips']:.3f} | {point['psnr']:.1f} dB |" for point in quality.get("points", [])}
    lines = [
        "| one sample of a whole volume | time | 8 steps of ours are faster by |" + " LPIPS | PSNR |" * bool(quality),
        "|---|---:|---:|" + "---:|---:|" * bool(quality),
    ]
    for name in names:
        facts = history.rows[name].facts
        ratio = None if facts.get("against") == name else _faster(history, str(facts.get("against")), name)
        line = f"| {facts.get('words', name)} | {duration(history.seconds(name))} | {'' if ratio is None else ratio} |"
        lines.append(line + (reached.get(name, "  |  |") if quality else ""))
    told = [f"Quality: {quality['title']}."] if quality else []
    return [*lines, "", *_wrapped(" ".join([*told, recorded(history, names)]))]
