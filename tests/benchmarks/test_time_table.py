"""The table of where the engine's time goes accounts for the whole network."""

import pytest

from harness import time_table
from mrsi_fast.models.pretrained import load_pretrained
from mrsi_fast.models.unet import flop_split
from mrsi_fast.ops import _native

pytestmark = pytest.mark.skipif(_native.module() is None, reason=_native.reason())


def test_rows_add_up_to_the_network(monkeypatch):
    monkeypatch.setattr(time_table, "best_product", lambda threads: 50.0)
    monkeypatch.setattr(time_table, "EVALUATIONS", 3)
    heading, *table = "\n".join(time_table.lines(1, 16, 1)).split("\n\n")
    assert "R = 50 GFLOP/s" in heading
    _, _, total, *rows = [line.strip("|").split("|") for line in table[0].splitlines()]
    for column in (1, 2, 4, 5):
        assert sum(float(row[column]) for row in rows) == pytest.approx(float(total[column]), abs=0.2)
    split = flop_split(load_pretrained().network, (16, 16))
    assert float(total[4]) == pytest.approx(sum(split.values()) - split["linear"], abs=0.01)
    assert any("stride 2" in row[0] for row in rows) and any("tokens" in row[0] for row in rows)
