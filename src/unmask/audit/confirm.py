"""The evidence put to a network that nobody has asked, as `verify` will put it: what fails there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..classifier import Network
from ..diagnostics import Preflight
from ..errors import ModelFailed
from ..judge import Judgement
from ..objectives import Objective, margin_loss
from ..types import Outputs
from .campaign.standing import Standing
from .context import Subject
from .controls.check import SAME
from .controls.consistency import NEGLIGIBLE
from .controls.run import Examined
from .records import Control
from .verifying.deployed import deployed
from .verifying.evidence_checks import met

NAME = "the evidence, to a network that nobody has asked"
# How often what is left is put again: of a network that remembers, each answer depends on what was asked with it. Ours.
ROUNDS = 6
# Seconds for a round; and for how many it must do where nothing has spoken against the network. Ours.
PATIENCE, QUICK = 300, 20.0


def as_verified(network: Network, question: dict[str, Any]) -> dict[str, Any]:
    """What `verify` would be told `of` the evidence `x_adv`, then of all `clean` images `x`: logits, answered or not.

    `first` says whether the images are asked for the targets before. For a process in which nobody has asked `network`.
    """
    named = ("passes", "average", "batch_size", "device", "state")
    predict = deployed(network, **{name: question[name] for name in named})
    with torch.no_grad():
        if question["first"]:
            predict(question["x"])
        found = {"of": predict(question["x_adv"]), "clean": predict(question["x"])}
    return {name: [part.detach().clone() for part in parts] for name, parts in found.items()}


@dataclass(frozen=True)
class _Heard:
    """What such a network says of all examples.

    **Fields**
    - `points`: what it was asked about. `rows`: places of the examples that were asked about as evidence.
    - `clean`, `final`: the judgements; who was not asked about as evidence is judged by the image itself.
    """

    points: Tensor
    rows: Tensor
    clean: Judgement
    final: Judgement

    def without(self, x: Tensor, *, mistakes: bool) -> tuple[Tensor, Tensor]:
        """Points and rows of what held, and, where they count, of the images that are `mistakes` of their own."""
        held = self.final.failure_rate > 0
        added = (self.clean.failure_rate > 0) & ~held if mistakes else torch.zeros_like(held)
        points = self.points.clone()
        points[added] = x[added]
        return points, (held | added).nonzero()[:, 0]


def as_verify_will_see(
    subject: Subject,
    standing: Standing,
    clean: Judgement,
    final: Judgement,
    examined: Sequence[Examined],
    took: float,
    facts: Preflight,
) -> tuple[Judgement, Judgement, list[Control]]:
    """`clean` and `final` as they came; or, where `verify` would deny them, what it will say, and an open control.

    Where the answers of a network depend on what it was asked before, an adversarial example may be one in this audit
    alone. So the evidence is put, with the clean images, to the network in a process in which nobody has asked it, and
    again without what did not hold, until all of it does. Where there is no such process and equal images got other
    answers, this one must do. Rounding denies nothing. A random network's evidence is means of draws, and not asked.

    **Arguments**
    - `took`: seconds that both judgements took: who has given no cause is not asked for long.

    **Cost**: two forwards of all images, on one thread; as many again in each further round.
    """
    doubted = any(e.check == SAME and e.reading is not None and e.reading.passed is False for e in examined)
    if subject.random or (not doubted and took * torch.get_num_threads() > QUICK):
        return clean, final, []
    told = subject.processes.first(partial(_settled, subject, standing, clean, final, doubted, facts))
    if told is None:
        return clean, final, []
    heard, settled = told
    standing.x_adv.copy_(heard.points)
    before, after = final.failure_rate > 0, heard.final.failure_rate > 0
    lost, of = int((before & ~after).sum()), int(before.sum())
    return heard.clean, heard.final, [_control(lost, of, settled=settled)]


def _control(lost: int, of: int, *, settled: bool) -> Control:
    said = "What is right without an attack depends on what the network was asked before"
    if lost:
        said = (
            f"{lost} of {of} adversarial examples are none to a network that nobody has asked before, and do not "
            "count: its answers depend on what it was asked before"
        )
    return Control(
        name=NAME,
        passed=False,
        value=lost / max(1, of),
        expected="0: share of adversarial examples that are none where nobody has asked before",
        explanation=said + ("." if settled else f", even after {ROUNDS} rounds."),
        decisive=True,
        role="open",
    )


def _settled(
    subject: Subject, standing: Standing, clean: Judgement, final: Judgement, doubted: bool, facts: Preflight
) -> tuple[_Heard, bool] | None:
    """What is left of the evidence, and whether it came to rest; None where that is all, or nobody can be asked."""
    untargeted = subject.threat.goal == "untargeted"
    negligible = NEGLIGIBLE * float(clean.margin_loss.abs().median())
    points, rows = standing.x_adv.clone(), (final.failure_rate > 0).nonzero()[:, 0]
    heard = None
    for n in range(ROUNDS):
        try:
            heard = _put(subject, standing, clean, points, rows, doubted, facts)
        except ModelFailed as error:
            if doubted:
                subject.warn(f"the evidence could not be put to a network that nobody has asked: {error}")
            return None
        if heard is None or (n == 0 and _same(heard, clean, final, negligible)):
            return None
        points, rows = heard.without(subject.x, mistakes=untargeted)
        if torch.equal(rows, heard.rows) and torch.equal(points[rows], heard.points[rows]):
            return heard, True
    assert heard is not None
    return heard, False


def _same(heard: _Heard, clean: Judgement, final: Judgement, negligible: float) -> bool:
    """Whether all examples are judged alike, but for those whose margin is a matter of rounding."""
    return not any(
        bool(
            (
                ((now.failure_rate > 0) != (before.failure_rate > 0)) & (now.margin_loss.abs() > negligible)
            ).any()
        )
        for now, before in ((heard.clean, clean), (heard.final, final))
    )


def _put(
    subject: Subject,
    standing: Standing,
    clean: Judgement,
    points: Tensor,
    rows: Tensor,
    doubted: bool,
    facts: Preflight,
) -> _Heard | None:
    """Puts evidence and images as `verify` does; None where only this process could be asked and needs not be."""
    order, device, classifier = subject.index.argsort(), subject.device, subject.classifier
    question = {
        "x_adv": points[rows].cpu(),
        "x": subject.x[order].cpu(),  # as the data set has them
        "first": subject.claim.targets is not None,
        "passes": classifier.passes,
        "average": classifier.average,
        "batch_size": min(standing.rounds.memory.size, len(subject)),
        "device": str(device),
        "state": list(facts.state),
    }
    if subject.pristine is not None:
        told = subject.pristine.also(question, PATIENCE)
    elif doubted:
        told = as_verified(classifier.network, question)
    else:
        return None
    logits, answered = told["clean"]
    logits, answered = (
        torch.empty_like(part).index_copy_(0, order.cpu(), part) for part in (logits, answered)
    )
    of, of_answered = logits.clone(), answered.clone()
    if len(rows):
        of[rows.cpu()], of_answered[rows.cpu()] = told["of"][0], told["of"][1]
    aim, y = subject.aim.cpu(), subject.y.cpu()
    reached = met(of, of_answered, **({"target": aim} if question["first"] else {"label": y}))
    asked = torch.zeros(len(of)).index_fill_(0, rows.cpu(), 1.0)
    objective = margin_loss.for_goal(subject.threat.goal)

    def judged(logits: Tensor, rate: Tensor, y: Tensor, before: Judgement, objective: Objective) -> Judgement:
        return replace(
            before,
            failure_rate=rate.float().to(device),
            margin_loss=objective(Outputs(logits.float()), y).to(device),
            prediction=logits.argmax(1).to(device),
        )

    return _Heard(
        points,
        rows,
        judged(logits, met(logits, answered, label=y), y, clean, margin_loss),
        judged(of, reached * asked, aim, clean, objective),
    )
