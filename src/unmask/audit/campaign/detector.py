"""A detector that rejects what a standard attack finds: how much it hides, and where its score is made."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...attacks import ascent
from ...classifier import Meter
from ...objectives import cross_entropy
from ...remedies import LOST
from ...tracing.analyse import analyse
from ...tracing.intercept.sites import Site
from ...tracing.record.keeping import nothing
from ...tracing.record.passes import record
from ...tracing.suspect import Analysis, title
from ...tracing.symptoms.thresholds import GAP
from ..context import Subject
from ..findings import JOINT, end_of_statement
from ..records import MaskingFinding
from .standing import Standing


class ScoreAlone(nn.Module):
    """The network with the detector's score for its only logit that is not zero, so that the tracer follows the score.

    Submodules keep their names: what is found here is found again in the network itself.
    """

    def __init__(self, network: Any):
        super().__init__()
        self.inside = (network,)  # in a tuple it is no submodule

    def named_modules(self, *args: Any, **kwargs: Any) -> Any:
        """Those of the network."""
        network = self.inside[0]
        return network.named_modules(*args, **kwargs) if isinstance(network, nn.Module) else iter(())

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, classes + 1]`, all zero but the last."""
        outputs = self.inside[0](x)
        return torch.cat([0 * outputs.logits, outputs.detector_score[:, None]], 1)


def with_detector(subject: Subject, analysis: Analysis, seen: Tensor) -> Analysis:
    """An analysis of the logits, and the suspects on the way to the detector's score.

    `seen`: `[batch, channels, height, width]`, the images of the analysis.
    """
    score = subject.classifier.replace(network=ScoreAlone(subject.classifier.network))
    more = analyse(
        score,
        subject.x[seen],
        subject.y[seen],
        subject.threat,
        seed=subject.seed,
        generator=subject.streams("trace detector", seen),
    )
    known = {s.group for s in analysis.suspects}
    new = tuple(s for s in more.suspects if s.symptom.asks in LOST and s.group not in known)
    return replace(more, suspects=analysis.suspects + new) if new else analysis


@dataclass(frozen=True)
class Rejections:
    """What a standard attack that ignores the detector meets. Shares, in [0, 1].

    **Fields**
    - `fooled`: of the examples that were right, those that the classifier gets wrong under it.
    - `rejected`: of these, those that the detector rejects.
    - `false_positive_rate`: of the clean examples, those that the detector rejects.
    - `x_adv`: where the attack has led the first `examples`; what the detector lets pass there counts.
    """

    fooled: float
    rejected: float
    false_positive_rate: float
    examples: int
    x_adv: Tensor = field(compare=False, repr=False)


def count_rejections(subject: Subject, standing: Standing) -> Rejections:
    """Runs the standard attack on the classifier alone, on a few examples, and asks the detector about the outcome.

    **Cost**: as many estimates as that attack has steps, for `control_examples`; one judging forward per example
    for the false-positive rate.
    """
    key = "detector"
    entry = subject.journal.get(key) if subject.journal else None
    if entry is not None:
        standing.rounds.replay(Meter(**entry.record["meter"]))
        return Rejections(**entry.record["rejections"], x_adv=entry.tensors["x_adv"])
    classifier, before = subject.classifier, subject.classifier.meter.snapshot()
    few = subject.everyone[: min(subject.budget.control_examples, standing.rounds.memory.size)]
    x, y, streams = subject.x[few], subject.y[few], subject.streams(key, few)
    attack = ascent(
        subject.threat, steps=subject.budget.naive_steps, objective=cross_entropy, early_stop=False
    )
    x_adv = attack.run(classifier, x, y, subject.misclassification, generator=streams)
    clean, seen = (classifier.predict(z, generator=streams) for z in (x, x_adv))
    wrong = (seen.logits.argmax(1) != y) & (clean.logits.argmax(1) == y)
    assert seen.detector_score is not None
    parts = subject.everyone.split(standing.rounds.memory.size)
    scores = [
        classifier.predict(subject.x[p], generator=subject.streams("clean rejections", p)).detector_score
        for p in parts
    ]
    found = Rejections(
        fooled=float(wrong.float().mean()),
        rejected=float((wrong & (seen.detector_score > 0)).sum()) / max(1, int(wrong.sum())),
        false_positive_rate=float(torch.cat([s for s in scores if s is not None]).gt(0).float().mean()),
        examples=len(few),
        x_adv=x_adv,
    )
    if subject.journal:
        said = {k: v for k, v in vars(found).items() if k != "x_adv"}
        record = {"rejections": said, "meter": vars(classifier.meter.since(before))}
        subject.journal.put(key, record, {"x_adv": x_adv})
    return found


def detector_finding(subject: Subject, counted: Rejections, naive_gap: float) -> list[MaskingFinding]:
    """The detector's finding, if it is what misled the standard attack: it hid examples that were found all the same.

    `naive_gap` is the accuracy that the whole audit takes off the standard attack.
    """
    hidden = counted.fooled * counted.rejected
    if hidden < GAP or naive_gap < GAP:
        return []
    operation, site = _where(subject)
    symptom = (
        f"of the adversarial examples of a standard attack on the classifier alone it rejects {counted.rejected:.0%}, "
        "which then count as robust; attacked together with the classifier it lets others pass"
    )
    return [
        MaskingFinding(
            mechanism="detector",
            symptom=symptom,
            operation=operation,
            file=site.file or None,
            line=site.line or None,
            end_line=end_of_statement(site.file, site.line) if site.file else None,
            code=site.code or None,
            statistics={
                "fooled": round(counted.fooled, 6),
                "rejected_of_fooled": round(counted.rejected, 6),
                "false_positive_rate": round(counted.false_positive_rate, 6),
                "examples": counted.examples,
            },
            repair=JOINT,
            module=site.module or None,
        )
    ]


def _where(subject: Subject) -> tuple[str | None, Site]:
    """The last operation of the user's own code on the way to the score."""
    score = subject.classifier.replace(network=ScoreAlone(subject.classifier.network), meter=Meter())
    trace = record(score, subject.x[:2], seed=subject.seed, keep=nothing)
    made = trace.records[-1].inputs[1].producer  # the cat, and what indexed the score for it
    made = trace.records[made].inputs[0].producer if made >= 0 else made
    while made >= 0 and not trace.records[made].site.file:  # our own, around a network that raises
        made = trace.records[made].inputs[0].producer if trace.records[made].inputs else -1
    if made < 0:
        return None, Site("", 0)
    return title(trace.records[made].name, trace.records[made]), trace.records[made].site
