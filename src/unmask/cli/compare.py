"""`unmask compare`: several audits side by side."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import UnusableInput
from .export import read_report


def add_parser(commands: Any) -> None:
    """Adds the subcommand."""
    command = commands.add_parser(
        "compare",
        help="several audits side by side, and which examples broke where",
        description="Compares audits. Examples are matched where data, split, number and seed are the same.",
    )
    command.add_argument(
        "folders", type=Path, nargs="+", metavar="DIR", help="folders that unmask audit wrote"
    )
    command.add_argument("--json", action="store_true", help="print the comparison as JSON")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the table; 0."""
    from ..audit.evidence import read_evidence
    from ..report.comparison import overlaps, rows, unmatched

    if len(arguments.folders) < 2:
        raise UnusableInput("there is one folder to compare; give two or more")
    names = [str(folder) for folder in arguments.folders]
    if len(set(names)) < len(names):
        raise UnusableInput("a folder is named twice; give each once")
    reports = {name: read_report(Path(name)) for name in names}
    broken = {}
    for name in names:
        evidence = read_evidence(name)
        broken[name] = frozenset(evidence.index[evidence.failure_rate > 0.5].tolist())
    lines, pairs = rows(reports), overlaps(reports, broken)
    if arguments.json:
        table = {title: dict(zip(names, values, strict=True)) for title, values in lines}
        print(json.dumps({"table": table, "overlaps": [asdict(pair) for pair in pairs]}, indent=2))
        return 0
    from rich.table import Table

    from .terminal import console, show_table

    out = console(sys.stdout)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("", *names):
        table.add_column(title, overflow="fold")
    for title, values in lines:
        table.add_row(title, *values)
    show_table(table, out)
    for pair in pairs:
        out.print(
            f"{pair.first} and {pair.second}: {pair.both} examples broke in both, {pair.first_alone} in the first "
            f"alone, {pair.second_alone} in the second alone, {pair.neither} in neither."
        )
    for first, second, what in unmatched(reports):
        out.print(f"{first} and {second}: another {what}, so that no examples are matched.")
    return 0
