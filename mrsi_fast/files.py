"""Files that are either whole or absent: written beside their target, flushed to disk, then renamed over it.

And reading of files that somebody else may have put there: only regular ones, none without end.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import stat
import tempfile
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

LARGEST_TEXT = 2**26
"""Bytes of a JSON file or a table; the record of a result has some 10 kB."""

_FLUSHES = 8
"""Threads that wait for the disk at once."""


def flush_to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, would survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_all_to_disk(paths: Iterable[Path]) -> None:
    """``flush_to_disk`` for many files at once, which a file system carries out in a few writes of its journal."""
    with ThreadPoolExecutor(_FLUSHES) as pool:
        for _ in pool.map(flush_to_disk, paths):
            pass


_umask_is_asked = threading.Lock()


def as_umask_leaves(mode: int) -> int:
    """The mode that a new file gets. The umask is told to those who set it alone, so one thread asks at a time."""
    with _umask_is_asked:
        umask = os.umask(0)
        os.umask(umask)
    return mode & ~umask


@contextlib.contextmanager
def atomic_path(target: str | Path, durable: bool = True) -> Iterator[Path]:
    """Gives a temporary path in the target's folder; on success it replaces the target, on failure it is removed.

    The suffix is kept (``nibabel`` chooses the format by it) and the mode follows the umask (``tempfile`` alone would
    leave files that colleagues cannot read).

    Args:
        target: The file.
        durable: Wait until it would survive a loss of power. Files that are flushed together later need not.

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
        temporary.chmod(as_umask_leaves(0o666))
        if durable:
            flush_to_disk(temporary)
        temporary.replace(target)
        if durable:
            flush_to_disk(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Removes the temporary files of :func:`atomic_path` that killed processes left in a folder.

    Only for the holder of a lock that keeps other writers out: a file that is being written would be removed too.
    """
    for path in folder.glob(".*.part*"):
        if not path.is_symlink() and path.is_file():
            path.unlink(missing_ok=True)


def write_text(target: str | Path, text: str, durable: bool = True) -> None:
    """Writes UTF-8 text atomically, in pieces: encoded at once, a page of many slices would be held twice.

    Bytes of a file name that are no UTF-8 (surrogates in Python) are written as escapes with a backslash.

    Args:
        target: The file.
        text: Its content.
        durable: As for :func:`atomic_path`.
    """
    with (
        atomic_path(target, durable) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        for start in range(0, len(text), 2**20):
            stream.write(text[start : start + 2**20])


def open_regular(path: str | Path) -> io.BufferedReader:
    """Opens a file for reading. A pipe or a device, which could block or never end, is refused.

    Raises:
        OSError: It is no regular file or cannot be opened.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return open(descriptor, "rb")


def read_regular(path: str | Path, most: int) -> bytes:
    """Content of a regular file; one byte more than ``most`` tells of a larger one.

    Raises:
        OSError: It is no regular file or cannot be read.
    """
    with open_regular(path) as stream:
        return stream.read(min(os.fstat(stream.fileno()).st_size, most) + 1)  # so many bytes are set aside


def read_json(path: str | Path) -> Any:
    """Content of a JSON file.

    Raises:
        OSError: It is no regular file, cannot be read, or is larger than :data:`LARGEST_TEXT`.
        ValueError: It is not JSON.
    """
    text = read_regular(path, LARGEST_TEXT)
    if len(text) > LARGEST_TEXT:
        raise OSError(errno.EFBIG, f"is larger than {LARGEST_TEXT} bytes", str(path))
    try:
        return json.loads(text.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply for a JSON file of this program") from None


def leads_out(path: Path, folder: Path) -> bool:
    """Whether links on the way to a file lead out of a folder."""
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, for ``object_pairs_hook``: the standard library takes the last of two equal keys.

    Raises:
        ValueError: A key stands twice, so nobody knows which of its values is meant.
    """
    keys = [key for key, _ in pairs]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise ValueError(f"the key {twice} stands twice")
    return dict(pairs)
