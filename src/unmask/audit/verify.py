"""`unmask verify`: checks the evidence again, by code that shares nothing with the attacks or the judge."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..claim.target_classes import load_for
from ..data import Data
from ..errors import UnusableInput
from ..state import State
from ..state.process import kept
from ..target.class_names import in_order_of
from ..target.load import build, checkpoint_hash
from .evidence import Evidence, hash_images, read_evidence
from .records import Report
from .verifying.deployed import Predict, between_calls, deployed, module_of
from .verifying.evidence_checks import (
    DRAWS,
    ROUNDING,
    Check,
    clean_accuracy,
    clean_mistakes,
    conclusion,
    draws_by_rule,
    lengths,
    mean_rate,
    met,
    plausible,
    possible,
    randomness,
    robust_accuracy,
    same_run,
    targets_by_rule,
)
from .verifying.pictures import pictures, with_pixels
from .verifying.recertified import Recertified, recertified
from .verifying.well_formed import read_report

# Of a report, what no file can show to be so: only auditing again can.
UNCHECKED = (
    "naive_robust_accuracy", "masking", "facts", "attacks", "controls", "cost", "environment",
    "accuracy_against_epsilon", "accuracy_against_cost", "gradient_histogram", "warnings", "queries",
    "clever", "certified_accuracy", "class_names", "table",
)  # fmt: skip


@dataclass(frozen=True)
class Verification:
    """Outcome of `verify`.

    **Fields**
    - `verified` of `total` saved examples passed every check of their own.
    - `proves`: share of the examples that may survive at most, by the evidence alone, in [0, 1].
    - `examples`: how many the report is about.
    - `unchecked`: keys of `report.json` that say something, which was taken at its word.
    - `certificate`: why the certified accuracy was not proved again, in a line, where one is stated and it was not.
    """

    checks: list[Check]
    verified: int
    total: int
    proves: float = 1.0
    examples: int = 0
    unchecked: list[str] = field(default_factory=list)
    certificate: str = ""

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
    page: Callable[[Report], str | None] | None = None,
) -> Verification:
    """Re-checks `report.json` against `evidence.safetensors`, the network and the data set.

    **Arguments**
    - `target`, `data`: where these are now, if not where the audit found them.
    - `page`: told the report with the pixels of its pictures, says in a few words what is wrong with the page, or None.

    **Cost**: one clean pass over all examples and one pass over the evidence; for a random network twenty
    draws of `passes` passes for each. A certified accuracy costs what `recertified` says.
    **Raises** `UnusableInput` where a file, the network or the data cannot be read, or the report names code inside
    `folder` itself; `ModelFailed` where the network raises.
    """
    report = read_report(folder)
    evidence = read_evidence(folder, at_most=report.examples)
    if target is None:
        refuse_code_inside(folder, report.target)
    with _random_state_restored():
        # As the audit builds it: first of all, and with gradients, for a network may train or calibrate itself.
        with kept():
            network, _ = build(report.target if target is None else target)
        loaded = load_for(
            report.targets,
            report.data if data is None else data,
            split=report.split or None,
            examples=report.examples,
            seed=report.sample_seed,
            allow_pickle=allow_pickle,
        )
        loaded = in_order_of(network, loaded)
        if evidence.x_adv.shape[1:] != loaded.x.shape[1:]:
            raise UnusableInput(
                f"the evidence holds images of shape {list(evidence.x_adv.shape[1:])}, the data set of "
                f"{list(loaded.x.shape[1:])}; give the audited data by --data"
            )
        held = State(module_of(network))
        hashed = checkpoint_hash(module_of(network))  # before a forward pass fills anything
        torch.seed()  # fresh randomness from the system, whatever seeds the network's code has set
        np.random.seed()
        random.seed()
        size = min(report.environment.batch_size, max(1, len(loaded)))
        asked = module_of(network) if loaded.box is None else loaded.box.before(module_of(network))
        predict = deployed(
            asked,
            passes=report.passes,
            average=report.average,
            batch_size=size,
            device=device,
            state=report.environment.state,
        )
        with torch.no_grad():
            outcome = _verify(
                report,
                evidence,
                loaded,
                hashed,
                predict,
                lambda aim: recertified(report, evidence, loaded, aim, network, asked, device),
                page,
            )
    said = between_calls(held, report.environment.state, report.controls, holds=outcome.holds)
    return replace(outcome, checks=outcome.checks + [Check("state between calls", True, said)] * bool(said))


def refuse_code_inside(folder: str | os.PathLike[str], spec: str) -> None:
    """Refuses a target that lies in the folder under test: who wrote the evidence would choose what judges it."""
    place = spec.partition(" + ")[0].partition(":")[0]
    path, inside = os.path.realpath(os.path.expanduser(place)), os.path.realpath(folder)
    if os.path.exists(path) and os.path.commonpath([path, inside]) == inside:
        raise UnusableInput(
            f"the report names the target {spec}, which lies in {os.fspath(folder)} itself; say that you trust it: "
            f"--target {spec}"
        )


def _verify(
    report: Report,
    evidence: Evidence,
    data: Data,
    hashed: str,
    predict: Predict,
    prove_again: Callable[[Tensor], Recertified],
    page: Callable[[Report], str | None] | None,
) -> Verification:
    index, n, draws = evidence.index, len(evidence.index), DRAWS if report.stochastic else 1
    # A place in the split is one in `data` too, unless images of the target class were left out.
    at = torch.searchsorted(data.index, index).clamp(0, len(data) - 1)
    known = data.index[at] == index
    x, y = data.x[at], data.y[at]
    checks = [same_run(report, evidence, hashed), draws_by_rule(report, evidence)]

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
    reach = lengths(evidence.x_adv, x, report.threat.norm, report.threat.radii)
    radius = report.threat.epsilon * (1 + ROUNDING)
    least = min(report.threat.radii or [report.threat.epsilon])
    size = "radius " if report.threat.radii is None else f"radii {least:.6g} to "
    good &= each(f"in the {report.threat.norm} ball of {size}{report.threat.epsilon:.6g}", reach <= radius)
    good &= each("failure rate", possible(evidence))

    aim = data.y
    goal, reached = "misclassified", partial(met, label=evidence.label)
    if evidence.targets is not None:
        aim = targets_by_rule(report, data, predict)
        good &= each("target by the rule", known & (aim[at] == evidence.targets))
        goal, reached = "taken for its target", partial(met, target=evidence.targets)
    answers = [predict(evidence.x_adv) for _ in range(draws)]
    failed = torch.stack([reached(*answer) for answer in answers])
    failures = failed.double().sum(0)
    clean = [predict(data.x) for _ in range(draws)]
    if report.stochastic:
        good &= each("fails as often as stated", plausible(failures, draws, evidence))
        checks.append(mean_rate(failed, evidence))
        broken = float(evidence.failure_rate.clamp(0, 1)[good].sum())
    else:
        good &= each(goal, failures > 0)
        each("seen as stated", answers[0][0].argmax(1) == evidence.prediction)
        broken = float(good.sum())
    mistakes = torch.stack([met(*answer, label=data.y) for answer in clean]).mean(0)
    checks += [
        randomness(report, clean, predict, data),
        clean_accuracy(report, mistakes, draws),
        clean_mistakes(report, mistakes, index, data),
        robust_accuracy(report, broken),
        pictures(report, evidence, data),
        conclusion(report, evidence),
    ]
    again = prove_again(aim)
    checks += [] if again.check is None else [again.check]
    if page is not None:
        differs = page(with_pixels(report, evidence, data))
        checks.append(Check("page", differs is None, differs or "says what report.json does"))
    proved = {"certified_accuracy"} if again.check is not None else set()
    unchecked = [name for name in UNCHECKED if getattr(report, name) and name not in proved]
    proves = min(1.0, max(0.0, 1 - broken / report.examples))
    return Verification(checks, int(good.sum()), n, proves, report.examples, unchecked, again.why_not)


@contextmanager
def _random_state_restored() -> Iterator[None]:
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
