"""mrsi-sim: open simulation of MRSI with ground truth, for training, tests and honest evaluation.

config.py          every probability, range and width;   presets/*.toml   named sets of them
concentrations.*   the concentration table, one source per cell
keys.py, fields.py keyed randomness and smooth random fields that agree between slices and volumes
anatomy.py         heads from label maps;                phantom.py       an analytic head, no data needed
tumour.py          lesions;                              subject.py       one subject and its object on a slice
warp.py            how a head is deformed;               anatomical.py    a synthetic T1
slices.py          one slice, object and HR truth;       acquisition.py   measurement, noise, quality maps
batch.py           training batches;                     volume.py        subjects with truth and quality maps
export.py          subjects to NIfTI
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrsi_fast.simulation.batch import Simulator as Simulator
    from mrsi_fast.simulation.config import SimulationConfig as SimulationConfig
    from mrsi_fast.simulation.export import write_subject as write_subject
    from mrsi_fast.simulation.volume import SimulatedSubject as SimulatedSubject
    from mrsi_fast.simulation.volume import simulate as simulate

_HOME = {
    "Simulator": "batch",
    "SimulationConfig": "config",
    "write_subject": "export",
    "SimulatedSubject": "volume",
    "simulate": "volume",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Imports a public name from its module at first use."""
    if name not in _HOME:
        raise AttributeError(f"mrsi_fast.simulation has no attribute {name!r}; it offers {', '.join(__all__)}.")
    return getattr(importlib.import_module(f"mrsi_fast.simulation.{_HOME[name]}"), name)
