"""Tables of docs/speed.md beside the engines': fewer bits, one slice shape by shape, commands from start to files."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from harness.records import History
from harness.stages import SAMPLING
from harness.table import duration, heads_by_threads

FEW_BITS = {
    "native": "**mrsi_fast, native engine (float32)**",
    "native-amx": "mrsi_fast, `native-amx`: sums of two bfloat16",
    "openvino-bf16": "OpenVINO, bfloat16",
    "autocast-bf16": "PyTorch, `torch.autocast` to bfloat16",
    "mkldnn-bf16": 'PyTorch, `mkldnn.conv.fp32_precision = "bf16"`',
    "mkldnn-tf32": 'PyTorch, `mkldnn.conv.fp32_precision = "tf32"`',
}
"""Rows of ``bench_low_precision`` in words."""

ONE_SLICE = {"onednn": "oneDNN", "ncnn": "ncnn", "mnn": "MNN"}
COMMANDS = {
    "bench_command[example-mean-t2]": "example (6 maps, 16x16x3, x4), mean and SD",
    "bench_command[brain-mean-t2]": "whole brain (6 maps, 32x42x22, x2), mean and SD",
    "bench_command_samples[example-8-samples-t2]": "example, 8 samples",
    "bench_command_samples[brain-8-samples-t2]": "whole brain, 8 samples",
}
SHOWN_S = 0.05
"""Stages that take less are not told."""

Recorded = Callable[[Sequence[str]], list[str]]


def low_precision(history: History, recorded: Recorded) -> list[str]:
    """Engines that multiply with fewer bits than float32, each error beside its time."""
    names = [name for name in history.rows if name.startswith("bench_low_precision[")]
    threads = sorted({history.contests[history.rows[name].contest].threads for name in names})
    if not threads:
        return []
    lines = [
        "The same evaluation with fewer bits; errors against float64, over the largest value of the map, any map:",
        "",
        heads_by_threads("| engine | error |", threads),
        "|---|---:|" + "---:|---:|" * len(threads),
    ]
    for label, words in FEW_BITS.items():
        cells, error = [], None
        for t in threads:
            name, native = f"bench_low_precision[{label}-t{t}]", f"bench_low_precision[native-t{t}]"
            if name not in history.rows:
                reason = history.missing.get(name)
                cells += [f"not available: {reason}" if reason else "", ""]
                continue
            error = history.rows[name].facts.get("error")
            ratio = None if label == "native" or native not in history.rows else history.faster(native, name)
            cells += [duration(history.seconds(name)), "" if ratio is None else str(ratio)]
        if any(cells):
            lines.append(f"| {words} | {'' if error is None else f'{error:.1e}'} | " + " | ".join(cells) + " |")
    return [*lines, "", *recorded(names)]


def one_slice(history: History, recorded: Recorded) -> list[str]:
    """Every stride-1 3x3 convolution of one slice against the convolutions of other engines."""
    found = {
        name: row for name, row in history.rows.items() if name.startswith("bench_conv3x3[native-b1-") and row.case
    }
    if not found:
        return []
    known = [*history.rows, *history.missing]
    peers = [one for one in ONE_SLICE if any(name.startswith(f"bench_conv3x3[{one}-b1-") for name in known)]
    lines = [
        "Convolutions of one slice, shape by shape, weights packed beforehand; how many times faster ours is than",
        "",
        "| channels, grid | threads | ours |" + "".join(f" {ONE_SLICE[one]} |" for one in peers),
        "|---|---:|---:|" + "---:|" * len(peers),
    ]
    for name, row in found.items():
        ratios = []
        for peer in peers:
            other = name.replace("[native-", f"[{peer}-")
            ratio = history.faster(name, other) if other in history.rows else None
            ratios.append(history.missing.get(other, "") if ratio is None else str(ratio))
        shape = _shape(row.case)
        threads = history.contests[row.contest].threads
        lines.append(f"| {shape} | {threads} | {duration(history.seconds(name))} | {' | '.join(ratios)} |")
    return [*lines, "", *recorded(list(found))]


def commands(history: History, recorded: Recorded) -> list[str]:
    """Whole processes of ``mrsi-fast sr``, beside the import of PyTorch in the same rounds."""
    found = [name for name in COMMANDS if name in history.rows]
    if not found:
        return []
    lines = [
        "`mrsi-fast sr` with its default self-test and report, a process from start to files; `import torch` in turn:",
        "",
        "| input | start to files | beyond `import torch` [range] | sampling | stages, seconds, of one more run |",
        "|---|---:|---:|---:|---|",
    ]
    for name in found:
        row = history.rows[name]
        bare = history.rows[f"{name.split('[')[0]}[import-torch--t2]"].seconds
        extra = [mine - theirs for mine, theirs in zip(row.seconds, bare, strict=True)]
        beyond = f"{statistics.median(extra):.2f} s [{min(extra):.2f}, {max(extra):.2f}]"
        stages = row.facts.get("stages", {})
        told = ", ".join(f"{stage} {one:.2f}" for stage, one in stages.items() if one >= SHOWN_S)
        sampling = f"{stages[SAMPLING]:.2f} s" if SAMPLING in stages else ""
        cells = (COMMANDS[name], duration(history.seconds(name)), beyond, sampling, told)
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", *recorded(found)]


def _shape(case: str) -> str:
    """The case b1-512to256-8 as 512 -> 256, 8x8; b1-all as all of an evaluation."""
    name = case.removeprefix("b1-")
    if name == "all":
        return "all of one evaluation"
    channels, size = name.split("-")
    return f"{channels.replace('to', ' -> ')}, {size}x{size}"
