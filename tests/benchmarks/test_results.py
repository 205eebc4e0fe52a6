"""A benchmark session's rows: collected with their contest, added to the history, silent fallbacks refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from harness.contest import Entry, hold
from harness.records import History
from harness.results import Session, history_path, selected


def held(label: str = "ours", backend: str = "native"):
    entries = [Entry(one, lambda: lambda: torch.ones(3), bytes=1e6, ours=one == label) for one in (label, "eager")]
    outcome = hold("ops", 1, entries, rounds=3)
    outcome.backends[label, ""] = backend
    outcome.anchors["sgemm-again"] = outcome.anchors["sgemm"]  # this machine's fitness is not what is tested
    return outcome


def test_rows_name_their_contest_and_what_they_are_compared_with(tmp_path):
    session, outcome = Session(rounds=3), held()
    told = session.add("bench_op[ours-t1]", outcome, ("ours", ""), "eager", {"slices": 8})
    session.add("bench_op[eager-t1]", outcome, ("eager", ""), "eager", {})
    row = session.history.rows["bench_op[ours-t1]"]
    assert (row.contest, row.than, row.ours, row.facts) == ("ops-t1", "bench_op[eager-t1]", True, {"slices": 8})
    assert "times_faster_than_eager" in told and told["gb_per_s"] > 0 and told["backend"] == "native"
    path = session.save(tmp_path / "results" / "machine.json")
    assert History.load(path).rows == session.history.rows
    assert "bench_op[ours-t1]" in "\n".join(session.lines())
    Session(rounds=None).save(path)  # a session without rows takes none away
    assert History.load(path).rows == session.history.rows


def test_each_kind_of_machine_has_a_history_of_its_own(tmp_path):
    machine = {"cpu": "Example(R) Processor", "family": "6/1/1", "cpus": 2}
    first = history_path(tmp_path, machine)
    assert first.name == "example-2cpu.json"
    History(machine=machine).save(first)
    assert history_path(tmp_path, {**machine, "isa": "avx512"}) == first  # another build of the extension
    other = {**machine, "family": "6/2/1"}
    second = history_path(tmp_path, other)
    assert second.name == "example-2cpu-2.json"
    History(machine=other).save(second)
    assert history_path(tmp_path, other) == second and history_path(tmp_path, machine) == first


def test_a_silent_fallback_is_an_error_where_native_is_required(monkeypatch):
    monkeypatch.setenv("MRSI_FAST_REQUIRE", "native")
    session = Session(rounds=1)
    with pytest.raises(AssertionError, match="bench_op.ours-t1. ran by 'reference'"):
        session.add("bench_op[ours-t1]", held(backend="reference"), ("ours", ""), "eager", {})
    session.add("bench_op[ours-t1]", held(), ("ours", ""), "eager", {})


def test_only_what_was_selected_takes_part():
    def bench():
        pass

    entries = [Entry(label, object, case) for label in ("native", "ort", "eager") for case in ("a", "b", "c")]

    def asked(*pairs):
        params = [{"label": label, "case": case} for label, case in pairs]
        items = [SimpleNamespace(originalname="bench", callspec=SimpleNamespace(params=one)) for one in params]
        items.append(SimpleNamespace(originalname="other", callspec=SimpleNamespace(params={"label": "ort"})))
        return {entry.key for entry in selected(entries, items, bench, "eager", sums={"all": {"a": 1, "b": 2}})}

    assert asked(("native", "a")) == {("native", "a"), ("eager", "a")}
    assert asked(("native", "all")) == {(one, case) for one in ("native", "eager") for case in ("a", "b")}
    plain = SimpleNamespace(originalname="bench")
    assert selected(entries, [plain], bench, "eager") == entries
