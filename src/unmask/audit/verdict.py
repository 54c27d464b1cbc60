"""The rule that turns an audit's numbers into a verdict; there is no other.

It takes nothing but the report, so that whoever holds one can state its verdict again. It needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from .records import Control, Report, Verdict

# Accuracies are means of float32 rates: they miss a share of n by rounding error, which is no difference.
ROUNDING = 1e-6


def verdict(
    *,
    claim: float | None,
    interval: tuple[float, float],
    certified_accuracy: float | None = None,
    controls: Sequence[Control] = (),
    contradictions: Sequence[str] = (),
) -> Verdict:
    """The verdict that follows from these numbers.

    1. `refuted`: even the upper end of the interval of robust accuracy lies below the claim. Adversarial examples are
       proofs, so neither a failed control nor a contradiction can undo this: both could only lower the number.
    2. `inconclusive`: the numbers contradict each other.
    3. `certified`: the certified accuracy reaches the claim.
    4. `inconclusive`: a control has failed and no masking that was found and repaired explains it (`undecided`). Then
       not breaking proves nothing.
    5. `not_refuted`: otherwise. It does not say "robust".

    Without a claim only 2, 4 and 5 apply.

    **Arguments**
    - `claim`, `certified_accuracy`: in [0, 1]; None for none.
    - `interval`: of robust accuracy, lower and upper end.
    - `contradictions`: as `contradictions` of a report finds them.
    """
    if claim is not None and interval[1] < claim:
        return "refuted"
    if contradictions:
        return "inconclusive"
    if claim is not None and certified_accuracy is not None and certified_accuracy >= claim:
        return "certified"
    return "inconclusive" if undecided(controls) else "not_refuted"


def verdict_of(report: Report) -> Verdict:
    """The verdict that follows from a report's own numbers, whatever verdict it states."""
    return verdict(
        claim=report.claim,
        interval=report.robust_accuracy_interval,
        certified_accuracy=report.certified_accuracy,
        controls=report.controls,
        contradictions=contradictions(report),
    )


def undecided(controls: Sequence[Control]) -> list[Control]:
    """The failed controls after which not breaking proves nothing.

    Those that the audit calls open; of an audit that did not sort them, the decisive ones.
    """
    return [
        control
        for control in controls
        if control.passed is False and (control.role == "open" or (control.role is None and control.decisive))
    ]


def contradictions(report: Report) -> list[str]:
    """What a report says against itself, a sentence each; of a sound audit none.

    Robust accuracy is an upper bound that the worst points of all examples give. So it is at most the accuracy on the
    images as they came, which lie in the ball; at most what the standard attack left; at most what the curve leaves at
    a radius inside the ball; and at least what is certified. What draws random numbers is measured with noise on both
    sides: there only the certificate is compared, with the interval's upper end.
    """
    found, robust = [], report.robust_accuracy
    proved = report.certified_accuracy
    bound = report.robust_accuracy_interval[1] if report.stochastic else robust
    if proved is not None and proved > bound + ROUNDING:
        found.append(f"{proved:.1%} are certified, but attacks leave only {robust:.1%}")
    if report.stochastic:
        return found
    if report.threat.goal == "untargeted" and robust > report.clean_accuracy + ROUNDING:
        clean = report.clean_accuracy
        found.append(f"more survive the attack ({robust:.1%}) than are right without one ({clean:.1%})")
    naive = report.naive_robust_accuracy
    if naive is not None and report.knowledge == "white-box" and robust > naive + ROUNDING:
        found.append(f"the standard attack alone leaves {naive:.1%}, and all attacks together {robust:.1%}")
    # Under a limit on queries the curve's adversary has spent the whole of it on each radius.
    limited = report.queries is not None and report.queries.limit is not None
    for point in () if limited else report.accuracy_against_epsilon:
        if point.examples is None or point.epsilon > report.threat.epsilon * (1 + ROUNDING):
            continue
        # Whoever fell on the curve fell within the ball.
        most = 1 - (1 - point.accuracy) * point.examples / report.examples
        if robust > most + ROUNDING:
            found.append(
                f"the curve alone leaves at most {most:.1%} at radius {point.epsilon:.6g}, and all attacks together "
                f"{robust:.1%}"
            )
    return found
