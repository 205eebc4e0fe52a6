"""Files that are either whole or absent: written beside their target, flushed to disk, then renamed over it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def flush_to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, would survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Gives a temporary path in the target's folder; on success it replaces the target, on failure it is removed.

    The suffix is kept (``nibabel`` chooses the format by it) and the mode follows the umask (``tempfile`` alone would
    leave files that colleagues cannot read).

    Raises:
        OSError: The folder cannot be written; an existing target is left as it was.
    """
    target = Path(target)
    suffix = "".join(target.suffixes[-2:])
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=f".part{suffix}", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        flush_to_disk(temporary)
        temporary.replace(target)
        flush_to_disk(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: str | Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
