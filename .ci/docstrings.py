"""Docstrings as the site's Markdown reads them: lists after an empty line, doctests as code."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Rewrites every docstring before it is rendered."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)


def readable(text: str) -> str:
    r"""A docstring whose lists follow an empty line, and whose examples are code.

    >>> readable("**Fields**\n- `a`: one")
    '**Fields**\n\n- `a`: one'
    """
    found: list[str] = []
    example = False
    for line in text.split("\n"):
        if line.startswith(">>> ") and not example:
            found += ["", "```python"]
            example = True
        elif example and not line.strip():
            found.append("```")
            example = False
        item = line.startswith("- ") and not example
        if item and found and found[-1].strip() and not re.match(r"- |\s", found[-1]):
            found.append("")
        found.append(line)
    return "\n".join([*found, "```"] if example else found)
