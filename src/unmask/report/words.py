"""The sentences in which terminal and page say the same thing."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from ..audit.records import Fact, Report, ThreatRecord
from ..audit.verdict import contradictions, undecided
from ..errors import plural
from ..statistics import clopper_pearson

NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1"}
COUNTS = {"l0": "pixels changed", "l0-elements": "elements changed", "patch": "patch side"}
HEADLINES = {
    "refuted": "Refuted",
    "not_refuted": "Not refuted",
    "certified": "Certified",
    "inconclusive": "Inconclusive",
}
MECHANISMS = {
    "shattered": "Shattered gradient",
    "vanishing": "Vanishing gradient",
    "exploding": "Exploding gradient",
    "stochastic": "Stochastic gradient",
    "detector": "Detector",
    "evaluation": "Defect of the evaluation",
}


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a percentage.

    >>> percent(0.8333), percent(None), percent(1.0)
    ('83.3 %', '–', '100 %')
    """
    if share is None:
        return "–"
    return f"{100 * share:.{digits}f}".removesuffix(".0").removesuffix(".00") + " %"


def number(value: Any) -> str:
    """A statistic as people read it.

    >>> number(0.98214), number(12345), number(None), number("round")
    ('0.982', '12,345', '–', 'round')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def of(share: float, report: Report) -> str:
    """How many of the examples a share is; of a random network, a mean rate of failures, only of how many."""
    n = report.examples
    return f"of {n}" if report.stochastic else f"{round(share * n)} of {n}"


def class_name(report: Report, label: int) -> str:
    """A class by its name, where the data set has one, with its number."""
    names = report.class_names
    return f"{names[label]} ({label})" if 0 <= label < len(names) else str(label)


def radius(epsilon: float) -> str:
    """A radius as people write it, exactly: in 255ths where it is a whole number of them.

    >>> radius(8 / 255), radius(0.3), radius(0)
    ('8/255', '0.3', '0')
    """
    steps, short = round(epsilon * 255), f"{epsilon:.4g}"
    if float(short) == epsilon:
        return short
    return f"{steps}/255" if steps / 255 == epsilon else repr(epsilon)


def ball(threat: ThreatRecord) -> str:
    r"""What the adversary may do, in a few words.

    >>> ball(ThreatRecord(norm="l0", epsilon=5)), ball(ThreatRecord(norm="patch", epsilon=3))
    ('pixels changed\xa0≤\xa05', 'patch side\xa0≤\xa03')
    """
    name = NORMS.get(threat.norm) or COUNTS[threat.norm]
    if threat.radii is not None:
        each = f"{radius(min(threat.radii))} to {radius(max(threat.radii))}"
        return f"{name} of radii {each}, one for each channel or feature"
    return f"{name}\u00a0≤\u00a0{radius(threat.epsilon)}"


def epsilon_option(threat: ThreatRecord) -> str:
    """What stands behind `--epsilon`.

    >>> epsilon_option(ThreatRecord(norm="l2", epsilon=0.5, radii=[0.5, 0.0]))
    '0.5,0'
    """
    return ",".join(radius(r) for r in threat.radii or [threat.epsilon])


def headline(report: Report) -> str:
    """The verdict in a word or two; what was given no claim has none, and was measured.

    An audit that proves nothing says so either way.
    """
    if report.claim is None and report.verdict == "not_refuted":
        return "Measured"
    return HEADLINES[report.verdict]


def power_sentence(report: Report) -> str:
    """Which claims these few examples could refute at all, whatever an attack finds; empty without a claim.

    Even if no example survives, the exact interval of 0 of n ends above zero, and a claim below that end stands.
    """
    if report.claim is None:
        return ""
    least = clopper_pearson(0, report.examples)[1]
    if report.claim <= least:
        return (
            f"{report.examples} examples cannot refute a claim of {percent(report.claim)}, even if none survives: give "
            f"more, for the smallest claim that they can refute lies above {percent(least)}."
        )
    # The upper end grows with k, so the largest k below the claim is found by halving.
    survive = bisect_left(
        range(report.examples), report.claim, key=lambda k: clopper_pearson(k, report.examples)[1]
    )
    survive -= 1
    return (
        f"{report.examples} examples refute this claim if at most {survive} {plural(survive, 'survives', 'survive')}; "
        f"no claim up to {percent(least)} can be refuted by so few."
    )


def verdict_sentence(report: Report) -> str:
    """What the verdict means, in one or two sentences."""
    low, high = report.robust_accuracy_interval
    aimed = report.threat.goal == "targeted"
    chosen = f"{report.examples} examples" + (" drawn at random" if report.sample_seed is not None else "")
    survivors = f"At most {percent(report.robust_accuracy)} of {chosen}"
    survivors += " stay clear of their target within" if aimed else " survive"
    if report.robust_accuracy == 0:
        survivors = f"None of {chosen}"
        survivors += " stays clear of its target within" if aimed else " survives"
    bound = f"{survivors} {ball(report.threat)}{_adversary(report)} (95 % interval {percent(low)} to {percent(high)})."
    claim = percent(report.claim)
    if report.verdict == "refuted":
        return f"The claim of {claim} does not hold. {bound}"
    if report.verdict == "certified":
        by = f" by {report.certificate}" if report.certificate else ""
        return (
            f"The claim of {claim} is proved: {percent(report.certified_accuracy)} are certified{by}. {bound}"
        )
    if report.verdict == "inconclusive":
        failed, against = undecided(report.controls), contradictions(report)
        why = f"the control “{failed[0].name}” failed" if failed else "the run was cut short"
        return f"Nothing follows from what survived: {against[0] if against else why}. {bound}"
    if report.claim is None:
        return f"No claim was given. {bound}"
    return f"The attacks tried did not refute the claim of {claim}. {bound} This is no proof of robustness."


def _adversary(report: Report) -> str:
    """Who attacks, if it is not one who sees the network."""
    if report.knowledge == "white-box":
        return ""
    limit = f" by at most {report.queries.limit} queries" if report.queries and report.queries.limit else ""
    return f" against one who is told {report.knowledge}{limit}"


def naive_sentence(report: Report) -> str:
    """What an ordinary attack would have reported, and how far that is off."""
    if report.naive_robust_accuracy is None:
        return ""
    gap = report.naive_robust_accuracy - report.robust_accuracy
    naive = percent(report.naive_robust_accuracy)
    if report.knowledge != "white-box":
        return f"A standard attack that sees the network reports {naive}; it does not count here."
    if report.masking and gap > 0:
        return (
            f"A standard attack reports {naive}: {100 * gap:.1f} points too many, for its gradient is masked."
        )
    if gap > 0:
        return f"A standard attack alone reports {naive}."
    return f"A standard attack reports the same, {naive}."


def fact_sentence(fact: Fact) -> str:
    """What is so, and where, without blame."""
    where = f" ({fact.file}:{fact.line})" if fact.file and fact.line else ""
    return f"{fact.operation or 'the network'} {fact.statement}{where}"


def controls_sentence(report: Report) -> str:
    """How many controls passed, and what those that failed mean for the verdict."""
    failed = [c for c in report.controls if c.passed is False]
    against = undecided(failed)
    idle = [c for c in failed if c.role is None and c not in against]
    passed = [(sum(c.passed is True for c in report.controls), "passed")]
    explained = "explained by what was found" if report.masking else "answered by what was tried then"
    still = "failed and open" + ", for what was missed could only refute more" * (report.verdict == "refuted")
    roles = [
        (sum(c.role == "symptom" for c in failed), explained),
        (len(against), still),
        (len(idle), f"failed, and nothing rests on {plural(len(idle), 'it', 'them')}"),
    ]
    return "; ".join(f"{n} {what}" for n, what in [*passed, *((n, what) for n, what in roles if n)])


def clever_sentence(report: Report) -> str:
    """CLEVER's median and what the audit knows against it; empty where it was not estimated."""
    found = report.clever
    if found is None or found.median is None:
        return ""
    whole = " (the whole ball)" if found.median >= report.threat.epsilon else ""
    return (
        f"median {found.median:.3g}{whole} on {found.examples} examples: {found.refuted} refuted, {found.unreliable} "
        f"unreliable, {found.unrefuted} unrefuted; an estimate, no bound"
    )


def reproduce_commands(report: Report, folder: str = "DIR") -> list[str]:
    """The commands that repeat this audit and check its evidence."""
    import shlex

    threat, environment = report.threat, report.environment
    words = ["unmask", "audit", report.target, "--data", report.data]
    words += ["--split", report.split] if report.split else []
    words += ["--norm", threat.norm, "--epsilon", epsilon_option(threat), "--examples", str(report.examples)]
    words += ["--goal", threat.goal, "--targets", str(report.targets)] if report.targets is not None else []
    words += ["--knowledge", report.knowledge] if report.knowledge != "white-box" else []
    words += ["--queries", str(report.queries.limit)] if report.queries and report.queries.limit else []
    words += ["--claim", f"{report.claim:g}"] if report.claim is not None else []
    words += ["--passes", str(report.passes)] if report.passes > 1 else []
    words += ["--average", report.average] if report.average is not None else []
    words += ["--budget", report.budget] + ["--exhaustive"] * report.exhaustive
    words += ["--seed", str(environment.seed), "--batch-size", str(environment.batch_size)]
    words += ["--device", environment.device, "--out", folder]
    return [shlex.join(words), shlex.join(["unmask", "verify", folder])]
