"""The unit of fsl_mrsi's maps from the place where they lie, a folder of scalings in the program's output folder.

The internal reference stands in the ``options.txt`` that the program leaves there. Its first line holds the arguments
of the fit, as ``Namespace(..., internal_ref=['Cr', 'PCr'], ...)`` or as JSON.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from mrsi_fast.mrsi.names import canonical_name
from mrsi_fast.mrsi.schemes import FSL_SCALINGS

_INTERNAL_REF = re.compile(r"""\binternal_ref["']?\s*[=:]\s*(\[[^\]]*\]|"[^"]*"|'[^']*')""")
_LARGEST_BYTES = 1_000_000


def unit_in_place(path: Path) -> str | None:
    """The unit that a map's folder tells: that of the scaling for ``concs/<scaling>/<name>``, else None.

    Args:
        path: The file of the map.
    """
    folder = path.absolute().parent
    scaling = folder.name.lower()
    if folder.parent.name.lower() != "concs" or scaling not in FSL_SCALINGS:
        return None
    reference = internal_reference(folder.parent.parent) if scaling == "internal" else None
    return FSL_SCALINGS[scaling] if reference is None else f"ratio to {reference}"


def internal_reference(output: Path) -> str | None:
    """The metabolite that the ``internal`` scaling divides by.

    Args:
        output: fsl_mrsi's output folder, the one that holds ``concs``.

    Returns:
        The canonical name (``Cr PCr`` is tCr), or None where the folder has no options file that tells.
    """
    try:
        with (output / "options.txt").open(encoding="utf-8", errors="replace") as file:
            said = _INTERNAL_REF.search(file.read(_LARGEST_BYTES))
        value = ast.literal_eval(said[1]) if said else []
    except (OSError, ValueError, SyntaxError):
        return None
    parts = [value] if isinstance(value, str) else value
    if not parts or not all(isinstance(part, str) and part.strip() for part in parts):
        return None
    try:
        return canonical_name("+".join(part.strip() for part in parts))
    except ValueError:
        return None
