"""What all pages have in common: the environment of templates, one style sheet, and the hashes of their policies."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources

import jinja2

from mrsi_fast.report.plain_text import finalized
from mrsi_fast.report.stills import colour_codes


@cache
def page_css() -> str:
    """The style sheet, with the colour maps as gradients."""
    gradients = {
        name: ", ".join(f"#{codes[6 * index : 6 * index + 6]}" for index in range(0, 256, 15))
        for name, codes in colour_codes().items()
    }
    text = resources.files("mrsi_fast.report").joinpath("page.css").read_text(encoding="utf-8")
    return environment().from_string(text).render(gradients=gradients)


def environment() -> jinja2.Environment:
    """What every page is made with: values escaped, and harmless also where HTML does not care (direction of text)."""
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, finalize=finalized)


def csp_hash(text: str) -> str:
    """The source expression of a content security policy for a script or style sheet."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
