"""`attack.py`: chooses what of an audit's gradients can be spelt out, and writes the script."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from ...audit.records import AttackRecord, Report
from ...tracing.repair.surrogates.order import SORTABLE
from .. import words
from ..html import place
from .source import CannotWrite, Source, gradient_source, python

# Gradients that a script follows, one after the other, on what those before left; one whose race left at most `ENOUGH`
# needs no other. Ours.
MOST, ENOUGH = 3, 0.05
# Steps of each ascent, and other classes that are aimed at.
STEPS, CLASSES = 60, 9
# Of the template: each is written only where a gradient asks for it.
PARTS = (
    *(
        "mode",
        "companions",
        "choice",
        "finite",
        "bridges",
        "uncut",
        "own_forward",
        "opaque",
        "hooks",
        "modules",
        "attention",
    ),
    *("float64", "widened", "smoothed", "differences", "eot"),
)


@dataclass(frozen=True)
class Script:
    """A script's text, and what could not be written into it.

    **Fields**
    - `gradients`: names of those that it follows; empty where it only replays the evidence.
    - `left_out`: gradients that the audit won with and that no plain code could be written for.
    - `not_run`: stages of the audit that broke examples and that the script does not run.
    - `theirs`: share of the examples that those stages broke, in [0, 1].
    """

    text: str
    gradients: tuple[str, ...]
    left_out: tuple[str, ...]
    not_run: tuple[str, ...] = ()
    theirs: float = 0.0


def write_script(
    report: Report,
    gradients: Mapping[str, Any],
    *,
    target: str,
    script_file: str,
    data_file: str,
    imports_unmask: bool,
    classes: int,
    from_script: str = "",
) -> Script:
    """The script's text.

    **Arguments**
    - `gradients`: `gradients.json` of the audit.
    - `target`: `file.py:callable` or `module:callable`.
    - `imports_unmask`: whether the target's own file imports `unmask`.
    - `classes`: how many there are.
    - `from_script`: the target's file as seen from the script's folder; empty where it is a module.
    """
    source, chosen, left_out, enough = Source(), [], [], False
    for entrant in _order(gradients["entrants"]):
        if len(chosen) >= MOST or (chosen and enough):
            break
        attempt = Source(
            set(source.uses),
            list(source.functions),
            dict(source.bridged),
            list(source.setup),
            set(source.own_forward),
        )
        try:
            code = gradient_source(
                entrant["gradient"], entrant["name"].removeprefix("EOT, "), attempt, gradients
            )
        except CannotWrite:
            if entrant["winner"] is not None:
                left_out.append(entrant["name"])
            continue
        source = attempt
        chosen.append((entrant["name"], code))
        enough = entrant["left"] is not None and entrant["left"] <= ENOUGH
    text = _rendered(
        report,
        gradients,
        source,
        chosen,
        left_out,
        target,
        from_script,
        script_file,
        data_file,
        imports_unmask,
        classes,
    )
    others = _not_run(report, source)
    theirs = sum(a.newly_broken for a in others) / max(1, report.examples)
    return Script(text, tuple(name for name, _ in chosen), tuple(left_out), _recipes(others), theirs)


def _not_run(report: Report, source: Source) -> list[AttackRecord]:
    """The stages that broke examples otherwise than by an ascent such as the script's."""
    repeated = (None, "autograd", *(("differences",) if "differences" in source.uses else ()))
    return [a for a in report.attacks if a.newly_broken and a.ascent not in repeated]


def _recipes(stages: Sequence[AttackRecord]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_plain(a.recipe) for a in stages))


def _order(entrants: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Winners first, then by what the race left, then what it did not come to; the exact gradient where it is due."""
    others = [e for e in entrants if e["winner"] is None and not _exact(e["gradient"])]
    raced = sorted((e for e in others if e["left"] is not None), key=lambda e: e["left"])
    won = sorted((e for e in entrants if e["winner"] is not None), key=lambda e: e["winner"])
    return [*won, *raced, *(e for e in others if e["left"] is None)]


def _exact(told: Mapping[str, Any]) -> bool:
    """Whether it is the network's own gradient, averaged over its draws or not."""
    return _exact(told["inner"]) if told["kind"] == "EOT" else told["kind"] == "Exact"


# --- the text -------------------------------------------------------------------------------------------------------


def _rendered(
    report: Report,
    gradients: Mapping[str, Any],
    source: Source,
    chosen: Sequence[tuple[str, str]],
    left_out: Sequence[str],
    target: str,
    from_script: str,
    script_file: str,
    data_file: str,
    imports_unmask: bool,
    classes: int,
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("unmask.report"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,
    )
    environment.filters["py"] = python
    uses = {name: name in source.uses for name in PARTS}
    reads = gradients["reads"]
    uses["undisturbed"] = reads.get("undisturbed", False)  # older audits knew of no such network
    uses["mode"] |= uses["opaque"]
    text = environment.get_template("attack.py.jinja").render(
        report=report,
        title=f"How {_plain(target)} is broken." if report.masking else f"How {_plain(target)} is attacked.",
        told="\n".join(
            _wrapped(_plain(f"{words.verdict_sentence(report)} {words.naive_sentence(report)}"), "")
        ),
        words=_story(report, chosen, left_out),
        target=target,
        from_script=from_script,
        not_run=_recipes(_not_run(report, source)),
        script_file=script_file,
        data_file=data_file,
        uses=uses,
        sortable=SORTABLE,
        functions=source.functions,
        bridged={name: source.bridged[name] for name in source.bridged},
        setup=list(dict.fromkeys(source.setup)),
        gradients=chosen,
        steps=3 * STEPS if reads["detector"] else STEPS,  # both have to be fooled
        batch=max(1, report.environment.batch_size),
        draws=16 if report.stochastic else 1,
        targeted=report.threat.goal == "targeted",
        stateful=bool(report.environment.state),
        alone=reads["alone"],
        probabilities=reads["probabilities"],
        averaged=report.average or ("probabilities" if reads["probabilities"] else "logits"),
        detector=reads["detector"],
        imports_unmask=imports_unmask,
        first_class=1,
        last_class=1 + min(CLASSES, classes - 1),
    )
    return re.sub(r"\n{4,}", "\n\n\n", text).rstrip() + "\n"


def _plain(text: str) -> str:
    return text.replace("\u00a0", " ").replace("\\", "/").replace('"', "'")


def _story(report: Report, chosen: Sequence[tuple[str, str]], left_out: Sequence[str]) -> list[str]:
    """The findings and what is done about them, wrapped for a docstring."""
    lines: list[str] = []
    for finding in report.masking:
        where = place(finding) if finding.file else finding.module or "no line of its own"
        lines += [f"{words.MECHANISMS[finding.mechanism]} at {_plain(where)}"]
        lines += [f"    {finding.code.splitlines()[0].split('  #')[0].strip()}"] if finding.code else []
        lines += _wrapped(f"{finding.symptom}; repair: {finding.repair or 'none'}.", "    ")
    if not report.masking:
        lines.append("No operation of this network was found to mislead the gradient.")
    lines.append("")
    if chosen:
        lines += _wrapped(
            "Followed here, one after the other: " + "; ".join(name for name, _ in chosen) + ".", ""
        )
    else:
        lines.append("Nothing of that can be written as plain code: the audit's own points are replayed.")
    if left_out:
        lines += _wrapped(f"Not written as plain code: {'; '.join(left_out)}.", "")
    return [_plain(line).replace("\\", "/") for line in lines]


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent=indent, subsequent_indent=indent)
