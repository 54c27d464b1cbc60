"""The audit: preflight, trace, race, winners on all, ever more effort on ever fewer, and a verdict."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..attacks import Attack
from ..attacks.foreign import as_attack
from ..attacks.queried import Queried
from ..claim.claim import Claim
from ..classifier import Classifier, Meter, Network
from ..data import Data
from ..remedies import candidates
from ..state import State
from ..target.target import Target
from ..tracing.suspect import OFFERS, Analysis
from .campaign.attack_runner import Campaign
from .campaign.black_box import outside_steps, queries_spent
from .campaign.detector import count_rejections, detector_finding
from .campaign.entrants import source_folder, write_entrants
from .campaign.pricing import priced
from .campaign.race import Race, credited, run_race
from .campaign.standing import Standing
from .campaign.steps import Step
from .confirm import as_verify_will_see
from .context import Subject, subject_of
from .controls.consistency import answers_everywhere, consistency, in_company
from .controls.reopening import control
from .controls.run import as_control
from .controls.suites import left_out
from .evidence import final_draws, write_report
from .findings import GradientState, confirmed, describe, harmless, unlocated
from .optional.optional import tried
from .prepare import look_over, looked_over, split_off, trace, with_class_names
from .records import Fact, MaskingFinding, Report
from .report_builder import Outcome
from .runtime import forecast
from .runtime.inference import released
from .runtime.progress import Progress, Silent


@torch.inference_mode(False)
@torch.enable_grad()
def audit(
    target: Target | Classifier | nn.Module | Network,
    data: Data,
    claim: Claim,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    attacks: Sequence[Any] = (),
) -> Report:
    """Audits a classifier on some examples and returns the report.

    **Arguments**
    - `target`: a loaded `Target`, a `Classifier`, or a network: input `[0, 1]` NCHW float32, output logits.
    - `data`: the examples to attack.
    - `claim`: the threat model, the claimed accuracy if there is one, and every option: `unmask.claim.claim.Claim`
      says what each does. Its `device` is by default the network's own.
    - `out`: folder for the journal, `report.json` and `evidence.safetensors`; nothing is written without it.
    - `resume`: go on with the journal in `out`.
    - `progress`: is told what goes on.
    - `attacks`: of your own, or of another toolbox (`unmask.attacks.foreign`), run after the plan's, on everything
      not yet broken.

    Under a targeted goal robust accuracy is the share that no attack brought to its target, wrong without an attack
    or not. Where the adversary only learns `scores` or `labels`, masking is looked for all the same, by an auditor who
    sees the network; nothing found that way counts against the claim.

    **Raises** `UnusableInput` or `ModelFailed` with one line: name, value, way out.
    """
    attacks = [as_attack(attack, type(attack).__name__) for attack in attacks]
    target, data = released(target, data)
    folder = source_folder(target)
    subject = subject_of(target, data, claim, out=out, resume=resume, progress=progress, attacks=attacks)
    with subject.writing(), split_off(subject) as subject:
        return _audited(with_class_names(subject), attacks, folder)


def _audited(subject: Subject, attacks: Sequence[Attack], folder: Path | None) -> Report:
    """The plan, step by step. `folder`: of the target's source."""
    began = time.perf_counter()
    progress = subject.progress
    progress.stage("preflight")
    held = State(subject.classifier.network)  # before anybody asks it
    facts, size = subject.processes.first(partial(look_over, subject, held))
    subject = looked_over(subject, facts, size, held)
    del held  # with its copy of every tensor
    tried(subject, "the forecast", partial(forecast.say, subject, facts), None)
    progress.stage("trace")
    analysis, state, learned = trace(subject, facts)
    if analysis.warning:
        facts = replace(facts, warnings=(*facts.warnings, analysis.warning))
    standing = _standing(subject)
    progress.stage("clean")
    clean_rates, _ = standing.step("clean", None, lambda part, _: subject.x[part], subject.everyone)
    inside = _inside(subject, standing)
    campaign = Campaign(subject, inside, facts)
    progress.stage("standard attack")
    naive = campaign.naive(clean_rates)
    standard = campaign.naive_rates
    entrants = candidates(
        analysis,
        subject.threat,
        deterministic=not subject.random,
        detector=facts.has_detector,
        draws=subject.budget.draws,
        surrogate=subject.classifier.surrogate is not None,
        learned=learned,
    )
    # Each process traced for itself, for a repair does not travel; where they disagree, they run what all have.
    names = subject.processes.gather([entrant.name for entrant in entrants])
    entrants = priced(subject, [e for e in entrants if all(e.name in known for known in names)])
    tried(subject, "the forecast", partial(forecast.say_again, subject, facts, entrants), None)
    suspicious = subject.processes.first(
        lambda: any(s.symptom.asks not in OFFERS for s in analysis.everywhere)
    )
    asking: list[Step] = []
    if subject.outside:
        race = run_race(subject, inside, entrants)
        asking = list(outside_steps(subject, detector=facts.has_detector))
        asked = [Queried(inner=attack, answers=subject.answers) for attack in attacks]
        campaign = Campaign(subject, standing, facts)
        campaign.run_outside(asking, asked)
    else:
        race = campaign.run(entrants, suspicious, attacks)

    spent = queries_spent(subject, standing, asking) if subject.outside else None
    counted = None
    if facts.has_detector:
        counted = subject.processes.first(lambda: count_rejections(subject, standing))
        if not subject.outside:
            points, some = counted.x_adv.to(subject.device), subject.everyone[: counted.examples]
            standing.step("detector ignored", None, lambda part, _: points[part], some)
    progress.stage("controls")
    controlled = control(subject, standing, campaign, race.winners()[0])

    progress.stage("final judgement")
    draws, since = final_draws(subject.classifier.passes, stochastic=subject.random), time.perf_counter()
    final = standing.judged(standing.x_adv, "final", draws)
    clean = standing.judged(subject.x, "final clean", draws, goal=(subject.y, subject.misclassification))
    took = time.perf_counter() - since
    clean, final, unconfirmed = as_verify_will_see(
        subject, standing, clean, final, controlled.examined, took, facts
    )
    left = inside.robust_accuracy if subject.outside else 1 - float(final.failure_rate.mean())
    findings = [] if counted is None else detector_finding(subject, counted, naive - left)
    worst = inside.rate.clamp_min(0) if subject.outside else final.failure_rate
    gained = 0.0 if standard is None else credited(worst - standard)
    named, harms_nothing = _findings(
        subject, analysis, state, race, naive - left, gained, controlled.steadiness
    )
    findings += named
    findings += unlocated(gained, findings, state, detector=facts.has_detector)
    for finding in findings:
        progress.finding(finding)
    stands = bool((final.failure_rate < 1).any())
    means = partial(as_control, named=bool(findings), outside=subject.outside, stands=stands)
    controls = [means(e) for e in controlled.examined]
    controls += left_out(subject.threat, outside=subject.outside)
    controls.append(consistency(subject, standing, campaign.naive_rates, clean, final, draws, controlled))
    controls += [answers_everywhere(standing, final), *in_company(subject, facts, final), *unconfirmed]

    def conclude() -> Report:
        outcome = Outcome(
            subject, standing, facts, state, naive, clean, final, draws, findings, harms_nothing, controls,
            controlled.curve, began, folder, spent, campaign.near_standard,
        )  # fmt: skip
        report = outcome.report()
        outcome.write_evidence()
        write_entrants(subject, facts, entrants, race, analysis, folder)
        # Before what is optional, and again behind it: nothing that fails there may cost the verdict.
        write_report(subject.out, report)
        report = outcome.with_bounds(report)
        write_report(subject.out, report)
        return report

    return subject.processes.first(conclude)


def _inside(subject: Subject, standing: Standing) -> Standing:
    """The standing of attacks that see the network: the audit's own, unless the adversary may not."""
    if not subject.outside:
        return standing
    # Both spend, and what is spent is counted once.
    inside = _standing(replace(subject, progress=Silent()), elsewhere=standing.rounds.elsewhere)
    inside.step("clean inside", None, lambda part, _: subject.x[part], subject.everyone)
    return inside


def _standing(subject: Subject, elsewhere: Meter | None = None) -> Standing:
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
        elsewhere=elsewhere,
    )


# What is said of a finding where the race was won by what a standard attack follows.
OWN = "none: no other gradient led further than the network's own"


def _findings(
    subject: Subject,
    analysis: Analysis,
    state: GradientState,
    race: Race,
    naive_gap: float,
    gained: float,
    steady: float,
) -> tuple[list[MaskingFinding], list[Fact]]:
    """The operations that fooled the standard attack, off whose accuracy the whole audit took `naive_gap`.

    Beside them those that were suspected and fooled nobody.
    """
    suspects = confirmed(
        analysis,
        state,
        deterministic=not subject.random,
        gap=race.gap,
        naive_gap=naive_gap,
        repaired=race.winners()[0].at,
        gained=gained,
        steady=steady,
    )
    winner, many = race.winners()[0], "EOT: gradients averaged over as many draws as their noise demands"
    general = many if subject.random else OWN if winner.exact else winner.name
    facts = harmless(analysis, suspects, state, deterministic=not subject.random)
    return describe(suspects, winner.at, general), facts
