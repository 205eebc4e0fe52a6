"""The test data is found from a checkout, from an installed package run inside one, and by name."""

from __future__ import annotations

import pytest

from mrsi_fast.testing import data


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """The package as if installed in site-packages, and a checkout that holds the current folder."""
    (tmp_path / "site" / "mrsi_fast" / "testing").mkdir(parents=True)
    monkeypatch.setattr(data, "__file__", str(tmp_path / "site" / "mrsi_fast" / "testing" / "data.py"))
    monkeypatch.delenv("MRSI_FAST_DATA", raising=False)
    root = tmp_path / "work" / "main"
    (root / "csrc").mkdir(parents=True)
    monkeypatch.chdir(root)
    return root


def test_an_installed_package_uses_the_checkout_it_is_run_in(installed):
    with pytest.raises(FileNotFoundError, match="root of a checkout"):
        data.checkout()
    assert data.data_dir() is None
    (installed / "csrc" / "build.py").touch()
    assert data.checkout() == installed
    assert data.data_dir() is None
    folder = installed.parent / "shared" / "data"
    folder.mkdir(parents=True)
    assert data.data_dir() == folder


def test_a_named_folder_must_exist(monkeypatch, tmp_path):
    monkeypatch.setenv("MRSI_FAST_DATA", str(tmp_path))
    assert data.data_dir() == tmp_path
    monkeypatch.setenv("MRSI_FAST_DATA", str(tmp_path / "typo"))
    with pytest.raises(FileNotFoundError, match="typo is no folder"):
        data.data_dir()
