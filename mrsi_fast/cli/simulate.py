"""``mrsi-fast simulate``: writes simulated subjects as folders that ``sr`` reads, with their truth beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrsi_fast.cli.exits import CommandError, guarded
from mrsi_fast.cli.groups import grouped
from mrsi_fast.cli.options import Debug, Quiet
from mrsi_fast.cli.running import WorkerOptions
from mrsi_fast.cli.terminal import Terminal

if TYPE_CHECKING:
    from mrsi_fast.pool import Workers
    from mrsi_fast.simulation.config import SimulationConfig
    from mrsi_fast.simulation.volume import SimulatedSubject

Preset = Annotated[str, typer.Option(help="Named settings, or a TOML file of your own.")]
Subjects = Annotated[str, typer.Option(help="How many subjects (at most 10000), or which, e.g. 0,3,5.")]
Scales = Annotated[str, typer.Option(help="Factors to measure each subject at, e.g. 2,4,8.")]
Through = Annotated[
    int, typer.Option(min=1, max=4, help="Refine the slices too: 2 or 4 planes of the truth in each. 1: none.")
]
WholeBrain = Annotated[
    bool,
    typer.Option("--whole-brain", help="Measure 22 slices of 32x42 voxels of 5 mm."),
]
Heads = Annotated[
    str | None,
    typer.Option(help="'phantom' (needs no data), or a folder of label maps sub-*_dseg.nii.gz. Default: the preset's."),
]
Split = Annotated[
    str | None, typer.Option(help="train, val, test, or all for heads of your own. Default: the preset's.")
]


MOST_SUBJECTS, LARGEST_SUBJECT = 10_000, 2**31 - 1
"""Subjects of one call, some 300 GB of files; and the number of one."""


@guarded
@grouped
def simulate(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the subjects.")],
    preset: Preset = "realistic-3T",
    subjects: Subjects = "1",
    scales: Scales = "4",
    through_plane_factor: Through = 1,
    whole_brain: WholeBrain = False,
    heads: Heads = None,
    split: Split = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the set.")] = 0,
    workers: WorkerOptions,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Simulate subjects with known truth.

    For every subject N and factor F: `sub-N_acq-xF/` with maps, CRLB, SNR, linewidth and mask, ready for
    `mrsi-fast sr -i`; and `sub-N_truth/` with the fine maps, tissue shares, lesion masks and a T1 image. Preset,
    subject and seed decide every value.
    """
    from mrsi_fast.config import ConfigError
    from mrsi_fast.pool import PoolError

    terminal, chosen, factors = Terminal(quiet), _subjects(subjects), _numbers(scales, "--scales")
    where = workers.where()
    if not set(factors) <= {2, 4, 8}:
        raise CommandError(f"--scales {scales}: each factor has to be 2, 4 or 8.")
    if through_plane_factor not in (1, 2, 4):
        raise CommandError(f"--through-plane-factor {through_plane_factor}: it has to be 1, 2 or 4.")
    all_factors = [(factor, factor, through_plane_factor) for factor in factors]
    try:
        settings = _settings(preset, heads, split)
        settings = settings.whole_brain() if whole_brain else settings
        target = output.absolute() if where.asked else output
        tasks = [(settings, number, seed, all_factors, target) for number in chosen]
        for lines in _on_workers(tasks, where, terminal) if where.asked else map(_simulated, tasks):
            for line in lines:
                terminal.say(line)
    except (ConfigError, PoolError) as error:
        raise CommandError(str(error)) from error


_Task = tuple["SimulationConfig", int, int, list[tuple[int, int, int]], Path]
"""Settings, number of the subject, seed, factors and output folder."""


def _simulated(task: _Task) -> list[str]:
    """Writes one subject, and says so."""
    from mrsi_fast.simulation.volume import scale_key, simulate_subject

    settings, number, seed, factors, output = task
    return _write(simulate_subject(settings, number, seed, [scale_key(one) for one in factors]), output)


def _on_workers(tasks: list[_Task], where: Workers, terminal: Terminal) -> Iterator[list[str]]:
    from mrsi_fast.pool import open_pool

    with open_pool(where, terminal.warn) as pool:
        for finished in pool.each(_simulated, tasks, [f"subject {task[1]}" for task in tasks]):
            if finished.error is not None:
                raise finished.error
            yield finished.value


def _subjects(text: str) -> Sequence[int]:
    """Numbers of the subjects: the first N, or those that are listed, each once.

    Raises:
        CommandError: There are none or too many.
    """
    numbers = _numbers(text, "--subjects")
    listed = "," in text
    if (len(numbers) if listed else numbers[0]) > MOST_SUBJECTS:
        raise CommandError(f"--subjects {text[:40]}: at most {MOST_SUBJECTS} subjects are simulated in one call.")
    if max(numbers) > LARGEST_SUBJECT:
        raise CommandError(f"--subjects {text[:40]}: the number of a subject is at most {LARGEST_SUBJECT}.")
    if not listed and not numbers[0]:
        raise CommandError(f"--subjects {text}: that is none. `0,` is the subject number 0.")
    return list(dict.fromkeys(numbers)) if listed else range(numbers[0])


def _numbers(text: str, option: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0:
        raise CommandError(f"{option} {text[:40]}: give whole numbers, separated by commas.")
    return numbers


def _settings(preset: str, heads: str | None, split: str | None) -> SimulationConfig:
    from mrsi_fast.simulation.config import SimulationConfig

    config = SimulationConfig.load(preset) if preset.endswith(".toml") else SimulationConfig.preset(preset)
    changes = {key: value for key, value in (("heads", heads), ("split", split)) if value is not None}
    values = config.model_dump()
    values["anatomy"] |= changes
    if heads == "phantom":  # nothing is read from disk then, tumour outlines included
        values["anatomy"]["tumour_masks"] = None
    return SimulationConfig.parse(values, "options")


def _write(subject: SimulatedSubject, output: Path) -> list[str]:
    from mrsi_fast.simulation.export import write_subject

    shapes = ["x".join(map(str, measured.maps.shape[1:])) for measured in subject.measured.values()]
    *measured_folders, truth = write_subject(subject, output)
    lines = [
        f"{folder}: {len(subject.names)} maps of {shape} voxels"
        for folder, shape in zip(measured_folders, shapes, strict=True)
    ]
    return [*lines, f"{truth}: lesion {subject.provenance['lesion']['kind']}, sha256 {subject.checksum()[:12]}"]
