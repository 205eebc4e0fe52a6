"""Where the checkout and the optional test data lie: real scans and label maps that are not part of the repository."""

from __future__ import annotations

import os
from pathlib import Path


def checkout() -> Path:
    """Root of the checkout: the one this package runs from, else, for an installed package, the current folder.

    Raises:
        FileNotFoundError: Neither is a checkout.
    """
    for root in (Path(__file__).resolve().parents[2], Path.cwd()):
        if (root / "csrc" / "build.py").is_file():
            return root
    raise FileNotFoundError("This needs the sources of mrsi_fast; run it from the root of a checkout.")


def data_dir() -> Path | None:
    """Folder of the test data: ``$MRSI_FAST_DATA``, else ``../shared/data`` beside the checkout.

    Returns:
        The folder, or None where there is none; a test that needs it then skips and gives the reason.

    Raises:
        FileNotFoundError: ``$MRSI_FAST_DATA`` is set but names no folder (a silent skip would hide the typing error).
    """
    named = os.environ.get("MRSI_FAST_DATA")
    if named:
        folder = Path(named).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(
                f"MRSI_FAST_DATA={named} is no folder; correct it, or unset it to skip these tests."
            )
        return folder
    try:
        folder = checkout().parent / "shared" / "data"
    except FileNotFoundError:
        return None
    return folder if folder.is_dir() else None
