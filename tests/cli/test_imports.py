"""Imports of a command run without the garbage collector, which then passes over what they left."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from mrsi_fast.cli.imports import without_collections


def in_a_fresh_process(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_collector_is_off_during_imports_and_passes_over_what_they_left() -> None:
    in_a_fresh_process(
        "import gc\n"
        "from mrsi_fast.cli.imports import without_collections\n"
        "kept = []\n"
        "with without_collections():\n"
        "    assert not gc.isenabled()\n"
        "    kept.append([])\n"
        "assert gc.isenabled() and gc.get_freeze_count() > 0\n"
        "assert not any(one is kept[0] for one in gc.get_objects())\n"
    )


def test_the_collector_works_again_after_an_import_that_failed() -> None:
    in_a_fresh_process(
        "import gc\n"
        "from mrsi_fast.cli.imports import without_collections\n"
        "try:\n"
        "    with without_collections():\n"
        "        import no_such_module\n"
        "except ImportError:\n"
        "    assert gc.isenabled()\n"
        "else:\n"
        "    raise AssertionError\n"
    )


def test_the_collector_of_another_program_stays_as_it_is() -> None:
    pytest.importorskip("torch")
    frozen = gc.get_freeze_count()
    with without_collections():
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen
