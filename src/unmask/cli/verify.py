"""`unmask verify`: whether the evidence holds."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .pipes import readers_may_leave


def add_parser(commands: Any) -> None:
    """Adds the subcommand."""
    command = commands.add_parser(
        "verify",
        help="check the evidence of an audit again, trusting nothing",
        description="Checks each saved adversarial example with code that shares nothing with the attacks. "
        "This runs the Python file that the report names as its target.",
    )
    command.add_argument("folder", type=Path, metavar="DIR", help="folder that unmask audit wrote")
    command.add_argument("--target", metavar="TARGET", help="where the network is now, if it was moved")
    command.add_argument("--data", metavar="DATA", help="where the data set is now, if it was moved")
    command.add_argument("--device", default="cpu", metavar="DEVICE", help="cpu (default), cuda, …")
    command.add_argument(
        "--allow-pickle", action="store_true", help="read pickled data, which runs the code inside"
    )
    command.add_argument("--json", action="store_true", help="print the checks as JSON")
    command.add_argument("--quiet", action="store_true", help="print one line")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """0 everything holds, 1 something does not."""
    from ..audit.verify import verify

    with contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext():
        outcome = verify(
            arguments.folder,
            target=arguments.target,
            data=arguments.data,
            allow_pickle=arguments.allow_pickle,
            device=arguments.device,
        )
    with readers_may_leave(sys.stdout):
        if arguments.json:
            print(json.dumps({"holds": outcome.holds, **asdict(outcome)}, indent=2))
        else:
            show(outcome, quiet=arguments.quiet)
    return 0 if outcome.holds else 1


def show(outcome: Any, *, quiet: bool = False) -> None:
    """Prints a table of the checks, and one line with the outcome."""
    from rich.table import Table
    from rich.text import Text

    from .terminal import console, show_table

    out = console(sys.stdout)
    if not quiet:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column()
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        for check in outcome.checks:
            sign = Text("holds", style="green") if check.holds else Text("FAILS", style="bold red")
            table.add_row(sign, check.name, check.found)
        show_table(table, out)
    counted = f"{outcome.verified} of {outcome.total} adversarial examples hold"
    if outcome.holds:
        out.print(Text("Verified: ", style="bold green") + Text(f"{counted}, and so does every number."))
    else:
        failed = ", ".join(check.name for check in outcome.checks if not check.holds)
        out.print(Text("Not verified: ", style="bold red") + Text(f"{counted}; what fails: {failed}."))
