"""What a person sees in the terminal: progress on standard error, the outcome on standard output."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from ..audit.records import MaskingFinding, Report
from ..report import words
from ..report.html import place
from ..report.places import by_place, repairs
from .pipes import silence

STYLES = {
    "refuted": "bold red",
    "not_refuted": "bold cyan",
    "certified": "bold green",
    "inconclusive": "bold yellow",
}
PIPED_WIDTH = 1000  # so that no path is ever broken across lines


class Listener(Console):
    """A console whose reader may leave: rich would exit with status 1, which means that a claim is refuted."""

    def on_broken_pipe(self) -> None:
        """Prints nothing any more."""
        self.quiet = True
        silence(cast("TextIO", self.file))


def console(stream: TextIO) -> Console:
    """A console that neither wraps nor colours when it is piped."""
    width = None if stream.isatty() else PIPED_WIDTH
    return Listener(
        file=stream, width=width, markup=False, highlight=False, emoji=False, soft_wrap=not stream.isatty()
    )


class TerminalProgress:
    """A live bar with the current upper bound; where standard error is no terminal, one line per event.

    Use as a context manager.
    """

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.console = console(sys.stderr)
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[bound]}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
            redirect_stdout=False,
        )
        self.task = self.bar.add_task("starting", total=None, bound="")

    def __enter__(self) -> TerminalProgress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def stage(self, name: str) -> None:
        """Names what runs now and starts the bar again."""
        self.bar.reset(self.task, description=name, total=None)
        if self.bar.disable:
            self._say(name)

    def update(self, upper_bound: float, done: int, total: int) -> None:
        """Moves the bar."""
        bound = f"robust accuracy ≤ {words.percent(upper_bound)}"
        self.bar.update(self.task, completed=done, total=total, bound=bound)

    def advance(self, done: int, total: int) -> None:
        """Moves the bar where there is no upper bound to show."""
        self.bar.update(self.task, completed=done, total=total, bound="")

    def finding(self, finding: MaskingFinding) -> None:
        """Says at once where the gradient is masked."""
        where = Text(f"masked: {words.MECHANISMS[finding.mechanism].lower()}", style="red")
        operation = f" · {finding.operation}" if finding.operation else ""
        self._say(where + Text(f"{operation} · {place(finding)}"))

    def note(self, text: str) -> None:
        """Says one line."""
        self._say(text)

    def _say(self, what: str | Text) -> None:
        if not self.quiet:
            self.console.print(what)


def show_table(table: Table, out: Console) -> None:
    """Prints a table, in a pipe without the spaces that pad its last column."""
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as captured:
        out.print(table)
    out.print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def show_report(report: Report, files: list[Path], out: Console) -> None:
    """The verdict, what led to it, and where the files are."""
    headline = Text(words.headline(report).upper(), style=STYLES[report.verdict])
    out.print()
    out.print(headline + Text("  ") + Text(words.verdict_sentence(report)))
    out.print()
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    low, high = report.robust_accuracy_interval
    interval = f"  95 % interval {words.percent(low)} to {words.percent(high)}"
    rows = [
        ("clean accuracy", words.percent(report.clean_accuracy)),
        ("claimed", words.percent(report.claim)),
        ("standard attack", words.percent(report.naive_robust_accuracy)),
        (
            "repaired attacks" if report.masking else "all attacks",
            words.percent(report.robust_accuracy) + interval,
        ),
        ("certified", words.percent(report.certified_accuracy)),
        ("CLEVER", words.clever_sentence(report)),
        ("power", words.power_sentence(report)),
    ]
    for name, value in rows:
        if value not in ("", words.percent(None)):
            table.add_row(name, value)
    for group in by_place(report.masking):
        table.add_row("", "")
        first, harms = group[0], ", ".join(words.MECHANISMS[f.mechanism] for f in group).capitalize()
        operation = f" · {first.operation}" if first.operation else ""
        table.add_row("masked", Text(harms + operation, style="red"))
        table.add_row("", place(first))
        if first.code:
            table.add_row("", Text("  " + first.code.strip(), style="bold"))
        for finding in group:
            table.add_row("", finding.symptom)
        for repair in repairs(group):
            table.add_row("", f"repair: {repair}")
    for fact in report.facts:
        table.add_row("fact", words.fact_sentence(fact))
    table.add_row("", "")
    failed = [c for c in report.controls if c.passed is False]
    if report.controls:
        table.add_row("controls", words.controls_sentence(report))
    for control in failed:
        table.add_row(
            "",
            Text(
                f"{control.name}: {words.number(control.value)}, expected {control.expected}", style="yellow"
            ),
        )
    cost = report.cost
    spent = f"{cost.forwards:,} forwards, {cost.backwards:,} backwards, {cost.judge_forwards:,} to judge"
    table.add_row("cost", f"{spent}, {cost.seconds:.1f} s")
    for warning in report.warnings:
        table.add_row("warning", Text(warning, style="yellow"))
    for number, file in enumerate(files):
        table.add_row("files" if not number else "", str(file))
    show_table(table, out)
