"""Text of other people's files, made harmless for readers: terminals and pages act on no character of it."""

from __future__ import annotations

import re
from typing import Any

from markupsafe import Markup

_CONTROLS, _DIRECTIONS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029", r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_HIDDEN = re.compile(f"[{_CONTROLS}{_DIRECTIONS}\\ud800-\\udfff]")


def visible(text: str, lines: bool = False) -> str:
    """Text with every control character, change of direction and undecodable byte escaped.

    File names may hold any of them: an escape sequence, an override of the reading order, a line end that makes the
    rest of the name look like a line of the program, bytes that are no UTF-8.

    Args:
        text: The text.
        lines: Keep its line ends; for texts of several lines that this package composed.
    """
    text = _HIDDEN.sub(lambda found: ascii(found[0])[1:-1], text)
    return text if lines else text.replace("\n", "\\n")


def finalized(value: Any) -> Any:
    """What a template shows for a value: text made harmless, with its lines; markup of this package as it is."""
    return visible(value, lines=True) if isinstance(value, str) and not isinstance(value, Markup) else value
