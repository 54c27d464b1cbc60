"""From a finished audit to what is handed out: the report's record and the evidence file."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..diagnostics import Preflight
from ..judge import Judgement
from ..statistics import mean_interval
from ..target.source_files import told
from .campaign.standing import Standing
from .context import Subject
from .evidence import Evidence, hash_images, write_evidence
from .findings import GradientState
from .optional.certificates import certified_share
from .optional.estimate import estimated
from .optional.optional import tried
from .records import (
    AccuracyAtCost,
    AccuracyAtEpsilon,
    AttackRecord,
    Control,
    Cost,
    Environment,
    Fact,
    GradientHistogram,
    MaskingFinding,
    QueriesRecord,
    Report,
)
from .runtime.machine import hardware, utc
from .shown import example_table, image_triples
from .verdict import verdict_of

Placed = TypeVar("Placed", MaskingFinding, Fact)
# Of the curve of accuracy against cost. Ours.
POINTS = 200


@dataclass(frozen=True)
class Outcome:
    """All that an audit found out.

    **Fields**
    - `clean`, `final`: judgements, on fresh draws, of the examples as they came and of the worst points found.
    - `draws`: how many of them.
    - `naive`: accuracy that the standard attack reports.
    - `began`: when, by `time.perf_counter`.
    - `folder`: of the target's source, if it has one; places outside the working directory are told from there.
    - `queries`: of an adversary who only sees answers.
    - `near_standard`: `distances` of what the standard attack found.
    """

    subject: Subject
    standing: Standing
    facts: Preflight
    state: GradientState
    naive: float
    clean: Judgement
    final: Judgement
    draws: int
    findings: list[MaskingFinding]
    harmless: list[Fact]
    controls: list[Control]
    curve: list[AccuracyAtEpsilon]
    began: float
    folder: Path | None = None
    queries: QueriesRecord | None = None
    near_standard: Tensor | None = None

    def report(self) -> Report:
        """The report without what is optional: bounds and estimates."""
        subject, n = self.subject, len(self.subject)
        right = 1 - self.final.failure_rate.double()
        interval = mean_interval(right.tolist())
        # Before the warnings are read, for it may add one.
        table = example_table(subject, self.clean, self.final, self.standing.x_adv, self.near_standard)
        report = Report(
            schema=1,
            verdict="inconclusive",  # until the numbers below have had their say
            claim=subject.claim.claim,
            threat=subject.threat_record(),
            examples=n,
            clean_accuracy=1 - float(self.clean.failure_rate.mean()),
            robust_accuracy=float(right.mean()),
            robust_accuracy_interval=interval,
            naive_robust_accuracy=self.naive,
            masking=[self._told(finding) for finding in self.findings],
            facts=[self._told(fact) for fact in self.harmless],
            attacks=self._attacks(),
            controls=self.controls,
            cost=self._cost(),
            environment=self._environment(),
            target=subject.spec,
            data=subject.data.name,
            split=subject.data.split,
            passes=subject.classifier.passes,
            average=subject.classifier.average,
            budget=subject.claim.budget,
            exhaustive=subject.claim.exhaustive,
            stochastic=subject.random,
            sample_seed=subject.data.sample_seed,
            warnings=[*subject.data.notes, *self.facts.warnings, *subject.warnings],
            accuracy_against_epsilon=self.curve,
            accuracy_against_cost=self._track(),
            gradient_histogram=_histogram(self.state.elements),
            images=image_triples(subject, self.clean, self.final, self.standing.x_adv),
            class_names=list(subject.data.class_names),
            table=table,
            targets=subject.claim.targets,
            knowledge=subject.answers if subject.outside else "white-box",
            queries=self.queries,
        )
        return report.model_copy(update={"verdict": verdict_of(report)})

    def with_bounds(self, report: Report) -> Report:
        """The report, and what can be proved or estimated beside it; what fails there is a warning and no more."""
        subject, unbroken = self.subject, (self.final.failure_rate == 0).nonzero()[:, 0]
        certified, certificate = tried(
            subject, "bounds", lambda: certified_share(subject, unbroken), (None, None)
        )
        clever = tried(
            subject,
            "CLEVER",
            lambda: estimated(subject, self.standing.x_adv.clone(), self.final, self.findings),
            None,
        )
        report = report.model_copy(
            update={
                "certified_accuracy": certified,
                "certificate": certificate,
                "clever": clever,
                "cost": self._cost(),
                "warnings": [*subject.data.notes, *self.facts.warnings, *subject.warnings],
            }
        )
        return report.model_copy(update={"verdict": verdict_of(report)})

    def write_evidence(self) -> None:
        """Writes `evidence.safetensors` where the audit has a folder."""
        subject, final = self.subject, self.final
        if subject.out is None:
            return
        found = (final.failure_rate > 0).nonzero()[:, 0]
        write_evidence(
            subject.out,
            Evidence(
                x_adv=self.standing.x_adv[found],
                index=subject.index[found],
                label=subject.y[found],
                prediction=final.prediction[found],
                failure_rate=final.failure_rate[found],
                originals=hash_images(subject.x[found]),
                threat=subject.threat_record(),
                data=subject.data.name,
                split=subject.data.split,
                target=subject.spec,
                checkpoint_hash=subject.checkpoint_hash,
                passes=subject.classifier.passes,
                average=subject.classifier.average,
                draws=self.draws,
                targets=None if subject.claim.targets is None else subject.aim[found],
            ),
        )

    def _told(self, place: Placed) -> Placed:
        """A finding or fact without the folders of this machine."""
        places = {"file": place.file, "inside": getattr(place, "inside", None)}
        return place.model_copy(
            update={name: told(file, self.folder) for name, file in places.items() if file is not None}
        )

    def _attacks(self) -> list[AttackRecord]:
        return [
            AttackRecord(
                recipe=s.recipe,
                robust_accuracy=s.robust_accuracy,
                newly_broken=s.newly_broken,
                forwards=s.meter.forwards,
                backwards=s.meter.backwards,
                seconds=round(s.seconds, 3),
                examples=s.examples,
                ascent=s.ascent,
            )
            for s in self.standing.spent
        ]

    def _cost(self) -> Cost:
        spent, journal = self.standing.rounds.total(), self.subject.journal
        before = journal.before if journal else 0.0  # of an audit that was resumed
        return Cost(
            forwards=spent.forwards,
            backwards=spent.backwards,
            judge_forwards=spent.judge_forwards,
            seconds=round(before + time.perf_counter() - self.began, 3),
        )

    def _environment(self) -> Environment:
        subject = self.subject
        journal = subject.journal
        began = journal.began if journal else time.time() - (time.perf_counter() - self.began)
        versions = {
            "unmask": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        }
        return Environment(
            versions=versions,
            device=str(subject.device),
            seed=subject.seed,
            batch_size=self.standing.rounds.memory.size,
            checkpoint_hash=subject.checkpoint_hash,
            processes=subject.processes.count,
            date=utc(began),
            hardware=hardware(subject.device),
            state=list(self.facts.state),
        )

    def _track(self) -> list[AccuracyAtCost]:
        points = self.standing.track
        keep = points if len(points) <= POINTS else points[:: len(points) // POINTS + 1] + points[-1:]
        return [AccuracyAtCost(forwards=f, backwards=b, accuracy=a) for f, b, a in keep]


def _histogram(elements: Tensor) -> GradientHistogram:
    size = elements[torch.isfinite(elements)].abs().double()
    edges = [float(e) for e in range(-45, 6)]
    logs = size[size > 0].log10().clamp(edges[0], edges[-1] - 1e-9)
    counts = (
        torch.histc(logs, len(edges) - 1, edges[0], edges[-1]) if len(logs) else torch.zeros(len(edges) - 1)
    )
    zero = float((size == 0).double().mean()) if len(size) else 1.0
    return GradientHistogram(bin_edges=edges, counts=[int(c) for c in counts], zero_share=zero)
