"""What ``mrsi-fast sr`` does with one input: read, super-resolve, tell, draw, write; or skip what is finished."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrsi_fast.cli.batch import Skipped
from mrsi_fast.cli.exits import CommandError
from mrsi_fast.cli.inputs import InputSet
from mrsi_fast.cli.report import REPORT
from mrsi_fast.cli.stated import trust_rules
from mrsi_fast.cli.terminal import Terminal

if TYPE_CHECKING:
    from mrsi_fast.resolver import SuperResolver
    from mrsi_fast.result import Result


@dataclass(frozen=True)
class Request:
    """What the user asked for, the same for every input of a run; see the options of ``mrsi-fast sr``."""

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


@dataclass(frozen=True)
class Worker:
    """Super-resolves one input after another.

    Attributes:
        resolver: The model.
        request: What was asked for.
        overwrite: Redo what is finished.
        terminal: Where to speak.
    """

    resolver: SuperResolver
    request: Request
    overwrite: bool
    terminal: Terminal

    def __call__(self, entry: InputSet, folder: Path) -> None:
        """Does one input, from reading to files.

        Raises:
            Skipped: Its results are finished.
            CommandError: The folder holds results made with other settings.
            MapInputError: It cannot be used.
        """
        from mrsi_fast.report.html import write_report
        from mrsi_fast.report.pages import write_pages

        prefix = f"{entry.label}_space-orig_" if entry.label.startswith("sub-") else ""
        if not self.overwrite:
            self._skip_if_finished(folder, prefix)
        result = self._super_resolve(entry)
        _tell(entry, result, self.terminal)
        folder.mkdir(parents=True, exist_ok=True)
        if self.request.save_samples:
            _write_samples(result, folder, prefix)
        write_pages(result, folder, entry.label, prefix)
        result.save(folder, prefix)  # the JSON file comes after all it speaks of: where it is, the result is complete
        page = write_report(folder, folder / REPORT, entry.label)
        self.terminal.say(f"  {'look at':13} {page}\n")

    def _super_resolve(self, entry: InputSet) -> Result:
        asked = self.request
        maps = entry.read(asked.metabolites, asked.names, asked.units, asked.mask, asked.stated)
        self.terminal.say(f"{entry.label}: {', '.join(maps.names)} from {maps.source}")
        with self.terminal.progress(entry.label) as progress:
            result = self.resolver(
                maps,
                scale=asked.scale,
                samples=asked.samples,
                steps=asked.steps,
                seed=asked.seed,
                data_consistency=asked.data_consistency,  # type: ignore[arg-type]
                anatomy=entry.anatomy,
                acquisition={"window": asked.window, "support": asked.support},
                rules=trust_rules(asked.limits),
                keep_filled=asked.keep_filled,
                progress=progress,
            )
        result.provenance["request"] = self._record()
        return result

    def _record(self) -> dict[str, Any]:
        """The request as it stands in the JSON file, where files are recorded by name alone."""
        named = {key: path.name for key in ("anatomy", "mask") if (path := getattr(self.request, key)) is not None}
        return asdict(self.request) | named | {"solver": self.resolver.solver, "model": self.resolver.pretrained.sha256}

    def _skip_if_finished(self, folder: Path, prefix: str) -> None:
        """Raises ``Skipped`` if the folder holds this result, complete.

        Raises:
            CommandError: It holds a result that was made with other settings.
        """
        from mrsi_fast.mrsi.geometry import in_plane_factors, parse_factors
        from mrsi_fast.mrsi.names import bids_label

        (fx, fy), tail = in_plane_factors(parse_factors(self.request.scale)), "_desc-sr_mrsi"
        stem = f"{prefix}res-x{fx}" if fx == fy else f"{prefix}res-x{fx}x{fy}"
        try:
            record = json.loads((folder / f"{stem}{tail}.json").read_text(encoding="utf-8"))
            files = [folder / f"{stem}_met-{bids_label(name)}{tail}.nii.gz" for name in record["maps"]]
            complete = all(path.stat().st_size > 0 for path in files)
        except (OSError, ValueError, KeyError, TypeError):
            return
        before, now = record.get("request", {}), self._record()
        changed = sorted(key for key in now if before.get(key) != now[key])
        if complete and changed:
            raise CommandError(
                f"{folder} holds results made with other settings ({', '.join(changed)}). Choose another folder, "
                "or redo them with --overwrite."
            )
        if complete:
            raise Skipped(f"finished before, skipped ({len(files)} maps in {folder}; --overwrite redoes it)")


def _tell(entry: InputSet, result: Result, terminal: Terminal) -> None:
    from mrsi_fast.report.summary import HEADS, agreement_rows, summary_lines

    for label, text in summary_lines(result.provenance):
        terminal.say(f"  {label:13} {text}")
    terminal.table(
        [f"  {HEADS[0]}", *HEADS[1:]], [(f"  {row[0]}", *row[1:]) for row in agreement_rows(result.provenance)]
    )
    for warning in result.warnings:
        terminal.warn(f"{entry.label}: {warning}")


def _write_samples(result: Result, folder: Path, prefix: str) -> None:
    from mrsi_fast.mrsi.export import write_map

    for number, sample in enumerate(result.samples if result.samples is not None else ()):
        for index, name in enumerate(result.names):
            path = folder / f"{prefix}{result.stem(f'sample{number:03d}', name)}.nii.gz"
            write_map(path, sample[index], result.affine, kind="sample", name=name, xform_code=result.xform_code)
