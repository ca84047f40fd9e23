"""One page out of its parts: the template, the style, the script and a block of data.

The only files read here are the package's own. The script and the style are allowed by their
hashes; nothing else may run or be loaded.
"""

import base64
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from porttrace.analysis.model import Finding, Trace
from porttrace.analysis.render.html.data import page_data

_HERE = Path(__file__).parent
# In this order they become one script; each may use what stands before it.
SCRIPTS = (
    "dom",
    "format",
    "model",
    "theme",
    "view",
    "rows",
    "axis",
    "waterfall",
    "steps",
    "latency",
    "verdict",
    "details",
    "attempts",
    "tables",
    "binds",
    "pointer",
    "keys",
    "main",
)
_SLOT = re.compile(r"\{\{(\w+)\}\}")
# What could end the block of data, or begin markup within it. json.dumps leaves no other
# character than ASCII, so U+2028 and U+2029 are written out too.
_MARKUP = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


def html_report(trace: Trace, findings: Sequence[Finding], *, title: str = "") -> str:
    """Return the report of `trace` as one HTML page that loads nothing.

    `title` heads the page; without it, the host's name does. The same input gives the same text.
    """
    style, script = style_of_page(), _script()
    return filled(
        _text("page.html"),
        {
            "policy": policy(style, script),
            "style": style,
            "data": embedded(page_data(trace, findings, title)),
            "script": script,
        },
    )


def policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy: this style, this script, an empty icon, no more."""
    # The icon keeps browsers from asking a server for one.
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def embedded(data: Mapping[str, Any]) -> str:
    """Return `data` as JSON that can stand in a script element and cannot leave it."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.translate(_MARKUP)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def filled(template: str, parts: Mapping[str, str]) -> str:
    """Return a template with `parts` in its slots, in one pass: none is searched for slots."""
    return _SLOT.sub(lambda slot: parts[slot[1]], template)


@functools.cache
def style_of_page() -> str:
    """Return the style that pages share."""
    return "\n" + _text("page.css")


@functools.cache
def _script() -> str:
    parts = "\n".join(_text(f"js/{name}.js") for name in SCRIPTS)
    return f'\n(() => {{\n"use strict";\n\n{parts}}})();\n'


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
