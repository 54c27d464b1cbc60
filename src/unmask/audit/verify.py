"""`unmask verify`: checks the evidence again, by code that shares nothing with the attacks or the judge."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import hypergeom
from torch import Tensor

from ..claim.target_classes import choose, load_for
from ..data import Data
from ..errors import UnusableInput
from ..state import State
from ..statistics import clopper_pearson, mean_interval
from ..target.load import build, checkpoint_hash
from ..types import Outputs
from .evidence import Evidence, hash_images, read_evidence
from .records import Report
from .verdict import verdict_of

ROUNDING = 1e-9  # relative slack of a float64 sum over a million pixels
DRAWS = 20  # fresh draws per example of a random network
ALARM = 1e-3  # chance that sound evidence of a random network is doubted, for each of its checks
PREDICT = Callable[[Tensor], tuple[Tensor, Tensor]]  # logits, and whether it answers at all


@dataclass(frozen=True)
class Check:
    """One thing looked at: what it is, whether it holds, and what was found."""

    name: str
    holds: bool
    found: str


@dataclass(frozen=True)
class Verification:
    """Outcome of `verify`. `verified` of `total` examples passed every check of their own."""

    checks: list[Check]
    verified: int
    total: int

    @property
    def holds(self) -> bool:
        """Whether every check holds."""
        return all(check.holds for check in self.checks)


def verify(
    folder: str | os.PathLike[str],
    *,
    target: str | None = None,
    data: str | None = None,
    allow_pickle: bool = False,
    device: str = "cpu",
) -> Verification:
    """Re-checks `report.json` against `evidence.safetensors`, the network and the data set.

    **Arguments**
    - `target`, `data`: where these are now, if not where the audit found them.

    **Cost**: one clean pass over all examples and one pass over the evidence; for a random network twenty
    draws of `passes` passes for each.
    **Raises** `UnusableInput` where a file, the network or the data cannot be read.
    """
    report, evidence = read_report(folder), read_evidence(folder)
    loaded = load_for(
        report.targets,
        report.data if data is None else data,
        split=report.split or None,
        examples=report.examples,
        seed=report.sample_seed,
        allow_pickle=allow_pickle,
    )
    draws = DRAWS if report.stochastic else 1
    with torch.no_grad(), _random_state_restored():
        network, _ = build(report.target if target is None else target)
        torch.seed()  # fresh randomness from the system, whatever seeds the network's code has set
        np.random.seed()
        random.seed()
        return _verify(report, evidence, loaded, network, _predictor(network, report, device), draws)


def read_report(folder: str | os.PathLike[str]) -> Report:
    """Reads `report.json`. **Raises** `UnusableInput` where it is missing, damaged or of another schema."""
    path = Path(folder, "report.json")
    if not path.is_file():
        raise UnusableInput(f"there is no {path}; give the folder that a finished unmask audit wrote")
    try:
        return Report.model_validate_json(path.read_bytes())
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise UnusableInput(f"{path} is not a report of schema 1 ({reason}); run the audit again") from error


def _verify(
    report: Report, evidence: Evidence, data: Data, network: Any, predict: PREDICT, draws: int
) -> Verification:
    index, n = evidence.index, len(evidence.index)
    # A place in the split is one in `data` too, unless images of the target class were left out.
    at = torch.searchsorted(data.index, index).clamp(0, len(data) - 1)
    known = data.index[at] == index
    x, y = data.x[at], data.y[at]
    checks = [_same_run(report, evidence, network)]

    def each(name: str, good: Tensor) -> Tensor:
        bad = index[~good].tolist()
        some = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
        found = f"{n - len(bad)} of {n}" + (f"; not example {some}" if bad else "")
        checks.append(Check(name, not bad, found))
        return good

    first = torch.zeros(n, dtype=torch.bool)
    first[torch.from_numpy(np.unique(index.numpy(), return_index=True)[1])] = True
    good = each("in the data set, once", known & first)
    good &= each("true label", known & (y == evidence.label))
    same = hash_images(x) == evidence.originals
    checks.append(Check("clean images", same, "the audited ones" if same else "not those that were audited"))
    good &= each("finite", torch.isfinite(evidence.x_adv).flatten(1).all(1))
    good &= each("in the box [0, 1]", ((evidence.x_adv >= 0) & (evidence.x_adv <= 1)).flatten(1).all(1))
    reach = _lengths(evidence.x_adv, x, report.threat.norm)
    radius = report.threat.epsilon * (1 + ROUNDING)
    good &= each(f"in the {report.threat.norm} ball of radius {report.threat.epsilon:.6g}", reach <= radius)

    goal, reached = "misclassified", partial(_met, label=evidence.label)
    if evidence.targets is not None:
        rule = _targets(report, data, predict)
        good &= each("target by the rule", known & (rule[at] == evidence.targets))
        goal, reached = "taken for its target", partial(_met, target=evidence.targets)
    failures = sum((reached(*predict(evidence.x_adv)) for _ in range(draws)), torch.zeros(n))
    if report.stochastic:
        good &= each("fails as often as stated", _plausible(failures, draws, evidence))
        checks.append(_mean_rate(failures, draws, evidence))
        broken = float(evidence.failure_rate[good].sum())
    else:
        good &= each(goal, failures > 0)
        broken = float(good.sum())
    checks += [
        _clean_accuracy(report, data, predict, draws),
        _robust_accuracy(report, broken),
        _conclusion(report, evidence),
    ]
    return Verification(checks, int(good.sum()), n)


def _lengths(x_adv: Tensor, x: Tensor, norm: str) -> Tensor:
    delta = (x_adv.double() - x.double()).abs().flatten(1)
    if norm == "linf":
        return delta.amax(1)
    return delta.sum(1) if norm == "l1" else delta.square().sum(1).sqrt()


def _network(target: Any) -> Any:
    """The user's network, which our own Classifier keeps in that field. A module's field is the module's own affair."""
    return target if isinstance(target, torch.nn.Module) else getattr(target, "network", target)


def _predictor(network: Any, report: Report, device: str) -> PREDICT:
    """The deployed prediction, mean over the claimed passes: logits, and whether it answers at all."""
    inner = _network(network)
    if isinstance(inner, torch.nn.Module):
        inner.to(device)
    held = State(inner).only(report.environment.state)  # as it is deployed: before anybody has asked it

    def predict(x: Tensor) -> tuple[Tensor, Tensor]:
        said, answered = [], []
        for batch in x.split(max(1, report.environment.batch_size)):
            logits, score = 0, None
            for _ in range(report.passes):
                held.restore()
                outputs = Outputs.of(inner(batch.clone().to(device)))
                assert outputs is not None, "what was audited can be read"
                logits = logits + outputs.logits
                detector = outputs.detector_score
                if detector is not None:
                    score = detector if score is None else score + detector
            assert isinstance(logits, Tensor)
            accepted = torch.ones(len(batch), dtype=torch.bool) if score is None else (score <= 0).cpu()
            said.append(logits.cpu())
            # Minus infinity beside a finite logit is an answer: that class is impossible.
            possible = torch.isfinite(logits) | torch.isneginf(logits)
            answered.append(accepted & (possible.all(1) & torch.isfinite(logits).any(1)).cpu())
        if not said:
            return torch.zeros(0, 1), torch.zeros(0, dtype=torch.bool)
        return torch.cat(said), torch.cat(answered)

    return predict


def _met(
    logits: Tensor, answered: Tensor, *, label: Tensor | None = None, target: Tensor | None = None
) -> Tensor:
    classes = logits.argmax(1)
    return ((classes == target if label is None else classes != label) & answered).double()


def _targets(report: Report, data: Data, predict: PREDICT) -> Tensor:
    """The classes to reach, of all examples, by the rule that the report states."""
    assert report.targets is not None
    logits, _ = predict(data.x)
    return choose(report.targets, data.y, data.index, seed=report.environment.seed, logits=logits)


def _plausible(failures: Tensor, draws: int, evidence: Evidence) -> Tensor:
    """Exact two-sample test per example: can it fail that rarely if the stated rate is true."""
    stated = (evidence.failure_rate.double() * evidence.draws).round()
    total = evidence.draws + draws
    chance = hypergeom.cdf(failures.numpy(), total, (stated + failures).numpy(), draws)
    return torch.from_numpy(chance >= ALARM / max(1, len(failures)))


def _mean_rate(failures: Tensor, draws: int, evidence: Evidence) -> Check:
    stated, fresh = evidence.failure_rate.double(), failures / draws
    pooled = (stated * evidence.draws + failures) / (evidence.draws + draws)
    error = (pooled * (1 - pooled) * (1 / draws + 1 / evidence.draws)).sum().sqrt()
    holds = bool((stated.sum() - fresh.sum()).abs() <= 3.29 * error + ROUNDING)  # two-sided, ALARM
    n = max(1, len(stated))
    return Check("mean failure rate", holds, f"stated {stated.sum() / n:.4f}, fresh {fresh.sum() / n:.4f}")


def _same_run(report: Report, evidence: Evidence, network: Any) -> Check:
    stated = (evidence.checkpoint_hash, evidence.threat, evidence.data, evidence.split, evidence.passes)
    reported = (report.environment.checkpoint_hash, report.threat, report.data, report.split, report.passes)
    aims = report.threat.goal == "targeted"
    if stated != reported or aims != (evidence.targets is not None) or aims != (report.targets is not None):
        return Check("one audit", False, "report.json and evidence.safetensors are of different audits")
    now = checkpoint_hash(_network(network))
    same = now == evidence.checkpoint_hash
    return Check("checkpoint", same, now[:12] or "no parameters" if same else "not the audited one")


def _clean_accuracy(report: Report, data: Data, predict: PREDICT, draws: int) -> Check:
    # As under attack, what is rejected is not taken for another class.
    rates = 1 - sum(_met(*predict(data.x), label=data.y) for _ in range(draws)) / draws
    assert isinstance(rates, Tensor)
    fresh = float(rates.mean())
    # How often the report drew is unknown here; one draw each scatters most.
    error = float((rates * (1 - rates)).sum().sqrt()) / len(rates) if report.stochastic else 0.0
    holds = abs(fresh - report.clean_accuracy) <= 3.29 * error * (1 + 1 / draws) ** 0.5 + 1e-6
    return Check("clean accuracy", holds, f"stated {report.clean_accuracy:.4f}, found {fresh:.4f}")


def _robust_accuracy(report: Report, broken: float) -> Check:
    found = 1 - broken / report.examples
    holds = abs(found - report.robust_accuracy) <= 1e-6
    return Check("robust accuracy", holds, f"stated {report.robust_accuracy:.4f}, from evidence {found:.4f}")


def _conclusion(report: Report, evidence: Evidence) -> Check:
    stated = report.robust_accuracy_interval
    low, high = clopper_pearson(report.robust_accuracy * report.examples, report.examples)
    if report.stochastic and not np.allclose(
        (low, high), stated, atol=1e-6
    ):  # the wider one of earlier versions
        right = np.ones(report.examples)
        right[: len(evidence.index)] = (1 - evidence.failure_rate.double())[: report.examples]
        low, high = mean_interval(right)
    same = np.allclose((low, high), stated, atol=1e-6)
    follows = verdict_of(report)
    holds = bool(same) and follows == report.verdict
    found = report.verdict if follows == report.verdict else f"{follows}, not {report.verdict}"
    return Check("interval and verdict", holds, f"[{low:.4f}, {high:.4f}], {found}")


@contextmanager
def _random_state_restored() -> Iterator[None]:
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
