"""From the values of ``-i`` to the sets of maps to work on, and the folder that each one's results go to."""

from __future__ import annotations

import glob
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrsi_fast.cli.exits import CommandError, ExitCode
from mrsi_fast.cli.hand import ByHand

if TYPE_CHECKING:
    from mrsi_fast.mrsi.mapfiles import MapFiles, Unused
    from mrsi_fast.mrsi.mapset import MapSet


@dataclass(frozen=True)
class InputSet:
    """One set of maps: a file, or the files of one acquisition that were found or given together.

    Attributes:
        path: What the user gave, or the first of several files.
        label: What to call it in messages and, where there are several, in the output folder.
        files: Files of the set, unless it is a lone file.
        problem: Why it cannot be used, if that is known before reading.
        hand: The user's statements on its files.
        anatomy: Its anatomical image, if it is to be used.
        beside: Quality files that lie beside it and were not given.
    """

    path: Path
    label: str
    files: MapFiles | None = field(default=None, repr=False)
    problem: str | None = None
    hand: ByHand = field(default_factory=ByHand, repr=False)
    anatomy: Path | None = None
    beside: tuple[Unused, ...] = ()

    def read(
        self,
        metabolites: Sequence[str] | None,
        names: Sequence[str] | None = None,
        units: str | None = None,
        mask: Path | None = None,
        stated: Mapping[str, Any] | None = None,
    ) -> MapSet:
        """Reads the maps and their quality files; ``stated`` are further options of ``read_maps``.

        Raises:
            MapInputError: The input cannot be used.
        """
        from mrsi_fast.mrsi.io import read_maps
        from mrsi_fast.mrsi.mapset import MapInputError

        if self.problem is not None:
            raise MapInputError(self.problem)
        maps = read_maps(
            self.files or self.path,
            metabolites=metabolites,
            names=names,
            units=units,
            mask=mask,
            like=self.hand.like,
            table_axes=self.hand.table_axes,
            **self.hand.quality,
            **(stated or {}),
        )
        for role, sources in self.hand.quality.items():
            lost = [name for name in sources if name not in maps.names] if isinstance(sources, Mapping) else []
            if lost and metabolites is None:
                raise MapInputError(
                    f"--{role} {', '.join(lost)}: there is no map of that name; the maps are {', '.join(maps.names)}."
                )
        return maps

    def home(self) -> Path:
        """Where its maps lie, whichever folder above them was given; the file of a lone one."""
        maps = [] if self.files is None else [*self.files.maps.values(), *self.files.tables]
        folders = [os.path.abspath(path.parent) for path in maps if isinstance(path, Path)]
        return Path(os.path.commonpath(folders)) if folders else self.path

    def left_out(self) -> list[str]:
        """What was found beside the maps and is not used, a line a reason."""
        from mrsi_fast.mrsi.mapfiles import listing

        return list(listing([*(self.files.unused if self.files is not None else ()), *self.beside]))

    def t1_found(self) -> Path | None:
        """An anatomical image that lies beside the maps."""
        found = self.files.single.get("anatomy") if self.files is not None else None
        return Path(found) if found is not None else None


_LONGEST_LABEL = 150


def collect(
    paths: Sequence[Path] | None, more: Sequence[Path] | None = None, hand: ByHand | None = None
) -> list[InputSet]:
    """Finds every set of maps behind the inputs; what cannot be used stays in the list with its problem.

    Args:
        paths: Values of ``-i``: files, folders, or patterns of them.
        more: Values without an option, as a shell leaves them of ``-i sub-*``.
        hand: The user's statements on the files.

    Raises:
        CommandError: There is no input, or what was said by hand fits more than one set.
    """
    hand = hand or ByHand()
    given = list(dict.fromkeys(found for path in [*(paths or []), *(more or [])] for found in _expanded(path)))
    if not given and not hand.maps:
        raise CommandError("Give at least one input: -i FOLDER or -i MAP.nii.gz.")
    files = [path for path in given if not path.is_dir() and (path.exists() or path.is_symlink())]
    sets = [entry for path in given if path not in files for entry in _sets_of(path, hand)]
    sets = sorted(_sets_of_files(files, hand) + sets, key=lambda entry: given.index(entry.path))
    sets = _with_maps(sets, hand)
    if len(sets) > 1 and (hand.quality or hand.like):
        options = [f"--{role}" for role in hand.quality] + (["--like"] if hand.like else [])
        raise CommandError(
            f"{', '.join(options)} belongs to one set of maps, but {len(sets)} were given. Run them one by one."
        )
    return [replace(entry, label=label, hand=hand) for entry, label in zip(sets, _labels(sets), strict=True)]


def check_output(output: Path, sets: Sequence[InputSet]) -> None:
    """Makes the output folder and tries to write there, before any time is spent.

    Raises:
        CommandError: It lies where the inputs lie, or cannot be written.
    """
    for entry in sets:
        home = entry.path if entry.path.is_dir() else entry.path.parent
        if _real(home) == _real(output):
            raise CommandError(
                f"{output}: the output folder holds the input {entry.path.name}, and inputs are never overwritten. "
                "Choose another folder for -o."
            )
    make_writable(output)


def make_writable(output: Path) -> None:
    """Makes a folder for output and tries to write there.

    Raises:
        CommandError: It cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CommandError(f"{output}: the output folder cannot be written ({reason}).", ExitCode.USAGE) from error


def with_anatomy(sets: Sequence[InputSet], anatomy: str | None) -> list[InputSet]:
    """Gives each set its anatomical image: the one beside it (``auto``), that of a pattern, or the file that was named.

    In a pattern ``{label}``, ``{sub}`` and ``{ses}`` stand for what the set is called (``anat/sub-{sub}_T1w.nii.gz``).

    Raises:
        CommandError: There is no such file, or one file is named for several subjects.
    """
    if anatomy is None:
        return list(sets)
    if anatomy == "auto":
        return [replace(entry, anatomy=entry.t1_found()) for entry in sets]
    if "{" in anatomy and not Path(anatomy).exists():
        return [replace(entry, anatomy=_by_pattern(entry, anatomy)) for entry in sets]
    path = Path(anatomy)
    subjects = {_subject(entry) for entry in sets}
    if len(sets) > 1 and (len(subjects) > 1 or None in subjects):
        raise CommandError(
            f"--anatomy belongs to one person, but {len(sets)} sets were given. Run them one by one, or take the image "
            "beside the maps of each: --anatomy auto."
        )
    if not path.is_file():
        raise CommandError(f"--anatomy {path}: there is no such file.")
    return [replace(entry, anatomy=path) for entry in sets]


def _by_pattern(entry: InputSet, pattern: str) -> Path | None:
    known = {"label": entry.label, **dict(re.findall(r"(sub|ses)-([0-9A-Za-z]+)", entry.label))}
    try:
        shape = pattern.format_map({key: glob.escape(value) for key, value in known.items()})
    except KeyError as error:
        raise CommandError(f"--anatomy {pattern}: {entry.label} has no {error.args[0]} in its name.") from error
    except (ValueError, IndexError, AttributeError) as error:
        raise CommandError(f"--anatomy {pattern}: is no pattern ({error}). Use {{label}}, {{sub}}, {{ses}}.") from error
    found = sorted(glob.glob(shape, recursive=True))
    if len(found) > 1:
        raise CommandError(
            f"--anatomy {pattern}: {len(found)} files fit {entry.label}, e.g. {found[0]} and {found[1]}."
        )
    return Path(found[0]) if found else None


def _subject(entry: InputSet) -> str | None:
    match = re.search(r"sub-[0-9A-Za-z]+", entry.label)
    return match[0] if match else None


def _expanded(path: Path) -> list[Path]:
    """The paths that a pattern stands for, in natural order; the path itself if it is none or matches nothing."""
    if path.exists() or path.is_symlink() or not glob.has_magic(str(path)):
        return [path]
    found = sorted(
        glob.glob(str(path)), key=lambda one: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", one)]
    )
    return [Path(one) for one in found] or [path]


def _sets_of(path: Path, hand: ByHand) -> list[InputSet]:
    from mrsi_fast.mrsi.discovery import discover
    from mrsi_fast.mrsi.mapset import MapInputError

    label = _safe(_real(path).name)
    if not path.exists():
        what = "nothing matches this pattern" if glob.has_magic(str(path)) else "there is no such file or folder"
        return [InputSet(path, label, problem=f"{path}: {what}.")]
    try:
        found = discover(path, patterns=hand.patterns)
    except (MapInputError, OSError) as error:
        return [InputSet(path, label, problem=str(error))]
    return [InputSet(path, _safe(files.label) or label, files, files.problem) for files in found]


def _sets_of_files(paths: Sequence[Path], hand: ByHand) -> list[InputSet]:
    """Files that were given one by one; those of one place and person are one set."""
    from mrsi_fast.mrsi.discovery import discover_files, is_named, quality_beside
    from mrsi_fast.mrsi.images import image_stem

    grouped = [path for path in paths if is_named(path)]
    sets = [InputSet(path, _safe(image_stem(path))) for path in paths if len(grouped) < 2 or path not in grouped]
    for files in discover_files(grouped) if len(grouped) > 1 else ():
        first = files.paths()[0] if files.paths() else next(p for p in grouped if image_stem(p) == files.label)
        lone = files.problem is not None or (len(files.paths()) == 1 and not files.tables)
        label = image_stem(first) if lone else files.label or _real(first).parent.name
        sets.append(InputSet(first, _safe(label), None if lone else files, files.problem))
    if hand.quality:
        return sets
    maps = [list(entry.files.maps.values()) if entry.files else [entry.path] for entry in sets]
    return [replace(one, beside=tuple(quality_beside(files, paths))) for one, files in zip(sets, maps, strict=True)]


def _with_maps(sets: list[InputSet], hand: ByHand) -> list[InputSet]:
    """The one set that maps named by hand make, or that they are added to."""
    from mrsi_fast.mrsi.discovery import name_from_file
    from mrsi_fast.mrsi.mapfiles import MapFiles

    if not hand.maps:
        return sets
    if len(sets) > 1:
        raise CommandError(f"--map adds to one set of maps, but {len(sets)} were given. Run them one by one.")
    first = next(iter(hand.maps.values()))
    if not sets:
        return [InputSet(first, _safe(_real(first).parent.name), MapFiles("named", maps=dict(hand.maps)))]
    entry = sets[0]
    files = entry.files or MapFiles("named", maps={name_from_file(entry.path): entry.path})
    taken = set(hand.maps.values())
    kept = {name: path for name, path in files.maps.items() if path not in taken}
    return [replace(entry, files=replace(files, maps=kept | hand.maps, problem=None), problem=None)]


def _labels(sets: Sequence[InputSet]) -> list[str]:
    """One label a set: where two are equal, the folders that differ precede it."""
    labels = [entry.label for entry in sets]
    parts = [_real(entry.path).parts for entry in sets]
    for label in {label for label in labels if labels.count(label) > 1}:
        same = [index for index, one in enumerate(labels) if one == label]
        depth = max(len(parts[index]) for index in same)
        padded = {index: ("",) * (depth - len(parts[index])) + parts[index][:-1] for index in same}
        tells = [d for d in range(depth - 1) if len({padded[index][d] for index in same if d < len(padded[index])}) > 1]
        for index in same:
            before = "_".join(_safe(padded[index][d]) for d in tells if d < len(padded[index]) and padded[index][d])
            labels[index] = f"{before}_{label}" if before else label
    labels = [_short(label) for label in labels]
    seen: dict[str, int] = {}
    for index, label in enumerate(labels):  # what folders cannot tell: NAA.nii and NAA.nii.gz in one folder
        seen[label] = seen.get(label, 0) + 1
        if seen[label] > 1:
            labels[index] = f"{label}-{seen[label]}"
    return labels


def _short(label: str) -> str:
    """A label that leaves room in a file name of 255 bytes for what follows it; one cut short keeps a digest of all."""
    encoded = label.encode("utf-8", "surrogateescape")
    if len(encoded) <= _LONGEST_LABEL:
        return label
    start = encoded[: _LONGEST_LABEL - 9].decode("utf-8", "ignore")
    return f"{start}-{blake2b(encoded, digest_size=4).hexdigest()}"


def _real(path: Path) -> Path:
    """The path without links; one that links to itself stays as it is."""
    return Path(os.path.realpath(path))


def _safe(label: str) -> str:
    """A label that is one plain component of a path and text in any encoding (no bytes that were not decoded)."""
    return re.sub(r"[/\\\0-\x1f\x7f\ud800-\udfff]", "_", label).lstrip(".")
