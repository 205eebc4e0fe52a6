"""Where samples are kept as they are drawn: in memory, or in a file from which they are mapped."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable
from os import PathLike
from types import TracebackType
from typing import IO

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


class SampleStore:
    """Takes samples [M, X, Y, Z] one after the other and gives them back as one array [S, M, X, Y, Z].

    Args:
        count: S, of samples that will be added.
        folder: Folder for a file that has no name and is gone with the array; None to keep them in memory.
    """

    def __init__(self, count: int, folder: str | PathLike[str] | None = None) -> None:
        self._count, self._added = count, 0
        self._file: IO[bytes] | None = None if folder is None else tempfile.TemporaryFile(dir=folder)
        self._shape: tuple[int, ...] = ()
        self._array: Float32 | None = None

    @property
    def on_disk(self) -> bool:
        """Whether a file holds them."""
        return self._file is not None

    def __enter__(self) -> SampleStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, sample: Float32) -> None:
        """Takes a sample.

        Raises:
            OSError: The file cannot be written.
        """
        self._shape = (self._count, *sample.shape)
        if self._file is not None:
            self._file.write(np.ascontiguousarray(sample).data)
        else:
            if self._array is None:
                self._array = np.empty(self._shape, dtype=np.float32)
            self._array[self._added] = sample
        self._added += 1

    def array(self) -> Float32 | None:
        """The samples; of a file, a read-only map of it. None if there are none."""
        if self._file is None or not self._added:
            return self._array
        self._file.flush()
        return np.memmap(self._file, dtype=np.float32, mode="r", shape=self._shape)


def stored(samples: Iterable[Float32], count: int, folder: str | PathLike[str] | None) -> Float32 | None:
    """Samples that come one after the other as one array [count, ...], mapped from a file in a folder; None if none.

    Raises:
        OSError: The file cannot be written.
    """
    with SampleStore(count, folder) as store:
        for one in samples:
            store.add(one)
        return store.array()


def forget_pages(samples: NDArray) -> None:
    """Takes what has been read of mapped samples out of the process's memory; they are read again where needed.

    Other arrays are left alone, those that are mapped and may hold changes of their own too.
    """
    mapped = getattr(samples, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and getattr(samples, "mode", "") == "r" and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
