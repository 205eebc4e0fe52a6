"""The internal reference of an fsl_mrsi fit, from the ``options.txt`` that the program leaves in its output folder.

Its first line holds the arguments of the fit, as ``Namespace(..., internal_ref=['Cr', 'PCr'], ...)`` or as JSON.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from mrsi_fast.mrsi.names import canonical_name

_INTERNAL_REF = re.compile(r"""\binternal_ref["']?\s*[=:]\s*(\[[^\]]*\]|"[^"]*"|'[^']*')""")
_LARGEST_BYTES = 1_000_000


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
