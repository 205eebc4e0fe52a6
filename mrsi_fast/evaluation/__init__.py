"""Honest evaluation: metrics with named conventions, baselines in the same harness, statistics with the head as unit.

metrics.py        PSNR, SSIM, NRMSE and spectra under a named convention;   perceptual.py  LPIPS
tissue.py         bias per tissue, Bland-Altman;   lesion.py  tumour bias, recovery, hotspots, detection
calibration.py    interval coverage, CRPS
cases.py          what is evaluated: simulated subjects, folders of label maps, pairs of measured and true maps
interpolation.py, ridge.py, texture.py, baselines.py    the methods that ours is compared with
memorisation.py   nearest train neighbour of what the model draws
statistics.py     exact tests and bootstrap by head
plan.py           settings and parts of a run;   fitting.py  what is learned from the train heads
scoring.py        all numbers of one estimate;   run.py  the run: resumable, parallel over subjects
whole_brain.py, volume_baselines.py    whole brains refined along all three axes
tables.py         CSV, JSON and Markdown from its rows
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrsi_fast.evaluation.plan import EvaluationConfig as EvaluationConfig
    from mrsi_fast.evaluation.run import evaluate as evaluate

_HOME = {"EvaluationConfig": "plan", "evaluate": "run"}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Imports a public name from its module at first use."""
    if name not in _HOME:
        raise AttributeError(f"mrsi_fast.evaluation has no attribute {name!r}; it offers {', '.join(__all__)}.")
    return getattr(importlib.import_module(f"mrsi_fast.evaluation.{_HOME[name]}"), name)
