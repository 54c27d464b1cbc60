"""`unmask reproduce NAME`: a paper's figures beside ours."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UnusableInput
from .device import choose_device


def add_parser(commands: Any) -> None:
    """Adds the subcommand."""
    command = commands.add_parser(
        "reproduce",
        help="a paper's figures beside ours",
        description="Measures a paper's figures row by row and writes results.json, table.md and figures to DIR. Rows "
        "that DIR already holds are not run again. Every scale is an option; what is left out is as the "
        "reproduction has it.",
    )
    add = command.add_argument
    add("name", metavar="NAME", nargs="?", help="for instance sap; without it, all are listed")
    add("--quick", action="store_true", help="minutes, on digits: that it works, not that it agrees")
    add("--list", action="store_true", help="print the rows with the published figures, and measure nothing")
    add(
        "--forecast",
        action="store_true",
        help="print what the published scale would take on this device, from passes per second measured now",
    )
    add("--examples", type=int, metavar="N", help="images of every row")
    add("--steps", type=int, metavar="N", help="steps of every attack")
    add("--seed", type=int, default=0, metavar="N", help="seed of all randomness (default: 0)")
    add("--seeds", type=int, default=1, metavar="N", help="runs of every row, from --seed on (default: 1)")
    add("--only", metavar="ROW", help="just that row, or those whose names contain the text")
    add("--data", metavar="DATA", help="another data set of the same shape, as for audit")
    add("--device", metavar="DEVICE", help="cpu, cuda, … (default: cuda if there is one)")
    add("--out", type=Path, metavar="DIR", help="default: runs/reproduce-NAME[-quick]")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """0 once every row that was asked for is there."""
    from ..reproducing.papers import chosen, names, paper

    if arguments.name is None:
        print("\n".join(names()))
        return 0
    module = paper(arguments.name)
    request = request_of(arguments)
    if arguments.forecast:
        return _forecast(module, request)
    rows = module.rows(module.Story(request))
    wanted = chosen(rows, arguments.only, arguments.name)
    if arguments.list:
        print("\n".join(f"{name} | {rows[name][0]}" for name in wanted))
        return 0
    quick = "-quick" if arguments.quick else ""
    out = arguments.out or Path("runs", f"reproduce-{arguments.name}{quick}")
    return _measure(module, request, {name: said for name, (said, _) in rows.items()}, wanted, out)


def request_of(arguments: argparse.Namespace) -> Any:
    """The options as one record. **Raises** `UnusableInput` for those that cannot be."""
    from ..reproducing.request import Request

    device = choose_device(arguments.device)
    taken = ("name", "quick", "examples", "steps", "seed", "seeds", "data")
    return Request(**{name: getattr(arguments, name) for name in taken}, device=device)


def _forecast(module: Any, request: Any) -> int:
    from ..reproducing.forecast import forecast

    if not hasattr(module, "at_published_scale"):
        raise UnusableInput(
            f"{request.name} has no forecast; run a row of it (--list, --only) to see what it takes"
        )
    print(forecast(module.at_published_scale(request), request.device), end="")
    return 0


def _measure(module: Any, request: Any, published: dict[str, str], wanted: list[str], out: Path) -> int:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ..reproducing.table import Table
    from .terminal import console

    table = Table(out, request, module, published)
    err = console(sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("", total=len(wanted) * request.seeds)
        for one in request.seeded():
            story = module.Story(replace(one))
            rows = module.rows(story)
            for name in wanted:
                bar.update(task, description=name)
                if not table.has(name, one.seed):
                    if hasattr(story, "watch"):  # a row that takes long saves its state and says where it is

                        def report(part: int, of: int, name: str = name) -> None:
                            bar.update(task, description=f"{name}: {part:,} of {of:,}")

                        story.watch(out, name, report)
                    began = time.perf_counter()
                    row = rows[name][1]()
                    seconds = time.perf_counter() - began
                    table.add(name, one.seed, {**row, "seconds": seconds})
                    err.print(f"{name}: {module.describe(row)}, {seconds:.0f} s")
                bar.advance(task)
    table.save()
    table.draw()
    print(table.text(), end="")
    return 0
