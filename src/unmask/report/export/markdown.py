"""A report as Markdown, for a pull request or an issue."""

from __future__ import annotations

from ...audit.records import Report
from ..places import by_place
from ..words import (
    MECHANISMS,
    headline,
    naive_sentence,
    number,
    percent,
    reproduce_commands,
    verdict_sentence,
)


def markdown(report: Report) -> str:
    """Verdict, findings, attacks and controls; headings start at the second level."""
    lines = [f"## {headline(report)}: {_code(report.target)}", "", verdict_sentence(report)]
    lines += [naive_sentence(report), ""]
    if report.masking:
        lines += ["### Where the gradient is masked", ""]
        for group in by_place(report.masking):
            found, harms = group[0], ", ".join(MECHANISMS[f.mechanism] for f in group).capitalize()
            place = f" at {_code(f'{found.file}:{found.line}')}" if found.file else ""
            place += f", inside {_code(found.inside)}" if found.inside else ""
            lines.append(f"- **{harms}**{place}: {_text('; '.join(f.symptom for f in group))}")
            lines += [f"  `{found.code.strip()}`"] if found.code and "`" not in found.code else []
        lines.append("")
    lines += [
        f"### Attacks, of {report.examples} examples",
        "",
        "| attack | leaves | newly broken |",
        "|---|---:|---:|",
    ]
    lines += [
        f"| {_text(a.recipe)} | {percent(a.robust_accuracy)} | {a.newly_broken} |" for a in report.attacks
    ]
    lines += ["", "### Controls", "", "| control | outcome | value |", "|---|---|---|"]
    outcome = {True: "passed", False: "**failed**", None: "does not apply"}
    lines += [
        f"| {_text(c.name)} | {outcome[c.passed]} | {_text(number(c.value))} |" for c in report.controls
    ]
    lines += ["", "### Again", "", "```", *reproduce_commands(report), "```", ""]
    return "\n".join(lines)


def _text(text: str) -> str:
    """Text that no table or page takes for its own signs."""
    for sign in "\\|*_<>[]":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def _code(text: str) -> str:
    return f"`{text}`" if "`" not in text else _text(text)
