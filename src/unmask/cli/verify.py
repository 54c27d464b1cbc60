"""`unmask verify`: whether the evidence holds."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..claim.claim import Claim, read_claim
from ..cli.options import COMMAND, stored
from ..errors import plural
from .device import choose_device
from .pipes import readers_may_leave


def add_parser(commands: Any) -> None:
    """Adds the subcommand."""
    command = commands.add_parser(
        "verify",
        help="check the evidence of an audit again, trusting nothing",
        description="Checks each saved adversarial example with code that shares nothing with the attacks. "
        "This runs the Python file that the report names as its target, and says which; one inside DIR only if "
        "--target names it.",
    )
    command.add_argument("folder", type=Path, metavar="DIR", help="folder that unmask audit wrote")
    command.add_argument("--target", metavar="TARGET", help="where the network is now, if it was moved")
    command.add_argument("--data", metavar="DATA", help="where the data set is now, if it was moved")
    command.add_argument(
        "--claim-file", type=Path, metavar="FILE", help="claim.toml, which the report must be about"
    )
    command.add_argument("--device", default="cpu", metavar="DEVICE", help="cpu (default), cuda, …")
    command.add_argument(
        "--allow-pickle", action="store_true", help="read pickled data, which runs the code inside"
    )
    command.add_argument("--json", action="store_true", help="print the checks as JSON")
    command.add_argument("--quiet", action="store_true", help="print one line")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """0 everything holds, 1 something does not."""
    from ..audit.verify import Check, verify
    from ..audit.verifying.well_formed import read_report
    from ..report.against import other_than_claimed
    from ..report.regenerated import page_differs
    from ..target.source_files import what_runs

    folder: Path = arguments.folder
    report = read_report(folder)
    claims = _claims(arguments)
    with contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext():
        if not arguments.quiet:
            print(f"runs {what_runs(arguments.target or report.target)}", file=sys.stderr, flush=True)
        outcome = verify(
            folder,
            target=arguments.target,
            data=arguments.data,
            allow_pickle=arguments.allow_pickle,
            device=choose_device(arguments.device),
            page=partial(page_differs, folder),
        )
    more = []
    for name, claim in claims.items():
        other = other_than_claimed(claim, report)
        more.append(Check(f"as {name} states", not other, "; ".join(other) or "the same"))
    outcome = replace(outcome, checks=[*outcome.checks, *more])
    with readers_may_leave(sys.stdout):
        if arguments.json:
            print(json.dumps({"holds": outcome.holds, **asdict(outcome)}, indent=2))
        else:
            show(outcome, quiet=arguments.quiet)
    return 0 if outcome.holds else 1


def _claims(arguments: argparse.Namespace) -> dict[str, Claim]:
    """What the report is held against: the options that the audit was given, and a claim file if one is named."""
    folder, found = arguments.folder, {}
    if (folder / COMMAND).exists():
        found[COMMAND] = stored(folder)
    if arguments.claim_file is not None:
        found[arguments.claim_file.name] = read_claim(arguments.claim_file)
    return found


def show(outcome: Any, *, quiet: bool = False) -> None:
    """Prints a table of the checks, and one line with the outcome."""
    from rich.table import Table
    from rich.text import Text

    from ..report.words import percent
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
    counted = f"{outcome.verified} of {outcome.total} adversarial examples {plural(outcome.verified, 'holds', 'hold')}"
    proved = (
        f"The evidence proves that at most {percent(outcome.proves)} of {outcome.examples} examples survive; it cannot "
        "show that nothing was left out."
    )
    if outcome.unchecked:
        proved += f" Taken at the report's word: {', '.join(outcome.unchecked)}."
    if outcome.certificate:
        proved += f" The certified accuracy was not proved again: {outcome.certificate}."
    if outcome.holds:
        out.print(Text("Verified: ", style="bold green") + Text(f"{counted}. {proved}"))
    else:
        failed = ", ".join(check.name for check in outcome.checks if not check.holds)
        out.print(Text("Not verified: ", style="bold red") + Text(f"{counted}; what fails: {failed}."))
