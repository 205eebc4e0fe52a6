"""Options of the self-test, and the output of its result."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mrsi_fast.cli.exits import CommandError

if TYPE_CHECKING:
    from mrsi_fast.cli.terminal import Terminal
    from mrsi_fast.evidence.testimony import Evidence

EvidenceMode = Annotated[
    Literal["auto", "on", "off"],
    typer.Option(
        "--evidence",
        help="Self-test: the outer half of the scan's k-space is removed, restored by the model and compared with the "
        "measurement. auto: where that takes less than half of the run, and always with --anatomy.",
    ),
]
Align = Annotated[
    Literal["auto", "off"],
    typer.Option(
        help="auto: rigid alignment of the anatomical image to the maps, which never move; off: the position in its "
        "header."
    ),
]
AnatomyTrust = Annotated[
    Literal["check", "force"],
    typer.Option(help="check: refuse an anatomical image that does not fit or does not help; force: use it anyway."),
]
NoiseScale = Annotated[
    str,
    typer.Option(
        help="Factor on the noise level that the network is given: a number, or auto (1, 2 or 4, by the self-test)."
    ),
]
Shrink = Annotated[
    Literal["auto", "off"],
    typer.Option(
        help="auto: scale the detail outside the measured k-space by the amplitude found in the self-test (0 to 1)."
    ),
]


@dataclass(frozen=True)
class EvidenceOptions:
    """The self-test and the choices that follow from it."""

    evidence: EvidenceMode = "auto"
    align: Align = "auto"
    anatomy_trust: AnatomyTrust = "check"
    noise_scale: NoiseScale = "auto"
    shrink: Shrink = "off"

    def choices(self) -> dict[str, Any]:
        """The choices as the resolver takes them.

        Raises:
            CommandError: They do not fit together, or the noise scale is no number.
        """
        given = self.noise_scale
        try:
            scale: Any = "auto" if given == "auto" else float(given)
        except ValueError:
            raise CommandError(f"--noise-scale {given}: give a number, e.g. 2, or auto.") from None
        if scale != "auto" and not 0 < scale < float("inf"):
            raise CommandError(f"--noise-scale {given}: give a number above 0, or auto.")
        if self.shrink == "auto" and self.evidence == "off":
            raise CommandError("--shrink auto needs the self-test: remove --evidence off.")
        return asdict(self) | {"noise_scale": scale}


def tell_evidence(evidence: Evidence, terminal: Terminal) -> None:
    """Prints the findings: sentences, then a row a map."""
    for sentence in evidence.sentences():
        terminal.say(f"  {sentence}")
    rows = evidence.rows()
    if rows:
        terminal.table([f"  {rows[0][0]}", *rows[0][1:]], [(f"  {row[0]}", *row[1:]) for row in rows[1:]])
