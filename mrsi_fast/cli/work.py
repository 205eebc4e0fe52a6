"""The work of ``mrsi-fast sr`` on one input: read, check for a finished result, super-resolve, print, write."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrsi_fast.cli.batch import Skipped
from mrsi_fast.cli.evidence_options import EvidenceOptions, tell_evidence
from mrsi_fast.cli.exits import CommandError
from mrsi_fast.cli.inputs import InputSet
from mrsi_fast.cli.reading import ReadOptions, TrustOptions
from mrsi_fast.cli.running import AcquisitionOptions
from mrsi_fast.cli.stated import trust_rules
from mrsi_fast.cli.terminal import Terminal
from mrsi_fast.report.cohort import page_name

if TYPE_CHECKING:
    from mrsi_fast.mrsi.mapset import MapSet
    from mrsi_fast.publication import Place
    from mrsi_fast.resolver import SuperResolver
    from mrsi_fast.result import Result


@dataclass(frozen=True)
class Request:
    """The request of the user, the same for every input of a run; see the options of ``mrsi-fast sr``."""

    scale: str
    samples: int
    steps: int
    seed: int
    data_consistency: str
    window: str | None
    support: str | None
    keep_filled: bool
    save_samples: bool
    metabolites: list[str] | None
    names: list[str] | None
    units: str | None
    anatomy: Path | None
    mask: Path | None
    stated: dict[str, Any]
    limits: dict[str, float]
    matrix: tuple[int, int] | None
    pictures: bool
    checks: dict[str, Any]
    through_plane: str | None
    slice_thickness: float | None

    @classmethod
    def of(
        cls,
        read: ReadOptions,
        acquisition: AcquisitionOptions,
        trust: TrustOptions,
        checks: EvidenceOptions,
        **others: Any,
    ) -> Request:
        """Gathers the groups of options; ``others`` are the remaining fields by name.

        Raises:
            CommandError: An option cannot be understood.
        """
        return cls(
            **others,
            data_consistency=acquisition.data_consistency,
            window=acquisition.window,
            support=acquisition.support,
            matrix=acquisition.settings()["matrix"],
            through_plane=acquisition.through_plane,
            slice_thickness=acquisition.slice_thickness,
            metabolites=read.metabolite_list,
            names=read.name_list,
            units=read.units,
            mask=read.mask,
            stated=read.stated,
            limits=trust.limits,
            checks=checks.choices(),
        )

    def options(self, anatomy: Path | None) -> dict[str, Any]:
        """Arguments of the resolver's call for an input with this anatomical image."""
        return {
            "scale": self.scale,
            "samples": self.samples,
            "steps": self.steps,
            "seed": self.seed,
            "data_consistency": self.data_consistency,
            "anatomy": anatomy,
            "acquisition": {
                "window": self.window,
                "support": self.support,
                "matrix": self.matrix,
                "through_plane": self.through_plane,
                "thickness_mm": self.slice_thickness,
            },
            "rules": trust_rules(self.limits),
            "keep_filled": self.keep_filled,
            **self.checks,
        }


@dataclass(frozen=True)
class _Home:
    """Where the result of one input goes, and why work is needed."""

    place: Place
    reason: str = ""
    keep: bool = False


@dataclass(frozen=True)
class Worker:
    """Super-resolves one input after another.

    Attributes:
        resolver: The model.
        request: The request.
        output: The output folder of the run.
        overwrite: Redo what is finished.
        terminal: For output.
    """

    resolver: SuperResolver
    request: Request
    output: Path
    overwrite: bool
    terminal: Terminal

    def __call__(self, entry: InputSet, folder: Path, wait: bool = True) -> Path:
        """Does one input, from reading to files.

        Args:
            entry: The input.
            folder: Where its results go, unless those of another input are there.
            wait: Wait for another process that writes there, instead of raising.

        Returns:
            The JSON file of the result.

        Raises:
            Skipped: Its results are finished.
            Busy: Another process writes there and ``wait`` is False.
            CommandError: The folder holds results of this input that were made with other settings.
            MapInputError: It cannot be used.
            NotEnoughMemory: It needs more than there is.
        """
        from mrsi_fast.mrsi.declared_size import refuse_by_headers
        from mrsi_fast.mrsi.geometry import parse_factors
        from mrsi_fast.publication import Place
        from mrsi_fast.result import result_stem

        asked = self.request
        axis = asked.stated.get("slice_axis")
        refuse_by_headers(entry.files or entry.path, asked.scale, 0, asked.metabolites, asked.names, axis)
        maps = entry.read(asked.metabolites, asked.names, asked.units, asked.mask, asked.stated)
        identity = self.resolver.identity(maps, **asked.options(entry.anatomy))
        stem = f"{prefix_of(entry)}{result_stem(parse_factors(asked.scale, maps.slice_axis), maps.slice_axis)}"
        with self._home(entry, Place(folder, stem), identity, wait) as home:
            if home.reason:
                self.terminal.say(f"{entry.label}: {home.reason}")
            self.terminal.say(f"{entry.label}: {', '.join(maps.names)} from {maps.source}")
            self.terminal.say(f"  {'memory':13} {self._memory(maps)}")
            result = self._super_resolve(entry, maps, home.place.folder)
            _tell(entry, result, self.terminal)
            page, kept = self._write(entry, result, home)
        if kept is not None:
            self.terminal.warn(f"{entry.label}: files of a former result were moved to {kept}")
        self.terminal.say(f"  {'report':13} {page}")
        self.terminal.say()
        return home.place.record_path

    def _memory(self, maps: MapSet) -> str:
        """What the run may take, in words.

        Raises:
            NotEnoughMemory: More than there is.
        """
        from mrsi_fast.memory import check_memory
        from mrsi_fast.mrsi.geometry import parse_factors

        factors = parse_factors(self.request.scale, maps.slice_axis)
        return check_memory(len(maps.names), maps.shape, factors)  # samples lie in a file

    def _super_resolve(self, entry: InputSet, maps: MapSet, folder: Path) -> Result:
        where = folder if self.request.samples else None
        with self.terminal.progress(entry.label) as progress:
            options = self.request.options(entry.anatomy)
            result = self.resolver(maps, **options, progress=progress, sample_folder=where)
        result.provenance["request"] = self._record()
        result.provenance["input_key"] = self._key(entry)
        result.provenance["created"] = datetime.now(UTC).isoformat(timespec="seconds")
        return result

    def _record(self) -> dict[str, Any]:
        """The request as in the JSON file, where files are recorded by name alone."""
        named = {key: path.name for key in ("anatomy", "mask") if (path := getattr(self.request, key)) is not None}
        return asdict(self.request) | named

    def _key(self, entry: InputSet) -> str:
        """Tells inputs of different places apart without naming them: a digest of the path from the output to it."""
        where = os.path.relpath(os.path.realpath(entry.home()), os.path.realpath(self.output))
        return blake2b(os.fsencode(f"{where}\0{entry.label}"), digest_size=16).hexdigest()

    @contextmanager
    def _home(self, entry: InputSet, first: Place, identity: dict[str, Any], wait: bool) -> Iterator[_Home]:
        """Finds the place of a result, locked: the first one, or one of its own beside another input's result."""
        beside = (self.output / entry.label, self.output / f"{entry.label}-{identity['sha256'][:8]}")
        for candidate in dict.fromkeys((first.folder, *beside)):
            refuse_input_folders([entry], [candidate])
            place = replace(first, folder=candidate)
            with place.locked(wait):
                home = self._judge(place, identity, self._key(entry))
                if home is not None:
                    yield home
                    return
            self.terminal.warn(f"{entry.label}: {candidate} holds the result of another input, which stays as it is")
        raise CommandError(f"{first.folder}: holds the results of other inputs. Choose another folder for -o.")

    def _judge(self, place: Place, identity: dict[str, Any], key: str) -> _Home | None:
        """What to do with a place; None if the result of another input lives there.

        Raises:
            Skipped: This very result lives there, complete.
            CommandError: A result of this input made with other settings lives there.
        """
        from mrsi_fast.identity import differences
        from mrsi_fast.publication import UnreadableRecord, missing_files

        try:
            former = place.record()
        except UnreadableRecord as error:
            return _Home(place, f"{error} It is done again.")
        if former is None:
            return _Home(place)
        bad = missing_files(place.folder, former)
        if former["identity"]["sha256"] == identity["sha256"]:
            bad += self._not_there_yet(former)
            if bad:
                return _Home(place, f"done again, because {_some(bad)} of the former result are missing or damaged")
            if self.overwrite:
                return _Home(place)
            raise Skipped(
                f"finished before, skipped ({len(former['files'])} files in {place.folder}; --overwrite redoes it)",
                place.record_path,
            )
        inputs, settings = differences(former["identity"], identity)
        if inputs and former.get("input_key") != key:
            return None
        if inputs:
            reason = f"done again, because the input has changed since ({_some(inputs)})"
            return _Home(place, reason, keep=not self.overwrite)
        if not self.overwrite:
            raise CommandError(
                f"{place.folder} holds results made with other settings ({', '.join(settings)}). Choose another "
                "folder, or redo them with --overwrite."
            )
        return _Home(place)

    def _not_there_yet(self, former: dict[str, Any]) -> list[str]:
        """Files that are requested now and were not when the result was made."""
        wanted = {
            "samples": ("_desc-sample", self.request.save_samples and self.request.samples > 0),
            "pictures": (".png", self.request.pictures),
        }
        return [
            what
            for what, (part, asked) in wanted.items()
            if asked and not any(part in name for name in former["files"])
        ]

    def _write(self, entry: InputSet, result: Result, home: _Home) -> tuple[Path, Path | None]:
        """Writes everything in a staging folder, then publishes it; returns the page and where former files went."""
        from mrsi_fast.memory import return_freed
        from mrsi_fast.report.html import write_page
        from mrsi_fast.report.view import view_of

        place, prefix = home.place, prefix_of(entry)
        with place.staging() as staging:
            files = result.write_maps(staging, prefix, self.request.save_samples)
            if self.request.pictures:
                from mrsi_fast.report.pages import write_pages  # matplotlib takes seconds to import

                files += write_pages(result, staging, entry.label, prefix)
            return_freed()
            target = staging / page_name(place.stem)
            page = write_page(view_of(result, entry.label), target, entry.anatomy, durable=False)
            result.seal(staging / place.record_path.name, [*files, page])
            kept = place.publish(staging, home.keep)
        return place.folder / page.name, kept


def prefix_of(entry: InputSet) -> str:
    """Leading entities of an input's file names."""
    return f"{entry.label}_space-orig_" if entry.label.startswith("sub-") else ""


def refuse_input_folders(sets: Sequence[InputSet], folders: Sequence[Path]) -> None:
    """Refuses to write results into a folder that holds any of the inputs.

    Raises:
        CommandError: One of the folders does.
    """
    homes = {os.path.realpath(entry.path if entry.path.is_dir() else entry.path.parent) for entry in sets}
    paths = [path for entry in sets if entry.files is not None for path in entry.files.paths()]
    homes |= {os.path.realpath(path.parent) for path in paths if isinstance(path, Path)}
    for folder in folders:
        if os.path.realpath(folder) in homes:
            raise CommandError(
                f"{folder}: results would be written beside the inputs in it, which are never overwritten. Choose "
                "another folder for -o."
            )


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _tell(entry: InputSet, result: Result, terminal: Terminal) -> None:
    from mrsi_fast.report.summary import HEADS, agreement_rows, grouped_warnings, summary_lines

    for label, text in summary_lines(result.provenance):
        terminal.say(f"  {label:13} {text}")
    terminal.table(
        [f"  {HEADS[0]}", *HEADS[1:]], [(f"  {row[0]}", *row[1:]) for row in agreement_rows(result.provenance)]
    )
    if result.evidence is not None:
        tell_evidence(result.evidence, terminal)
    for warning in grouped_warnings(result.warnings, result.names):
        terminal.warn(f"{entry.label}: {warning}")
