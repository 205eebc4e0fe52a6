"""Writes tables as LCModel writes them, to read them back: a ``.table`` and ``.coord`` a voxel, a ``.csv`` a slice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def concentration_lines(conc: Mapping[str, float], percent: Mapping[str, float]) -> list[str]:
    """The concentration table of one voxel, in LCModel's columns (1pe9.2, i4, %, ratio, name)."""
    lines = ["    Conc.  %SD /Cr+PCr  Metabolite"]
    for name, value in conc.items():
        if not np.isfinite([value, percent[name]]).all():
            continue  # LCModel leaves out what it did not analyse
        shown = f"{value:9.2E}" if value else "    0.000"
        lines.append(f"{shown} {int(percent[name]):3d}% {1.0:7.3f} {name}")
    return lines


def write_table(path: Path, conc: Mapping[str, float], percent: Mapping[str, float], snr: float, fwhm: float) -> None:
    """One voxel's ``.table``."""
    lines = concentration_lines(conc, percent)
    head = f"$$CONC {len(lines):2d} lines in following concentration table = NCONC+1"
    text = [" LCModel (Version 6.3-1L)", " Data of: Anyone", "", head]
    text += [*lines, "", "$$MISC  5 lines in following misc. output table"]
    text += [
        f"  FWHM = {fwhm:5.3f} ppm    S/N = {int(snr):3d}",
        "  Data shift = 0.008 ppm",
        "  Ph:   9 deg       2.2 deg/ppm",
    ]
    text += [
        "$$DIAG  1 lines in following diagnostic table:",
        "",
        "$$INPU  1 lines in following table of input changes",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(text) + "\n")


def write_coord(path: Path, conc: Mapping[str, float], percent: Mapping[str, float], snr: float, fwhm: float) -> None:
    """One voxel's ``.coord``: the same tables, then points of the spectra."""
    lines = concentration_lines(conc, percent)
    text = [" LCModel (Version 6.3-1L)", f" {len(lines):2d} lines in following concentration table = NCONC+1", *lines]
    text += ["  5 lines in following misc. output table", f"  FWHM = {fwhm:5.3f} ppm    S/N = {int(snr):3d}"]
    text += ["  Data shift = 0.008 ppm", "   3 points on ppm-axis = NY", "  4.000000  3.990000  3.980000"]
    text += ["NY phased data points follow", " 1.0E+00 2.0E+00 3.0E+00"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(text) + "\n")


def write_csv(path: Path, conc: Mapping[str, Array], percent: Mapping[str, Array]) -> None:
    """A slice's spreadsheet, one row a voxel; ``conc`` and ``percent`` are [row, column] for each name."""
    names = list(conc)
    rows = ["Row, Col, " + ", ".join(f"{name}, {name} %SD, {name}/Cr+PCr" for name in names)]
    shape = conc[names[0]].shape
    for row, col in np.ndindex(*shape):
        cells = [f"{conc[name][row, col]:.4e}, {percent[name][row, col]:.0f}, {1.0:.3e}" for name in names]
        rows.append(f"{row + 1}, {col + 1}, " + ", ".join(cells))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


def write_run(
    folder: Path,
    conc: Mapping[str, Array],
    percent: Mapping[str, Array],
    snr: Array,
    fwhm: Array,
    kind: str = ".table",
    prefix: str = "run_",
) -> None:
    """A whole run, arrays [row, column, slice] (rows towards posterior, columns towards left, slices upwards)."""
    shape = snr.shape
    if kind == ".csv":
        for sl in range(shape[2]):
            one = {name: array[..., sl] for name, array in conc.items()}
            write_csv(
                folder / f"{prefix}sl{sl + 1}.csv", one, {name: array[..., sl] for name, array in percent.items()}
            )
        return
    for row, col, sl in np.ndindex(*shape):
        values = {name: float(array[row, col, sl]) for name, array in conc.items()}
        bounds = {name: float(array[row, col, sl]) for name, array in percent.items()}
        path = folder / f"{prefix}sl{sl + 1}_{row + 1}-{col + 1}{kind}"
        write = write_table if kind == ".table" else write_coord
        write(path, values, bounds, float(snr[row, col, sl]), float(fwhm[row, col, sl]))
