"""The timing helpers: every peer in every round (ratios: test_ratios.py)."""

from __future__ import annotations

from harness.timing import interleave


def test_every_peer_runs_in_every_round():
    calls: list[str] = []
    seconds = interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=7)
    assert {label: len(values) for label, values in seconds.items()} == {"a": 7, "b": 7}
    rounds = calls[4:]  # after warming and counting
    assert all(set(rounds[i : i + 2]) == {"a", "b"} for i in range(0, 14, 2))
    assert len({tuple(rounds[i : i + 2]) for i in range(0, 14, 2)}) == 2  # in both orders


def test_short_functions_are_called_once_a_round_unless_they_end_too_early():
    calls: list[str] = []
    interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert len(calls) == 4 + 6
    interleave({"c": lambda: calls.append("c")}, rounds=1, at_least_s=1e-4)
    assert calls.count("c") > 2 + 1
