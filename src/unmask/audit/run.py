"""The audit: preflight, trace, race, winners on all, ever more effort on ever fewer, and a verdict."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import torch
from torch import nn

from ..attacks import Attack
from ..attacks.queried import Queried
from ..claim.target_classes import Targets
from ..classifier import Classifier, Network
from ..data import Data
from ..target.target import Target
from ..threat import ThreatModel
from ..tracing.analyse import Analysis
from .attack_runner import Campaign
from .black_box import outside_steps, queries_spent
from .candidates import candidates
from .consistency import consistency
from .context import Subject, subject_of
from .controls import as_control
from .detector import count_rejections, detector_finding
from .findings import GradientState, confirmed, describe, unlocated
from .plan import Step
from .prepare import find_targets, look_over, trace
from .race import Race, run_race
from .records import Knowledge, MaskingFinding, Report
from .reopening import control
from .report_builder import Outcome
from .runtime.progress import Progress, Silent
from .standing import Standing


def audit(
    target: Target | Classifier | nn.Module | Network,
    data: Data,
    threat: ThreatModel,
    *,
    claim: float | None = None,
    passes: int = 1,
    budget: str = "standard",
    exhaustive: bool = False,
    seed: int = 0,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    extra_attacks: Sequence[Attack] = (),
    targets: Targets | None = None,
    knowledge: Knowledge = "white-box",
    queries: int | None = None,
) -> Report:
    """Audits a classifier on some examples and returns the report.

    **Arguments**
    - `target`: a loaded `Target`, a `Classifier`, or a network: input `[0, 1]` NCHW float32, output logits.
    - `data`: the examples to attack.
    - `claim`: accuracy under attack that somebody claims, in [0, 1]. The audit stops once it is refuted, unless
      `exhaustive`.
    - `passes`: a deployed prediction is the mean of the logits over this many forward passes.
    - `out`: folder for the journal and `evidence.safetensors`; nothing is written without it.
    - `resume`: go on with the journal in `out`.
    - `extra_attacks`: run after the plan's own, on everything not yet broken.
    - `targets`: under a targeted goal, which class each example is to be taken for
      (`unmask.claim.target_classes.choose`). Robust accuracy is then the share
      that no attack brought there, wrong without an attack or not.
    - `knowledge`: `white-box`, or what the adversary is told of a query's answer: `scores` or `labels`. Then masking is
      looked for all the same, by an auditor who sees the network; nothing found that way counts against the claim.
    - `queries`: how often such an adversary may ask about one example.

    **Raises** `UnusableInput` or `ModelFailed` with one line: name, value, way out.
    """
    subject = subject_of(
        target,
        data,
        threat,
        passes=passes,
        device=device,
        out=out,
        resume=resume,
        progress=progress,
        claim=claim,
        budget_name=budget,
        exhaustive=exhaustive,
        seed=seed,
        batch_size=batch_size,
        targets=targets,
        knowledge=knowledge,
        queries=queries,
    )
    began = time.perf_counter()
    progress = subject.progress

    progress.stage("preflight")
    facts = subject.processes.first(lambda: look_over(subject))
    subject.batch_size = subject.processes.first(lambda: subject.batch_size)
    subject.classifier = subject.classifier.replace(
        deterministic=facts.deterministic and facts.seedable,
        probabilities=facts.probabilities,
    )
    if facts.batch_dependent:
        subject.batch_size = 1  # for every pass: the standing's, the report's and so the verifier's
    if subject.targets is not None:
        subject.aim = find_targets(subject)
    progress.stage("trace")
    analysis, state = trace(subject, facts)

    standing = _standing(subject)
    progress.stage("clean")
    clean_rates, _ = standing.step("clean", "", lambda part, _: subject.x[part], subject.everyone)
    inside = _inside(subject, standing)
    campaign = Campaign(subject, inside, facts)
    progress.stage("naive attack")
    naive = campaign.naive(clean_rates)
    entrants = candidates(
        analysis,
        threat,
        deterministic=not subject.random,
        detector=facts.has_detector,
        draws=subject.budget.draws,
        surrogate=subject.classifier.surrogate is not None,
    )
    # Each process traced for itself, for a repair does not travel; where they disagree, they run what all have.
    names = subject.processes.gather([entrant.name for entrant in entrants])
    entrants = [entrant for entrant in entrants if all(entrant.name in known for known in names)]
    suspicious = subject.processes.first(lambda: bool(analysis.suspects))
    asking: list[Step] = []
    if subject.outside:
        race = run_race(subject, inside, entrants)
        asking = list(outside_steps(subject, detector=facts.has_detector))
        asked = [Queried(inner=attack, answers=subject.answers) for attack in extra_attacks]
        campaign = Campaign(subject, standing, facts)
        campaign.run_outside(asking, asked)
    else:
        race = campaign.run(entrants, suspicious, extra_attacks)

    spent = queries_spent(subject, standing, asking) if subject.outside else None
    counted = None
    if facts.has_detector:
        counted = subject.processes.first(lambda: count_rejections(subject, standing))
        if not subject.outside:
            points, some = counted.x_adv.to(subject.device), subject.everyone[: counted.examples]
            standing.step("detector ignored", "", lambda part, _: points[part], some)
    progress.stage("controls")
    controlled = control(subject, standing, campaign, race.winners()[0])

    progress.stage("final judgement")
    draws = 1 if not subject.random else max(8, 64 // subject.classifier.passes)
    final = standing.judged(standing.x_adv, "final", draws)
    clean = standing.judged(subject.x, "final clean", draws, goal=(subject.y, subject.misclassification))
    left = inside.robust_accuracy if subject.outside else 1 - float(final.failure_rate.mean())
    findings = [] if counted is None else detector_finding(subject, counted, naive - left)
    findings += _findings(subject, analysis, state, race, naive - left)
    findings += unlocated(naive - left, findings, detector=facts.has_detector)
    for finding in findings:
        progress.finding(finding)
    controls = [as_control(e, named=bool(findings), outside=subject.outside) for e in controlled.examined]
    controls.append(consistency(subject, standing, campaign.naive_rates, clean, final, draws, controlled))

    def conclude() -> Report:
        outcome = Outcome(
            subject,
            standing,
            facts,
            state,
            naive,
            clean,
            final,
            draws,
            findings,
            controls,
            controlled.curve,
            began,
            spent,
        )
        report = outcome.report()
        outcome.write_evidence()
        return report

    return subject.processes.first(conclude)


def _inside(subject: Subject, standing: Standing) -> Standing:
    """The standing of attacks that see the network: the audit's own, unless the adversary may not."""
    if not subject.outside:
        return standing
    inside = _standing(subject)
    inside.progress, inside.elsewhere = Silent(), standing.elsewhere
    inside.step("clean inside", "", lambda part, _: subject.x[part], subject.everyone)
    return inside


def _standing(subject: Subject) -> Standing:
    return Standing(
        subject.classifier,
        subject.x,
        subject.aim,
        subject.threat,
        seed=subject.seed,
        index=subject.index,
        draws=1 if not subject.random else min(16, max(4, 160 // subject.classifier.passes)),
        batch_size=subject.batch_size,
        journal=subject.journal,
        progress=subject.progress,
        processes=subject.processes,
    )


def _findings(
    subject: Subject, analysis: Analysis, state: GradientState, race: Race, naive_gap: float
) -> list[MaskingFinding]:
    """The operations that fooled the standard attack, off whose accuracy the whole audit took `naive_gap`."""
    suspects = confirmed(
        analysis,
        state,
        deterministic=not subject.random,
        gap=race.gap,
        naive_gap=naive_gap,
    )
    winner = race.winners()[0]
    general = winner.name
    if subject.random:
        general = "EOT: gradients averaged over as many draws as their noise demands"
    return describe(suspects, winner.at, general)
