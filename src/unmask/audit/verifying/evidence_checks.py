"""What `unmask verify` looks at, one question a function: evidence, report, network and data against each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import hypergeom, norm
from scipy.stats import t as student
from torch import Tensor

from ...claim.target_classes import choose
from ...data import Data
from ...errors import plural
from ...statistics import clopper_pearson, mean_interval
from ..evidence import Evidence, final_draws
from ..records import Report
from ..verdict import verdict_of
from .deployed import Predict

ROUNDING = 1e-9  # relative slack of a float64 sum over a million pixels
DRAWS = 20  # fresh draws per example of a random network
ALARM = 1e-3  # chance that sound evidence of a random network is doubted, for each of its checks


@dataclass(frozen=True)
class Check:
    """One thing looked at: what it is, whether it holds, and what was found."""

    name: str
    holds: bool
    found: str


def lengths(x_adv: Tensor, x: Tensor, norm: str, radii: list[float] | None = None) -> Tensor:
    """Length `[n]` of each perturbation in a norm, in float64; of few pixels or a patch, how many or how wide.

    `radii`, one for each channel or feature, are measured in units of the largest; what has none must not move.
    """
    if norm in ("l0", "l0-elements", "patch"):
        return torch.tensor([_count(one, norm) for one in (x_adv != x).numpy()], dtype=torch.float64)
    delta = (x_adv.double() - x.double()).abs()
    if radii is not None:
        each = torch.tensor(radii, dtype=torch.float64).reshape(1, -1, *[1] * (x.ndim - 2)).expand_as(delta)
        delta = torch.where(delta == 0, 0.0, delta * max(radii) / each)  # what is divided by zero is infinite
    delta = delta.flatten(1)
    if norm == "linf":
        return delta.amax(1)
    return delta.sum(1) if norm == "l1" else delta.square().sum(1).sqrt()


def _count(changed: np.ndarray, norm: str) -> int:
    """Of one example `[channels, …]` or `[features]`: changed elements, changed pixels, or the side around all."""
    if norm == "l0-elements":
        return int(changed.sum())
    pixels = changed if changed.ndim == 1 else np.asarray(changed.any(axis=0))
    if norm == "l0":
        return int(pixels.sum())
    return max((int(np.ptp(places)) + 1 for places in np.nonzero(pixels) if len(places)), default=0)


def met(
    logits: Tensor, answered: Tensor, *, label: Tensor | None = None, target: Tensor | None = None
) -> Tensor:
    """1 for each `[n]` where the adversary has what he wants: another class than the label, or the target; else 0."""
    classes = logits.argmax(1)
    return ((classes == target if label is None else classes != label) & answered).double()


def targets_by_rule(report: Report, data: Data, predict: Predict) -> Tensor:
    """The classes to reach, of all examples, by the rule that the report states."""
    assert report.targets is not None
    logits, _ = predict(data.x)
    return choose(report.targets, data.y, data.index, seed=report.environment.seed, logits=logits)


def plausible(failures: Tensor, draws: int, evidence: Evidence) -> Tensor:
    """Exact two-sample test per example: can it fail that rarely if the stated rate is true."""
    stated = (evidence.failure_rate.double() * evidence.draws).round()
    total = evidence.draws + draws
    chance = hypergeom.cdf(failures.numpy(), total, (stated + failures).numpy(), draws)
    return torch.from_numpy(chance >= ALARM / max(1, len(failures)))


def mean_rate(failed: Tensor, evidence: Evidence) -> Check:
    """Whether all examples together fail about as often as stated.

    Examples may draw together, as where a coin is tossed once for a whole batch. Then their mean varies from draw to
    draw by more than draws of each example's own explain, and that is what it is held to.

    **Arguments**
    - `failed`: `[draws, n]`, whether each example failed at each draw.
    """
    draws, n = failed.shape
    failures, stated = failed.double().sum(0), evidence.failure_rate.double()
    pooled = (stated * evidence.draws + failures) / (evidence.draws + draws)
    both = 1 / draws + 1 / evidence.draws
    apart = float((pooled * (1 - pooled) * both).sum().sqrt())
    together = float(failed.double().sum(1).std()) * both**0.5 if draws > 1 else 0.0
    # Two-sided, ALARM: of the normal distribution, and of Student's, for the spread comes from few draws.
    allowed = max(
        float(norm.isf(ALARM / 2)) * apart, float(student.isf(ALARM / 2, max(1, draws - 1))) * together
    )
    holds = bool((stated.sum() - failures.sum() / draws).abs() <= allowed + ROUNDING)
    count = max(1, n)
    found = f"stated {stated.sum() / count:.4f}, fresh {failures.sum() / draws / count:.4f}"
    return Check("mean failure rate", holds, found)


def same_run(report: Report, evidence: Evidence, hashed: str) -> Check:
    """Whether report, evidence and network are of one audit."""
    said = ("threat", "data", "split", "target", "passes", "average")
    stated = (evidence.checkpoint_hash, *(getattr(evidence, name) for name in said))
    reported = (report.environment.checkpoint_hash, *(getattr(report, name) for name in said))
    aims = report.threat.goal == "targeted"
    if stated != reported or aims != (evidence.targets is not None) or aims != (report.targets is not None):
        return Check("one audit", False, "report.json and evidence.safetensors are of different audits")
    same = hashed == evidence.checkpoint_hash
    return Check("checkpoint", same, hashed[:12] or "no parameters" if same else "not the audited one")


def draws_by_rule(report: Report, evidence: Evidence) -> Check:
    """The number of draws follows from the rule; a file that states more would make its rates look surer."""
    rule = final_draws(report.passes, stochastic=report.stochastic)
    found = f"{evidence.draws}" if evidence.draws == rule else f"stated {evidence.draws}, by the rule {rule}"
    return Check("draws of the judge", evidence.draws == rule, found)


def possible(evidence: Evidence) -> Tensor:
    """Rates are whole numbers of draws, none of them zero: of a network without randomness, one of one."""
    times = evidence.failure_rate.double() * evidence.draws
    whole = (times - times.round()).abs() <= 1e-4 * evidence.draws
    return whole & (times >= 0.5) & (times <= evidence.draws + 0.5)


def randomness(report: Report, clean: list[tuple[Tensor, Tensor]], predict: Predict, data: Data) -> Check:
    """Whether the network draws random numbers is seen, for a random one's evidence is held to weaker checks."""
    again = [answer[0] for answer in clean[1:]] or [predict(data.x)[0]]
    classes = clean[0][0].argmax(1)
    if report.stochastic:
        differs = any(not torch.equal(clean[0][0], other) for other in again)
        return Check(
            "randomness", differs, "it draws" if differs else "stated random, every draw is the same"
        )
    same = bool((classes == again[0].argmax(1)).all())
    return Check("randomness", same, "none" if same else "stated none, two predictions differ")


def clean_accuracy(report: Report, mistakes: Tensor, draws: int) -> Check:
    """The stated share against fresh predictions of every image."""
    # As under attack, what is rejected is not taken for another class.
    rates = 1 - mistakes
    fresh = float(rates.mean())
    # How often the report drew is unknown here; one draw each scatters most.
    error = float((rates * (1 - rates)).sum().sqrt()) / len(rates) if report.stochastic else 0.0
    holds = abs(fresh - report.clean_accuracy) <= 3.29 * error * (1 + 1 / draws) ** 0.5 + 1e-6
    return Check("clean accuracy", holds, f"stated {report.clean_accuracy:.4f}, found {fresh:.4f}")


def clean_mistakes(report: Report, mistakes: Tensor, index: Tensor, data: Data) -> Check:
    """Images that are wrong without an attack are in the ball: they cannot be missing, nor robust exceed clean."""
    if report.stochastic or report.threat.goal == "targeted":
        return Check("clean mistakes are in the evidence", True, "not asked of this threat model")
    missing = data.index[(mistakes > 0) & ~torch.isin(data.index, index)].tolist()
    above = report.robust_accuracy > report.clean_accuracy + 1e-6
    found = (
        f"{len(missing)} {plural(len(missing), 'is', 'are')} missing"
        + "; more survive than are right without an attack" * above
    )
    return Check("clean mistakes are in the evidence", not missing and not above, found)


def robust_accuracy(report: Report, broken: float) -> Check:
    """The stated share against what the evidence that holds has broken."""
    found = 1 - broken / report.examples
    holds = abs(found - report.robust_accuracy) <= 1e-6
    return Check("robust accuracy", holds, f"stated {report.robust_accuracy:.4f}, from evidence {found:.4f}")


def conclusion(report: Report, evidence: Evidence) -> Check:
    """Interval and verdict against the rule, stated again from the report's numbers."""
    stated = report.robust_accuracy_interval
    low, high = clopper_pearson(report.robust_accuracy * report.examples, report.examples)
    if report.stochastic and not np.allclose((low, high), stated, atol=1e-6):
        # The other one is the wider one of earlier versions.
        right = np.ones(report.examples)
        right[: len(evidence.index)] = (1 - evidence.failure_rate.double())[: report.examples]
        low, high = mean_interval(right)
    same = np.allclose((low, high), stated, atol=1e-6)
    follows = verdict_of(report)
    holds = bool(same) and follows == report.verdict
    found = report.verdict if follows == report.verdict else f"{follows}, not {report.verdict}"
    return Check("interval and verdict", holds, f"[{low:.4f}, {high:.4f}], {found}")
