"""The choice of an engine: which one "auto" takes, and that every other one says why it does not run."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mrsi_fast.engine import choose
from mrsi_fast.engine.choose import ENGINES, OFFERS, choose_engine
from mrsi_fast.engine.job import EngineError
from support.networks import random_denoiser

CPU = torch.device("cpu")


class Built:
    """In place of an engine."""

    def __init__(self, denoiser, device, reason):
        self.reason = reason


@pytest.fixture
def offers(monkeypatch):
    """Every engine can run, unless a test gives ``obstacles`` one."""
    obstacles: dict[str, str] = {}

    def offer(name):
        return dataclasses.replace(OFFERS[name], obstacle=lambda denoiser, device: obstacles.get(name), make=Built)

    monkeypatch.setattr(choose, "OFFERS", {name: offer(name) for name in ENGINES})
    return obstacles


@pytest.mark.parametrize(
    ("missing", "taken"),
    [
        ((), "cuda-graph"),
        (("cuda-graph",), "native-amx"),
        (("cuda-graph", "native-amx"), "native"),
        (("cuda-graph", "native-amx", "native"), "eager"),
    ],
)
def test_auto_takes_the_fastest_that_can_run_and_every_other_one_says_why_not(offers, missing, taken):
    offers.update({name: f"no {name} here" for name in missing})
    choice = choose_engine("auto", random_denoiser(), CPU)
    assert list(choice.refused) == [name for name in ENGINES if name != taken]
    for name, reason in choice.refused.items():
        if name in missing:
            assert reason == f"no {name} here"
        elif name == "compile" and taken == "eager":
            assert "by name only" in reason and "compiles for seconds" in reason
        else:
            assert reason == f"{taken} is faster"
    assert "2e-4" in choice.engine.reason or "0.0002" in choice.engine.reason


def test_auto_leaves_out_what_breaks_the_accuracy_contract(offers, monkeypatch):
    loose = dataclasses.replace(choose.OFFERS["cuda-graph"], error_bound=1e-3)
    monkeypatch.setitem(choose.OFFERS, "cuda-graph", loose)
    choice = choose_engine("auto", random_denoiser(), CPU)
    assert choice.refused["cuda-graph"] == "its error bound, 0.001, is above 0.0002"
    assert "native-amx" not in choice.refused


@pytest.mark.parametrize("name", ENGINES)
def test_a_name_is_taken_at_its_word_or_refused_with_the_reason(offers, name):
    choice = choose_engine(name, random_denoiser(), CPU)
    assert choice.engine.reason == "asked for by name"
    assert choice.refused == {other: f"{name} was asked for" for other in ENGINES if other != name}
    offers[name] = "its parts are missing"
    with pytest.raises(EngineError, match=f"The {name} engine cannot run here: its parts are missing; use engine"):
        choose_engine(name, random_denoiser(), CPU)


def test_real_engines_name_themselves_and_their_calls():
    for name in ("eager", "compile"):
        engine = choose_engine(name, random_denoiser(), CPU).engine
        assert engine.name == name and engine.details()[0] == "convolutions: PyTorch"
        assert any(line.startswith("group_norm_silu: native") for line in engine.details())
    refused = choose_engine("eager", random_denoiser(), CPU).refused
    assert "need a CUDA device, this is cpu" in refused["cuda-graph"]


def test_a_network_that_the_native_engine_does_not_know_is_said_to_be_the_reason():
    denoiser = random_denoiser().double()
    choice = choose_engine("auto", denoiser, CPU)
    assert choice.engine.name == "eager"
    assert set(choice.refused) == {"cuda-graph", "native-amx", "native", "compile"}
