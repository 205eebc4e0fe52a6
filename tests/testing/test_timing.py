"""The timing helpers: every peer in every round, ratios taken within rounds."""

from __future__ import annotations

from mrsi_fast.testing.timing import interleave, paired_ratio


def test_every_peer_runs_in_every_round():
    calls: list[str] = []
    seconds = interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=7, at_least_s=0.0)
    assert {label: len(values) for label, values in seconds.items()} == {"a": 7, "b": 7}
    rounds = calls[4:]  # after warming and counting
    assert all(set(rounds[i : i + 2]) == {"a", "b"} for i in range(0, 14, 2))
    assert len({tuple(rounds[i : i + 2]) for i in range(0, 14, 2)}) == 2  # in both orders


def test_ratios_are_taken_within_rounds():
    drift = [1.0, 5.0, 2.0, 9.0, 1.5]  # the machine's speed, common to both
    ratio = paired_ratio([2.0 * d for d in drift], drift)
    assert (ratio.median, ratio.low, ratio.high) == (2.0, 2.0, 2.0)
    assert str(ratio) == "2.00 [2.00, 2.00]"
    spread = paired_ratio([1.0, 2.0, 3.0, 4.0, 5.0], [1.0] * 5)
    assert spread.low < spread.median == 3.0 < spread.high
