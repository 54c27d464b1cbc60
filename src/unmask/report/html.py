"""`report.html`: one offline file, read in a minute. Nothing fetched, all text escaped; its one script, ours, sorts."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ..audit.records import Control, MaskingFinding, Report
from ..report import plots, radius, words
from .glossary import TERMS
from .places import by_place, repairs

FILE = "report.html"
_PACKAGES = re.compile(r".*[/\\\\](?:site|dist)-packages[/\\\\]")
CONTEXT = 2  # source lines shown before and after a finding
IMAGES = 8
ROWS = 2000  # of the table of examples; more would be slow to scroll


@dataclass(frozen=True)
class SourceLine:
    """A line of the user's source, and whether it is the one to blame."""

    number: int
    text: str
    guilty: bool


def write_html(folder: str | os.PathLike[str], report: Report) -> Path:
    """Writes `report.html` into `folder`, whole or not at all."""
    path = Path(folder, FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{FILE}.{os.getpid()}")
    temporary.write_text(render(report, str(folder)), encoding="utf-8")
    temporary.replace(path)
    return path


def render(report: Report, folder: str = "DIR") -> str:
    """The page as text. Reads the source files that the findings name, where they are still there."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("unmask.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(percent=words.percent, radius=words.radius, number=words.number)
    rows = radius.rows(report.table)[:ROWS] if report.table else []
    # Sorting needs the one script; its hash in the page's own policy lets no other run.
    script = (Path(__file__).parent / "templates" / "sort.js").read_text(encoding="utf-8") if rows else ""
    return environment.get_template("report.html.jinja").render(
        report=report,
        rows=rows,
        shown=len(rows),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        terms=TERMS,
        explained=_explained,
        named=lambda label: words.class_name(report, label),
        of=lambda share: words.of(share, report),
        controls=_groups(report),
        headline=words.headline(report),
        sentence=words.verdict_sentence(report),
        naive=words.naive_sentence(report),
        power=words.power_sentence(report),
        clever=words.clever_sentence(report),
        ball=words.ball(report.threat),
        mechanisms=words.MECHANISMS,
        bars=_bars(report),
        findings=[
            (group, place(group[0]), source_lines(group[0], _beside(report)), repairs(group))
            for group in by_place(report.masking)
        ],
        facts=[words.fact_sentence(fact) for fact in report.facts],
        figures=_figures(report),
        images=[
            (triple, *plots.image_row(triple))
            for triple in report.images[:IMAGES]
            if triple.clean and triple.adversarial
        ],
        commands=words.reproduce_commands(report, folder),
    )


def source_lines(finding: MaskingFinding, beside: Path | None = None) -> list[SourceLine]:
    """The guilty line with its neighbours; the line alone where its file has changed or is gone.

    Looked for from the working directory, and in the folder `beside` the target.
    """
    if finding.line is None:
        return []
    alone = [SourceLine(finding.line, finding.code or "", True)]
    if finding.file is None:
        return alone
    last = finding.end_line or finding.line
    places = [Path(finding.file)] + ([] if beside is None else [beside / finding.file])
    lines = next((found for path in places if (found := _same(path, finding, last))), None)
    if lines is None:
        return alone
    start, stop = max(1, finding.line - CONTEXT), min(len(lines), last + CONTEXT)
    while start < finding.line and not lines[start - 1].strip():
        start += 1
    while stop > last and not lines[stop - 1].strip():
        stop -= 1
    return [SourceLine(n, lines[n - 1], finding.line <= n <= last) for n in range(start, stop + 1)]


def _same(path: Path, finding: MaskingFinding, last: int) -> list[str] | None:
    """The lines of a file, if the finding's own is still among them."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    assert finding.line is not None
    if not 0 < finding.line <= last <= len(lines):
        return None
    code = finding.code.splitlines()[0].strip() if finding.code else ""
    return lines if code in lines[finding.line - 1] else None


def _beside(report: Report) -> Path | None:
    """The folder of the target's file; None where it is named as a module or not at all."""
    file = Path(report.target.partition(" + ")[0].rpartition(":")[0]).expanduser()
    return file.parent if file.suffix == ".py" else None


def place(finding: MaskingFinding) -> str:
    """`file:line`, relative to the working directory where the file is inside it, and what it calls in a library."""
    if finding.file is None:
        return finding.module or "place unknown"
    path = Path(finding.file)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    where = str(path) if finding.line is None else f"{path}:{finding.line}"
    return where if finding.inside is None else f"{where}, inside {_PACKAGES.split(finding.inside)[-1]}"


def _bars(report: Report) -> list[tuple[str, float, str, str]]:
    """Name, share, kind and term of each accuracy that is known."""
    worst = (
        ("repaired attacks", "repaired attack")
        if report.masking
        else ("all attacks", "accuracy under attack")
    )
    rows = [
        ("clean images", report.clean_accuracy, "plain", ""),
        ("claimed", report.claim, "claim", ""),
        ("standard attack", report.naive_robust_accuracy, "plain", "standard attack"),
        (worst[0], report.robust_accuracy, "worst", worst[1]),
        ("certified", report.certified_accuracy, "plain", "certified"),
    ]
    return [(name, share, kind, term) for name, share, kind, term in rows if share is not None]


def _explained(text: str, term: str) -> Markup:
    """The text, as a link to its term in the glossary if it has one.

    >>> _explained("Controls", "control")
    Markup('<a href="#term-12">Controls</a>')
    """
    if term not in TERMS:
        return escape(text)
    return Markup('<a href="#term-{}">{}</a>').format(list(TERMS).index(term) + 1, text)


def _groups(report: Report) -> list[tuple[str, str, list[Control]]]:
    """Title, what it means, and the controls: what failed first."""
    controls = report.controls
    failed = [c for c in controls if c.passed is False]
    unexplained = "unexplained, so that not breaking proves nothing"
    if report.verdict == "refuted":
        unexplained = "unexplained: what was missed could only refute more"
    groups = [
        ("Open", unexplained, [c for c in failed if c.role == "open"]),
        (
            "Symptoms of the masking found" if report.masking else "Answered by what was tried then",
            "failed along the network's own gradient; the attacks were repaired and went on"
            if report.masking
            else "failed at first; asked again of all that the attacks found, they pass",
            [c for c in failed if c.role == "symptom"],
        ),
        ("Failed, and nothing rests on it", "", [c for c in failed if c.role is None]),
        ("Passed", "", [c for c in controls if c.passed]),
        ("Not applicable", "", [c for c in controls if c.passed is None]),
    ]
    return [group for group in groups if group[2]]


def _figures(report: Report) -> list[tuple[str, Any]]:
    figures = []
    if report.table is not None and report.table.distance:
        drawn = radius.accuracy_against_radius(
            report.table, report.threat.epsilon, report.claim, bool(report.masking)
        )
        figures.append(("Accuracy against radius", drawn))
    elif report.accuracy_against_epsilon:
        drawn = plots.accuracy_against_epsilon(
            report.accuracy_against_epsilon, report.threat.epsilon, report.claim
        )
        figures.append(("Accuracy against radius", drawn))
    if report.accuracy_against_cost:
        drawn = plots.accuracy_against_cost(report.accuracy_against_cost, report.examples, report.claim)
        figures.append(("Accuracy against compute", drawn))
    if report.gradient_histogram is not None:
        figures.append(("The gradient, before repair", plots.gradient_histogram(report.gradient_histogram)))
    return figures
