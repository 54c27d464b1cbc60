"""CLEVER in an audit: an estimate beside the two bounds, and what the audit itself found out about it."""

from __future__ import annotations

import math
from collections import Counter
from statistics import median

import torch
from torch import Tensor

from ...bounds import Clever, mark
from ...errors import UnmaskError, first_line
from ...judge import Judgement
from ..context import Subject
from ..records import CleverRecord, MaskingFinding

# CLEVER is dear and is no bound: a few examples, at the budget that asks for everything. Ours.
BUDGET, EXAMPLES = "thorough", 16
CLEVER = Clever(batches=50, samples=64)


def estimated(
    subject: Subject, x_adv: Tensor, final: Judgement, findings: list[MaskingFinding]
) -> CleverRecord | None:
    """CLEVER's scores within epsilon on those of the first examples that are right, marked by the audit's own evidence.

    None unless the budget is thorough, and for networks without a fixed decision boundary. A score of epsilon says
    that CLEVER calls the whole ball safe.

    **Arguments**
    - `x_adv`: `[examples, …]`, the worst points; `final`: what the judge saw of them.

    **Source**: Weng et al. 2018, arXiv:1801.10578.
    """
    if subject.claim.budget != BUDGET or subject.random or subject.classifier.passes > 1:
        return None
    if subject.threat.epsilon == 0:
        return None
    subject.progress.stage("CLEVER")
    some = subject.everyone[:EXAMPLES]
    x, y = subject.x[some], subject.aim[some]
    try:
        scores = CLEVER.run(
            subject.classifier, x, y, subject.threat, generator=subject.streams("clever", some)
        )
    except (UnmaskError, RuntimeError, NotImplementedError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        subject.progress.note(f"CLEVER needs a gradient: {first_line(error)}")
        return None
    distance = subject.threat.distance(x_adv[some], x)
    distance = torch.where(final.failure_rate[some] > 0, distance, torch.inf).tolist()
    masking = "masking was found" if findings else ""
    right = [(s, d) for s, d in zip(scores, distance, strict=True) if s.degenerate != "misclassified"]
    marks = Counter(mark(s, d, masking=masking).mark for s, d in right)
    known = [s.score for s, _ in right if not math.isnan(s.score)]
    return CleverRecord(
        examples=len(right),
        batches=CLEVER.batches,
        samples=CLEVER.samples,
        median=median(known) if known else None,
        refuted=marks["refuted"],
        unreliable=marks["unreliable"],
        unrefuted=marks["unrefuted"],
    )
