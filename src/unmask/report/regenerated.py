"""Whether `report.html` is what `report.json` gives: people read the one, and `unmask verify` the other."""

from __future__ import annotations

import html
import os
import re
import shlex
from pathlib import Path

from ..audit.records import Report
from .html import FILE, render

# Where a page is read decides these: paths from the working directory, and the quoted source, which may have moved.
_PLACES = (r'<code class="where">.*?</code>', r'<div class="source">.*?</code></div>', r"<svg.*?</svg>")


def page_differs(folder: str | os.PathLike[str], report: Report) -> str | None:
    """None where the page says what the report does; else what is wrong with it, in a few words.

    A missing page misleads nobody. Compared is the whole page but for the places of findings, the source lines quoted
    there, and the drawn curves.
    """
    path = Path(folder, FILE)
    if not path.exists():
        return None
    try:
        page = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return f"{FILE} cannot be read"
    again = render(report, _folder_of(page))
    return None if _essence(page) == _essence(again) else f"{FILE} says something else than report.json gives"


def _folder_of(page: str) -> str:
    """The folder that the page's own commands name: it may have been moved since."""
    found = re.search(r"^unmask verify (.*?)</pre>", page, re.MULTILINE)
    try:
        words = shlex.split(html.unescape(found.group(1))) if found else []
    except ValueError:
        words = []
    return words[0] if words else "DIR"


def _essence(page: str) -> str:
    for place in _PLACES:
        page = re.sub(place, "", page, flags=re.DOTALL)
    return page
