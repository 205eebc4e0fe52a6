"""Browsers for the tests of pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.chromium import CHROMIUM, WEBGL, Chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    """A browser with WebGL2 (in software)."""
    chromium = Chromium(*WEBGL)
    yield chromium
    chromium.close()


@pytest.fixture
def browser_without_webgl() -> Iterator[Chromium]:
    """A browser that offers no WebGL."""
    chromium = Chromium("--disable-gpu", "--disable-3d-apis", "--disable-software-rasterizer")
    yield chromium
    chromium.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``browser`` are skipped, with the reason, where there is no Chromium."""
    for item in items:
        if item.get_closest_marker("browser") and not CHROMIUM:
            item.add_marker(pytest.mark.skip(reason="Chromium is not installed (Debian: apt-get install chromium)"))
