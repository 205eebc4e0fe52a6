"""Where results live on disk: one writer at a time, complete or absent, never mixed with the files of another result.

A result is a set of files in one folder that share a stem (``sub-01_space-orig_res-x4``), and a JSON record that names
each of them with its sha256. It is complete if the record is there and every file has that sum. Files are written into
a hidden staging folder first. A journal in it lists the files to add and to remove; from the moment it is there the
change is carried out, by the next run on this place if this one is killed. The record goes first and comes last, so
that no moment shows a record beside the files of another result.

Files of the stem that no record of this result names are moved to ``earlier/``: nobody's maps are deleted unless the
user asked for it, and none enters a later result.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrsi_fast.files import as_umask_leaves, flush_all_to_disk, flush_to_disk, open_regular, read_json, write_text

try:
    import fcntl
except ImportError:  # Windows: two runs at once into one folder are the user's business there
    fcntl = None  # type: ignore[assignment]

RECORD_TAIL = "_desc-sr_mrsi.json"
EARLIER = "earlier"
_JOURNAL = "journal.json"
_OURS = r"_(?:(?:met-[0-9A-Za-z]+_)?desc-[0-9A-Za-z]+_mrsi\.(?:nii|nii\.gz|json|png)|report\.html)"
"""Endings of the files of a result and of what was derived from it."""

_DERIVED = re.compile(r"_desc-ratio[0-9a-z]*_mrsi\.")


class Busy(Exception):
    """Another process writes the results of this place."""


class UnreadableRecord(ValueError):
    """A record that is not JSON of ours; the message names the file."""


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def exclusive(path: Path, wait: bool = True) -> Iterator[None]:
    """Holds a lock file; the system releases it when the process ends in whatever way, and it is removed after use.

    Args:
        path: The lock file, in an existing folder.
        wait: Wait for another process instead of raising.

    Raises:
        Busy: Another process holds it and ``wait`` is False.
        OSError: The file cannot be made.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _flock(descriptor, wait)
            if _is_still(path, descriptor):
                break
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder removed it while this process waited
    try:
        yield
    finally:
        try:
            path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _flock(descriptor: int, wait: bool) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise Busy from None
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        warnings.warn(
            "The file system of the output folder offers no locks: run one process at a time into it.", stacklevel=2
        )


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def read_record(path: Path) -> dict[str, Any]:
    """A record, parsed.

    Raises:
        UnreadableRecord: It is not JSON, or names no identity and no files.
        OSError: It cannot be read.
    """
    try:
        record = read_json(path)
        if isinstance(record["identity"]["sha256"], str) and isinstance(record["files"], dict):
            return record
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableRecord(f"{path.name}: is damaged or was not written by this version.") from error
    raise UnreadableRecord(f"{path.name}: names no identity and no files.")


def missing_files(folder: Path, record: Mapping[str, Any]) -> list[str]:
    """Names of the record's files that are not there or not as they were written."""
    bad = []
    for name, facts in record["files"].items():
        try:
            if Path(name).name != name or sha256_of(folder / name) != facts["sha256"]:
                bad.append(name)
        except (OSError, KeyError, TypeError):
            bad.append(str(name))
    return bad


class _NoJournal(ValueError):
    """A staging folder without a journal that this package can have written."""


def _journal(staging: Path) -> dict[str, Any]:
    """The change that a staging folder stands for. Its names are names of files in the folder, not paths.

    Raises:
        _NoJournal: There is none, or it names anything else.
    """
    try:
        journal = read_json(staging / _JOURNAL)
        names = [*journal["gone"], *journal["come"], *journal["aside"]]
        kept = [Path(path).parts for path in journal["aside"].values()]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _NoJournal(str(error)) from error
    if any(Path(name).name != name for name in names):
        raise _NoJournal("it names files of other folders")
    if any(len(parts) != 3 or parts[0] != EARLIER or ".." in parts for parts in kept):
        raise _NoJournal(f"it moves files elsewhere than to {EARLIER}")
    return dict(journal)


@dataclass(frozen=True)
class Place:
    """The folder and the stem of one result.

    Attributes:
        folder: Holds the files; made when needed.
        stem: Leading part of all their names.
        tail: What follows in the name of the record.
        endings: Regular expression of all that may follow in names of files that belong to such results.
    """

    folder: Path
    stem: str
    tail: str = RECORD_TAIL
    endings: str = _OURS

    @property
    def record_path(self) -> Path:
        """The JSON file that makes a result complete."""
        return self.folder / f"{self.stem}{self.tail}"

    @contextlib.contextmanager
    def locked(self, wait: bool = True) -> Iterator[None]:
        """Makes this process the only one that writes here; first finishes or clears what a killed one left.

        Raises:
            Busy: Another process writes here and ``wait`` is False.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with exclusive(self.folder / f".{self.stem}.lock", wait):
            self._settle()
            yield

    def record(self) -> dict[str, Any] | None:
        """The record of the result that lives here; None if there is none.

        Raises:
            UnreadableRecord: There is one that cannot be used.
        """
        return read_record(self.record_path) if self.record_path.exists() else None

    def files(self) -> list[str]:
        """Names of all files here that carry the stem and one of the endings that this package writes."""
        if not self.folder.is_dir():
            return []
        ours = re.compile(re.escape(self.stem) + self.endings)
        return sorted(name for name in os.listdir(self.folder) if ours.fullmatch(name))

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """A hidden folder to write the files of the result into; gone in the end unless it was published."""
        folder = Path(tempfile.mkdtemp(prefix=f".{self.stem}.", suffix=".part", dir=self.folder))
        try:
            folder.chmod(as_umask_leaves(0o777))
            yield folder
        finally:
            if not (folder / _JOURNAL).exists():
                shutil.rmtree(folder, ignore_errors=True)

    def publish(self, staging: Path, keep: bool) -> Path | None:
        """Replaces what lives here by the content of the staging folder, which holds a record; call it while locked.

        Args:
            staging: From :meth:`staging`, complete.
            keep: Move the files of the former result to ``earlier/`` instead of deleting them.

        Returns:
            Where former files were moved to, or None.
        """
        record = self.record_path.name
        new = sorted(path.name for path in staging.iterdir())
        flush_all_to_disk(staging / name for name in new)
        try:
            former = self.record()
        except UnreadableRecord:
            former = None
        known = {record, *former["files"]} if former is not None else set()
        here = self.files()
        if former is not None and former["identity"] == read_record(staging / record)["identity"]:
            here = [name for name in here if not _DERIVED.search(name) or name in known]  # they fit the new one as well
        aside = [name for name in here if keep or name not in known]
        kept = self._free_folder() if aside else None
        if kept is not None:
            kept.mkdir(parents=True)
        journal = {
            "aside": {name: f"{EARLIER}/{kept.name}/{name}" for name in _first(record, aside)} if kept else {},
            "gone": _first(record, [name for name in here if name not in aside]),
            "come": [name for name in new if name != record] + [record],
        }
        write_text(staging / _JOURNAL, json.dumps(journal))
        self._carry_out(staging)
        return kept

    def _free_folder(self) -> Path:
        numbers = (number for number in range(1, 10**6))
        return next(
            path for number in numbers if not (path := self.folder / EARLIER / f"{self.stem}-{number}").exists()
        )

    def _carry_out(self, staging: Path) -> None:
        """Executes the journal; may be interrupted anywhere and called again."""
        journal = _journal(staging)
        if (staging / self.record_path.name).exists():  # it is moved last: without it everything is done
            for name, kept in journal["aside"].items():
                if (self.folder / name).exists() and not (self.folder / kept).exists():
                    (self.folder / name).rename(self.folder / kept)
            for name in journal["gone"]:
                if name not in journal["come"] or name == self.record_path.name:
                    (self.folder / name).unlink(missing_ok=True)
            for name in journal["come"]:
                if (staging / name).exists():
                    (staging / name).replace(self.folder / name)
            flush_to_disk(self.folder)
        for path in staging.iterdir():
            if path.name != _JOURNAL:
                path.unlink()
        shutil.rmtree(staging)

    def _settle(self) -> None:
        """Finishes a change that was begun, removes what was staged in vain; only the holder of the lock may."""
        for path in sorted(self.folder.glob(f".{_escaped(self.stem)}[._]*")):
            if path.is_dir() and path.name.endswith(".part"):
                try:
                    self._carry_out(path)
                except _NoJournal:
                    shutil.rmtree(path, ignore_errors=True)
            elif ".part" in path.name and path.is_file():
                path.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Finishes or removes what killed processes left in a folder; leaves alone where another one is at work."""
    for lock in sorted(folder.glob(".*.lock")):
        with contextlib.suppress(Busy, OSError), Place(folder, lock.name[1:].removesuffix(".lock")).locked(wait=False):
            pass


def _escaped(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)


def _first(name: str, names: Iterable[str]) -> list[str]:
    """The names with this one in front, if it is among them."""
    return sorted(names, key=lambda one: (one != name, one))
