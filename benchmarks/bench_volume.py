"""A whole volume, HR 64x64x20 from 16x16x20, 8 maps, one posterior sample: ours against the seed-style chain.

The chain takes one map at a time through 1000 ancestral steps of eager PyTorch on the same weights. Two of its steps
are timed and multiplied. ``bench_quality_latency`` adds the quality that each reaches on the validation heads; the
chain's quality is computed to its end, with the fastest engine.
"""

from __future__ import annotations

import functools

import pytest

from harness import volumes
from harness.contest import Entry, Missing
from harness.quality import Quality, quality, validation_problems, zero_fill_quality
from harness.records import QUALITY
from mrsi_fast import SuperResolver

pytestmark = pytest.mark.long

THREADS = (2,)
STEPS = (1, 2, 4, 8, 16)
TIMED = 2
CEILING_S = 0.1  # shorter than anything that is compared here
CHAIN = ("seed-chain", "64x64-1000-steps")
PEERS = [
    *(("native", f"64x64-{steps}-steps") for steps in STEPS),
    ("native-amx", "64x64-8-steps"),
    ("eager", "64x64-8-steps"),
    ("compile", "64x64-8-steps"),
    CHAIN,
]
WORDS = {
    "native": "mrsi_fast, native engine, {}",
    "native-amx": "mrsi_fast, native-amx engine, {}",
    "eager": "eager PyTorch, all maps at once, {}",
    "compile": "`torch.compile`, all maps at once, {}",
    "seed-chain": "seed-style chain: eager PyTorch, one map at a time, ancestral DDPM, {} "
    f"({TIMED} of them timed, and multiplied)",
}


def counted_steps(steps: int) -> str:
    return f"{steps} step{'s' * (steps > 1)}"


def entry(label: str, case: str, threads: int) -> Entry:
    size, steps = int(case.split("x")[0]), int(case.split("-")[1])
    if label == "seed-chain":
        build = functools.partial(volumes.chain_steps, threads, size, TIMED)
        return Entry(label, build, case, backend="PyTorch, channels-last", times=volumes.chain_factor(TIMED))
    build = functools.partial(volumes.one_sample, label, threads, size, steps)
    return Entry(label, build, case, backend=label, ours=label.startswith("native"))


def entries(peers: list[tuple[str, str]], threads: int) -> list[Entry]:
    return [entry(label, case, threads) for label, case in peers]


@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize(("label", "case"), PEERS)
def bench_volume(row, contest, label, case, threads):
    options = {"than": "native", "same": False, "rounds": 5, "at_least_s": CEILING_S}
    held = contest("volume", threads, functools.partial(entries, PEERS), **options)
    ours = f"bench_volume[native-64x64-8-steps-t{threads}]"
    words = WORDS[label].format(counted_steps(int(case.split("-")[1])))
    row(held, label, case, than=None, words=f"64x64x20, 8 maps: {words}", against=ours)


@pytest.mark.parametrize("threads", THREADS, ids="t{}".format)
@pytest.mark.parametrize(("label", "case"), [("native", "128x128-8-steps")])
def bench_large_volume(row, contest, label, case, threads):
    build = functools.partial(entries, [("native", "128x128-8-steps")])
    held = contest("large-volume", threads, build, than=None, same=False, rounds=3, at_least_s=CEILING_S)
    row(held, label, case, than=None)


def bench_quality_latency(request, benchmark, counted):
    """The quality beside those latencies; nothing is timed here, so it may run on a busy machine, and later."""
    try:
        problems = validation_problems()
    except Missing as reason:
        counted.missing[request.node.name] = str(reason)
        pytest.skip(str(reason))
    ours, chain = SuperResolver.from_pretrained(threads=2), SuperResolver.from_pretrained(threads=2, solver="ddpm")
    points = []
    for steps in STEPS:
        # A run of one step gives the posterior mean; it is no sample.
        reached = quality(problems, ours, 0 if steps == 1 else steps)
        points.append(point(str(steps), "native", f"64x64-{steps}-steps", reached))
    reached = quality(problems, chain, volumes.CHAIN_STEPS, apart=True)
    points.append(point(WORDS["seed-chain"].format(counted_steps(volumes.CHAIN_STEPS)), *CHAIN, reached))
    counted.figures[QUALITY] = {
        "points": points,
        "zero_fill": vars(zero_fill_quality(problems)),
        "title": f"{len(problems)} validation heads, paper-like x4, one slice each, means over 5 maps, "
        f"weights {ours.pretrained.sha256[:12]} for all",
    }
    benchmark.pedantic(lambda: None, rounds=1, iterations=1)


def point(words: str, label: str, case: str, reached: Quality) -> dict[str, object]:
    row = f"bench_volume[{label}-{case}-t2]"
    return {"label": words, "row": row, "seed_style": label == "seed-chain", **vars(reached)}
