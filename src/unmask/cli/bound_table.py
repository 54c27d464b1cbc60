"""What `unmask bound` prints: a row per example, and the totals."""

from __future__ import annotations

import sys
from typing import Any

from ..errors import plural

STYLES = {"refuted": "bold red", "unreliable": "bold yellow", "unrefuted": ""}


def show(record: dict[str, Any], *, quiet: bool = False) -> None:
    """A row per example, and the totals."""
    from rich.table import Table
    from rich.text import Text

    from ..report import words
    from .terminal import console, show_table

    out = console(sys.stdout)
    if not quiet:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name in ("example", "label", "target", "certified", "CLEVER", "attack"):
            table.add_column(name, justify="right")
        table.add_column("mark")
        table.add_column("because", overflow="fold")
        for row in record["examples"]:
            score = _radius(row["clever"]) + ("+" if row["capped"] else "")
            numbers = (str(row["index"]), str(row["label"]), str(row["target"]))
            mark = Text(row["mark"], style=STYLES[row["mark"]])
            radii = (_radius(row["certified"]), score, _radius(row["attack"]))
            table.add_row(*numbers, *radii, mark, row["reason"])
        show_table(table, out)
        out.print()
    middle, counts, total = record["medians"], record["counts"], len(record["examples"])
    norm = words.NORMS[record["threat"]["norm"]]
    if record["threat"]["radii"] is not None:
        norm += " in units of the radii, of which the largest counts as itself"
    out.print(
        f"Medians ({norm}): certified {_radius(middle['certified'])}, CLEVER {_radius(middle['clever'])}, attack "
        f"{_radius(middle['attack'])}"
    )
    inside = sum(row["mark"] == "refuted" for row in record["examples"])
    below = sum((row["clever"] or 0) < (row["certified"] or 0) for row in record["examples"])
    marks = ", ".join(f"{counts[mark]} {mark}" for mark in STYLES)
    out.print(
        f"CLEVER on {total} {plural(total, 'example', 'examples')}: {marks}. It is an estimate, no bound: {inside} "
        f"{plural(inside, 'score lies', 'scores lie')} above the nearest adversarial example, {below} below what is "
        "proved."
    )
    if record["uncertified"]:
        out.print(f"No certificate: {record['uncertified']}")
    if record["masking"]:
        out.print(Text(f"The gradient is {record['masking']}", style="red"))


def _radius(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
