"""Several audits side by side: their numbers, and which examples broke where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from ..audit.records import Report
from .words import ball, headline, percent


@dataclass(frozen=True)
class Overlap:
    """Of two audits of the same examples: how many broke in both, in one alone, in neither."""

    first: str
    second: str
    both: int
    first_alone: int
    second_alone: int
    neither: int


def rows(reports: Mapping[str, Report]) -> list[tuple[str, list[str]]]:
    """Lines of a table: what is compared, and a value for each audit."""
    each = list(reports.values())

    def line(title: str, values: Sequence[str]) -> tuple[str, list[str]]:
        return title, list(values)

    return [
        line("target", [r.target for r in each]),
        line("data", [f"{r.data} {r.split}".strip() for r in each]),
        line("threat", [ball(r.threat) for r in each]),
        line("examples", [str(r.examples) for r in each]),
        line("verdict", [headline(r) for r in each]),
        line("claim", [percent(r.claim) for r in each]),
        line("clean accuracy", [percent(r.clean_accuracy) for r in each]),
        line("standard attack leaves", [percent(r.naive_robust_accuracy) for r in each]),
        line("robust accuracy, at most", [percent(r.robust_accuracy) for r in each]),
        line("95 % interval", [" to ".join(map(percent, r.robust_accuracy_interval)) for r in each]),
        line("certified, at least", [percent(r.certified_accuracy) for r in each]),
        line(
            "masking",
            [", ".join(dict.fromkeys(m.mechanism for m in r.masking)) or "none found" for r in each],
        ),
        line("passes, forward and backward", [f"{r.cost.forwards} + {r.cost.backwards}" for r in each]),
    ]


def overlaps(reports: Mapping[str, Report], broken: Mapping[str, frozenset[int]]) -> list[Overlap]:
    """Pairs of audits that saw the same examples: same data, split, number and seed.

    **Arguments**
    - `broken`: of each audit, the places in the data set of the examples that are mostly wrong.
    """
    found = []
    for first, second in combinations(reports, 2):
        a, b = reports[first], reports[second]
        if _sample(a) != _sample(b):
            continue
        both = broken[first] & broken[second]
        found.append(
            Overlap(
                first,
                second,
                both=len(both),
                first_alone=len(broken[first] - both),
                second_alone=len(broken[second] - both),
                neither=a.examples - len(broken[first] | broken[second]),
            )
        )
    return found


def unmatched(reports: Mapping[str, Report]) -> list[tuple[str, str, str]]:
    """Pairs of audits that saw other examples, and in words what differs."""
    names = ("data", "split", "number of examples", "seed")
    found = []
    for first, second in combinations(reports, 2):
        each = zip(names, _sample(reports[first]), _sample(reports[second]), strict=True)
        if differing := [name for name, a, b in each if a != b]:
            found.append((first, second, " and ".join(differing)))
    return found


def _sample(report: Report) -> tuple[object, ...]:
    return report.data, report.split, report.examples, report.environment.seed
