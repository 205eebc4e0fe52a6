"""Where the checkout and the optional test data lie: real scans and label maps that are not part of the repository."""

from __future__ import annotations

import os
from pathlib import Path


def checkout() -> Path:
    """Root of the checkout that holds this file."""
    return Path(__file__).resolve().parents[2]


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
    folder = checkout().parent / "shared" / "data"
    return folder if folder.is_dir() else None
