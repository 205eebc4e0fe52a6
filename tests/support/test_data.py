"""The test data is found beside the checkout, and by name."""

from __future__ import annotations

import pytest

from support import data


def test_it_lies_beside_the_checkout_or_is_absent(monkeypatch, tmp_path):
    monkeypatch.delenv("MRSI_FAST_DATA", raising=False)
    monkeypatch.setattr(data, "checkout", lambda: tmp_path / "work" / "main")
    assert data.data_dir() is None
    folder = tmp_path / "work" / "shared" / "data"
    folder.mkdir(parents=True)
    assert data.data_dir() == folder


def test_a_named_folder_must_exist(monkeypatch, tmp_path):
    monkeypatch.setenv("MRSI_FAST_DATA", str(tmp_path))
    assert data.data_dir() == tmp_path
    monkeypatch.setenv("MRSI_FAST_DATA", str(tmp_path / "typo"))
    with pytest.raises(FileNotFoundError, match="typo is no folder"):
        data.data_dir()
