"""The audit: preflight, trace, race, winners on all, ever more effort on ever fewer, and a verdict."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .. import __version__
from ..attacks import APGD, Attack
from ..bounds import certify
from ..classifier import Classifier, Meter, Network
from ..data import Data
from ..diagnostics import Preflight, preflight
from ..errors import UnmaskError
from ..judge import Judgement, judge
from ..objectives import cross_entropy
from ..randomness import Streams
from ..threat import ThreatModel
from ..tracing.analysis import Analysis, analyse
from .candidates import Candidate, candidates
from .controls import as_control, examine, suite
from .evidence import Evidence, hash_images, write_evidence
from .findings import GradientState, confirmed, describe, gradient_state, unlocated
from .journal import Journal
from .plan import Step, averaged_step, black_box_steps, budget_named, cascade, first_step, more_targets
from .progress import Progress, Silent
from .records import (
    AccuracyAtCost,
    AccuracyAtEpsilon,
    AttackRecord,
    Control,
    Cost,
    Environment,
    GradientHistogram,
    ImageTriple,
    MaskingFinding,
    Report,
    ThreatRecord,
    clopper_pearson,
    verdict,
)
from .standing import Standing
from .target import Target, checkpoint_hash

# A race is worth its cost only where it can change something; this many winners go on to all examples. Ours.
WINNERS = 3
# If the winners leave more than this of the race's examples, gradient-free attacks run on everything. Ours.
STUBBORN = 0.05
# A race whose best entrant leaves more than this shows that no gradient is of use. Ours.
USELESS = 0.5
# Linear relaxations of more hidden elements than this take minutes an example. Ours.
RELAXABLE = 20_000
# An attack goes on with more targets while it breaks at least this share of what it is given. Ours.
PAYING = 0.03


@dataclass(frozen=True)
class Race:
    """How the candidates did: `[candidates, examples]` failure rates."""

    entrants: list[Candidate]
    rates: Tensor

    def robust(self, name: str | None = None) -> float:
        """Accuracy that one candidate leaves; the best of the others if no name is given."""
        accuracy = 1 - self.rates.mean(1)
        if name is None:
            return float(accuracy[1:].min()) if len(accuracy) > 1 else float(accuracy[0])
        return float(accuracy[[c.name for c in self.entrants].index(name)])


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

    **Raises** `UnusableInput` or `ModelFailed` with one line: name, value, way out.
    """
    return _Audit(
        target,
        data,
        threat,
        claim,
        passes,
        budget,
        exhaustive,
        seed,
        batch_size,
        device,
        out,
        resume,
        progress,
    ).run(extra_attacks)


class _Audit:
    def __init__(
        self,
        target: Any,
        data: Data,
        threat: ThreatModel,
        claim: float | None,
        passes: int,
        budget: str,
        exhaustive: bool,
        seed: int,
        batch_size: int,
        device: torch.device | str | None,
        out: str | os.PathLike[str] | None,
        resume: bool,
        progress: Progress | None,
    ):
        if claim is not None and not 0 <= claim <= 1:
            raise UnmaskError(f"the claim is {claim}; give an accuracy between 0 and 1")
        self.budget_name, self.budget = budget, budget_named(budget)
        network = target.network if isinstance(target, Target) else target
        classifier = network if isinstance(network, Classifier) else Classifier(network)
        if passes != 1 or not isinstance(network, Classifier):
            classifier = classifier.replace(passes=passes)
        if device is not None and isinstance(classifier.network, nn.Module):
            classifier.network.to(device)
        self.device = torch.device(device) if device is not None else classifier.device
        self.classifier = classifier.replace(meter=Meter())
        self.spec = target.spec if isinstance(target, Target) else type(classifier.network).__name__
        self.hash = (
            target.checkpoint_hash if isinstance(target, Target) else checkpoint_hash(classifier.network)
        )
        self.data, self.threat, self.claim = data, threat, claim
        self.exhaustive, self.seed, self.batch_size = exhaustive, seed, batch_size
        self.out = Path(out) if out is not None else None
        self.progress: Progress = progress or Silent()
        self.x, self.y, self.index = (t.to(self.device) for t in (data.x, data.y, data.index))
        self.journal = None
        if self.out is not None:
            self.journal = Journal(self.out / "journal", self._settings(), resume=resume)
        self.began = time.perf_counter()

    def _settings(self) -> dict[str, Any]:
        return {
            "target": self.spec,
            "checkpoint": self.hash,
            "data": self.data.name,
            "split": self.data.split,
            "examples": len(self.data),
            "norm": self.threat.norm,
            "epsilon": self.threat.epsilon,
            "claim": self.claim,
            "passes": self.classifier.passes,
            "budget": self.budget_name,
            "exhaustive": self.exhaustive,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "version": __version__,
        }

    # --- the plan --------------------------------------------------------------------------------------------------

    def run(self, extra_attacks: Sequence[Attack]) -> Report:
        everyone = torch.arange(len(self.x), device=self.device)
        streams = Streams.seeded(self.seed, self.index, "preflight")
        self.progress.stage("preflight")
        facts = self._preflight(streams)
        self.classifier = self.classifier.replace(
            deterministic=facts.deterministic and facts.seedable, clones_input=facts.writes_input
        )
        self.random = not self.classifier.deterministic
        self.progress.stage("trace")
        analysis, state = self._trace()
        self.standing = Standing(
            self.classifier,
            self.x,
            self.y,
            self.threat,
            seed=self.seed,
            index=self.index,
            draws=1 if not self.random else min(16, max(4, 160 // self.classifier.passes)),
            batch_size=self.batch_size,
            journal=self.journal,
            progress=self.progress,
        )
        standing = self.standing
        self.progress.stage("clean")
        clean_rates, _ = standing.step("clean", "", lambda part, _: self.x[part], everyone)
        self.progress.stage("naive attack")
        naive = self._naive(facts, clean_rates)
        entrants = candidates(
            analysis,
            self.threat,
            deterministic=not self.random,
            detector=facts.has_detector,
            draws=self.budget.draws,
        )
        race, winners = Race(entrants[:1], torch.zeros(1, 1)), entrants[:1]
        try:
            self._stop_if_decided()
            race = self._race(entrants)
            winners = self._winners(race)
            self._main(winners, race, facts, analysis)
            self._extra(extra_attacks)
        except _Decided:
            self.progress.note("the claim is refuted; --exhaustive would go on")
        self.progress.stage("final judgement")
        final, clean = self._final()
        suspects = confirmed(
            analysis,
            state,
            deterministic=not self.random,
            gap=race.robust(race.entrants[0].name) - race.robust(),
            naive_gap=naive - (1 - float(final.failure_rate.mean())),
        )
        general = (
            "" if not self.random else "EOT: gradients averaged over as many draws as their noise demands"
        )
        findings = describe(suspects, winners[0].at, general or winners[0].name)
        findings += unlocated(naive - (1 - float(final.failure_rate.mean())), findings)
        for finding in findings:
            self.progress.finding(finding)
        self.progress.stage("controls")
        controls, curve = self._controls(winners[0], bool(findings))
        return self._report(facts, state, naive, clean, final, findings, controls, curve)

    def _preflight(self, streams: Streams) -> Preflight:
        while True:
            try:
                return preflight(
                    self.classifier,
                    self.x,
                    self.y,
                    claim=self.claim,
                    box=self.threat.box,
                    batch_size=self.batch_size,
                    generator=streams,
                )
            except torch.OutOfMemoryError:
                if self.batch_size == 1:
                    raise
                self.batch_size = max(1, min(self.batch_size, len(self.x)) // 2)
                self.progress.note(f"out of memory: going on with batches of {self.batch_size}")

    def _trace(self) -> tuple[Analysis, GradientState]:
        seen = min(64, self.batch_size)
        with torch.no_grad():
            logits = self.classifier(
                self.x[:seen], generator=Streams.seeded(self.seed, self.index[:seen], "pick")
            ).logits
        right = (logits.argmax(1) == self.y[:seen]).nonzero()[:, 0]
        some = (right if len(right) >= 4 else torch.arange(min(8, len(self.x)), device=self.device))[:8]
        x, y = self.x[some], self.y[some]
        streams = Streams.seeded(self.seed, self.index[some], "trace")
        analysis = analyse(self.classifier, x, y, self.threat, seed=self.seed, generator=streams)
        more = right[: min(32, self.batch_size)] if len(right) >= 4 else some
        streams = Streams.seeded(self.seed, self.index[more], "gradient")
        state = gradient_state(self.classifier, self.x[more], self.y[more], generator=streams)
        return analysis, state

    def _naive(self, facts: Preflight, clean_rates: Tensor) -> float:
        """What a standard APGD with cross-entropy and the exact gradient reports."""
        steps = self.budget.naive_steps
        recipe = f"naive: APGD-{steps}, cross-entropy, exact gradient"
        chosen = self.standing.unbroken()
        rates = clean_rates.clone()
        if facts.gradient_available:
            attack = APGD(steps=steps, objective=cross_entropy, early_stop=True)
            try:
                alone = self.standing.attack("naive", recipe, attack, chosen)
            except RuntimeError:  # its own backward refuses, as it would for anybody
                alone = torch.zeros(len(chosen), device=self.device)
            rates[chosen] = torch.maximum(rates[chosen], alone)
        return 1 - float(rates.mean())

    def _race(self, entrants: list[Candidate]) -> Race:
        """All candidates on a few examples: those that the naive attack left, as far as there are any."""
        if len(entrants) == 1:
            return Race(entrants, torch.zeros(1, 1))
        self.progress.stage("race")
        wanted = self.budget.race_examples
        left = (self.standing.rate < 0.5).nonzero()[:, 0]
        others = (self.standing.rate >= 0.5).nonzero()[:, 0]
        some = torch.cat([left, others])[:wanted].sort().values
        rates = []
        for entrant in entrants:
            attack = APGD(
                steps=self.budget.race_steps,
                gradient=entrant.gradient,
                objective=entrant.objective,
                early_stop=not self.random,
            )
            recipe = f"race: APGD-{attack.steps}, {entrant.name}"
            try:
                rates.append(self.standing.attack(f"race {entrant.name}", recipe, attack, some))
            except (UnmaskError, RuntimeError, NotImplementedError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                rates.append(torch.zeros(len(some), device=self.device))
                first_line = (str(error).splitlines() or [""])[0]
                self.progress.note(f"{entrant.name} does not run on this network: {first_line[:120]}")
        return Race(entrants, torch.stack(rates))

    def _winners(self, race: Race) -> list[Candidate]:
        """The best of the race, then whoever breaks what those before did not; at most `WINNERS`."""
        if len(race.entrants) == 1:
            return race.entrants
        chosen: list[int] = []
        covered = torch.zeros(race.rates.shape[1], device=self.device)
        for _ in range(WINNERS):
            gains = (race.rates - covered).clamp_min(0).sum(1)
            best = int(gains.argmax())
            if chosen and gains[best] < 0.5:
                break
            chosen.append(best)
            covered = torch.maximum(covered, race.rates[best])
        return [race.entrants[n] for n in chosen]

    def _main(self, winners: list[Candidate], race: Race, facts: Preflight, analysis: Analysis) -> None:
        early_stop = not self.random
        first, *others = winners
        self.progress.stage(f"attack: {first.name}")
        if first.name != "exact":
            self._run(first_step(self.budget, first.name, first.gradient, first.objective, early_stop))
        for other in others:
            self._run(first_step(self.budget, other.name, other.gradient, other.objective, early_stop))
        if self.random:
            self._run(averaged_step(self.budget, first.name, first.gradient, first.objective))
        suspicious = bool(analysis.suspects) or not facts.gradient_available or facts.label_only
        steps = cascade(
            self.budget,
            first.name,
            first.gradient,
            deterministic=not self.random,
            detector=facts.has_detector,
            classes=facts.num_classes,
        )
        gained = attacked = 0
        for step in steps:
            broke, of = self._run(step)
            if not step.attack_is_search:
                gained, attacked = gained + broke, max(attacked, of)
        # On networks that are easily broken the survivors are few and anywhere: while targets pay, they go on.
        for step in more_targets(
            first.name, first.gradient, early_stop=early_stop, classes=facts.num_classes
        ):
            if gained < PAYING * attacked:
                break
            gained, attacked = self._run(step)
        if suspicious and self.standing.robust_accuracy > STUBBORN:
            self.progress.stage("attack: gradient-free")
            useless = early_stop and len(race.entrants) > 1 and race.robust() > USELESS
            for step in black_box_steps(self.budget, self.threat, early_stop=early_stop, substitute=useless):
                self._run(step)

    def _extra(self, attacks: Sequence[Attack]) -> None:
        for n, attack in enumerate(attacks):
            self._run(Step(f"extra {n}", f"yours: {type(attack).__name__}", attack))

    def _run(self, step: Step) -> tuple[int, int]:
        """Runs a step; returns how many examples it broke, of how many."""
        chosen = self.standing.unbroken(step.fraction)
        if not len(chosen):
            return 0, 0
        self.standing.attack(step.name, step.recipe, step.attack, chosen)
        self._stop_if_decided()
        return self.standing.spent[-1].newly_broken, len(chosen)

    def _stop_if_decided(self) -> None:
        """Stops once the interval refutes the claim; for random networks on fresh draws, as it will be scored."""
        if self.claim is None or self.exhaustive:
            return
        n = len(self.x)
        if clopper_pearson(min(n, self.standing.robust_accuracy * n), n)[1] >= self.claim:
            return
        if self.random:
            fresh = self._judged(self.standing.x_adv, "decided?", 4).failure_rate
            if clopper_pearson(min(n, float((1 - fresh).sum())), n)[1] >= self.claim:
                return
        raise _Decided

    # --- scoring ---------------------------------------------------------------------------------------------------

    def _judged(self, x_adv: Tensor, tag: str, draws: int) -> Judgement:
        parts = torch.arange(len(self.x), device=self.device).split(self.standing.batch_size)
        streams = self.standing.streams(tag)
        seen = [
            judge(
                self.classifier,
                x_adv[p],
                self.x[p],
                self.y[p],
                self.threat,
                draws=draws,
                generator=streams[p],
            )
            for p in parts
        ]
        return Judgement(*(torch.cat([getattr(s, f) for s in seen]) for f in Judgement.__dataclass_fields__))

    @property
    def final_draws(self) -> int:
        return 1 if not self.random else max(8, 64 // self.classifier.passes)

    def _final(self) -> tuple[Judgement, Judgement]:
        final = self._judged(self.standing.x_adv, "final", self.final_draws)
        return final, self._judged(self.x, "final clean", self.final_draws)

    def _controls(
        self, winner: Candidate, suspicious: bool
    ) -> tuple[list[Control], list[tuple[float, float]]]:
        some = torch.arange(
            min(self.budget.control_examples, len(self.x), self.standing.batch_size), device=self.device
        )
        found, curve = [], []
        checks = suite(winner.gradient, winner.objective, early_stop=not self.random)
        for done, (name, check) in enumerate(checks.items()):
            key = f"control {name}"
            entry = self.journal.get(key) if self.journal else None
            if entry is not None:
                control = Control(**entry.record["control"])
                points = [tuple(p) for p in entry.record["curve"]]
                Standing._add(self.standing.replayed, Meter(**entry.record["meter"]))
            else:
                before = self.classifier.meter.snapshot()
                streams = Streams.seeded(self.seed, self.index[some], key)
                reading = examine(check, self.classifier, self.x[some], self.y[some], self.threat, streams)
                control = as_control(name, reading, suspicious=suspicious)
                points = list(reading.curve) if reading is not None and name == "epsilon monotonicity" else []
                if self.journal:
                    spent = vars(self.classifier.meter.since(before))
                    record = {"control": control.model_dump(), "curve": points, "meter": spent}
                    self.journal.put(key, record)
            found.append(control)
            curve += points
            self.progress.update(self.standing.robust_accuracy, done + 1, len(checks))
        return found, curve

    # --- the report ------------------------------------------------------------------------------------------------

    def _report(
        self,
        facts: Preflight,
        state: GradientState,
        naive: float,
        clean: Judgement,
        final: Judgement,
        findings: list[MaskingFinding],
        controls: list[Control],
        curve: list[tuple[float, float]],
    ) -> Report:
        n = len(self.x)
        right = min(float(n), float((1 - final.failure_rate.double()).sum()))
        interval = clopper_pearson(right, n)
        certified = self._certified(final)
        spent = self.standing.total_meter()
        if self.out is not None:
            self._write_evidence(final)
        return Report(
            schema=1,
            verdict=verdict(
                claim=self.claim,
                interval=interval,
                certified_accuracy=certified,
                controls=controls,
            ),
            claim=self.claim,
            threat=self._threat_record(),
            examples=n,
            clean_accuracy=1 - float(clean.failure_rate.mean()),
            robust_accuracy=right / n,
            robust_accuracy_interval=interval,
            naive_robust_accuracy=naive,
            certified_accuracy=certified,
            masking=findings,
            attacks=[
                AttackRecord(
                    recipe=s.recipe,
                    robust_accuracy=s.robust_accuracy,
                    newly_broken=s.newly_broken,
                    forwards=s.meter.forwards,
                    backwards=s.meter.backwards,
                    seconds=round(s.seconds, 3),
                )
                for s in self.standing.spent
            ],
            controls=controls,
            cost=Cost(
                forwards=spent.forwards,
                backwards=spent.backwards,
                judge_forwards=spent.judge_forwards,
                seconds=round(time.perf_counter() - self.began, 3),
            ),
            environment=Environment(
                versions={
                    "unmask": __version__,
                    "torch": torch.__version__,
                    "numpy": np.__version__,
                    "python": platform.python_version(),
                },
                device=str(self.device),
                seed=self.seed,
                batch_size=self.batch_size,
                checkpoint_hash=self.hash,
            ),
            target=self.spec,
            data=self.data.name,
            split=self.data.split,
            passes=self.classifier.passes,
            budget=self.budget_name,
            exhaustive=self.exhaustive,
            stochastic=self.random,
            warnings=list(facts.warnings),
            accuracy_against_epsilon=[AccuracyAtEpsilon(epsilon=e, accuracy=a) for e, a in curve],
            accuracy_against_cost=self._track(),
            gradient_histogram=_histogram(state.elements),
            images=self._images(clean, final),
        )

    def _threat_record(self) -> ThreatRecord:
        return ThreatRecord.model_validate(
            {"norm": self.threat.norm, "epsilon": self.threat.epsilon, "goal": self.threat.goal}
        )

    def _certified(self, final: Judgement) -> float | None:
        """Share of the examples that a bound proves robust; None where no bound applies to the network."""
        network = self.classifier.network
        if self.random or not isinstance(network, nn.Module) or self.classifier.passes > 1:
            return None
        self.progress.stage("bounds")
        left = (final.failure_rate == 0).nonzero()[:, 0]
        try:
            proved = certify(
                network, self.x[left], self.y[left], self.threat, methods=("interval",)
            ).certified
            open_ = left[~proved]
            hidden = _hidden_elements(network, self.x[:1]) if len(open_) else 0
            if len(open_) and hidden <= RELAXABLE and hidden * len(open_) <= self.budget.relaxation:
                # A pilot first: undefended networks are not worth the wait.
                for part in (open_[:8], open_[8:]):
                    more = certify(
                        network, self.x[part], self.y[part], self.threat, methods=("crown",)
                    ).certified
                    proved = torch.cat([proved[proved], more[more]])
                    if not more.any():
                        break
        except UnmaskError:
            return None
        return float(proved.sum()) / len(self.x)

    def _track(self) -> list[AccuracyAtCost]:
        points = self.standing.track
        keep = points if len(points) <= 200 else points[:: len(points) // 200 + 1] + points[-1:]
        return [AccuracyAtCost(forwards=f, backwards=b, accuracy=a) for f, b, a in keep]

    def _write_evidence(self, final: Judgement) -> None:
        assert self.out is not None
        found = (final.failure_rate > 0).nonzero()[:, 0]
        write_evidence(
            self.out,
            Evidence(
                x_adv=self.standing.x_adv[found],
                index=self.index[found],
                label=self.y[found],
                prediction=final.prediction[found],
                failure_rate=final.failure_rate[found],
                originals=hash_images(self.x[found]),
                threat=self._threat_record(),
                data=self.data.name,
                split=self.data.split,
                target=self.spec,
                checkpoint_hash=self.hash,
                passes=self.classifier.passes,
                draws=self.final_draws,
            ),
        )

    def _images(self, clean: Judgement, final: Judgement, count: int = 6) -> list[ImageTriple]:
        """Examples that were right and are now mostly wrong, spread over the classes as they come."""
        if self.x.ndim != 4 or self.x.shape[1] not in (1, 3):
            return []
        fresh = ((final.failure_rate > 0.5) & (clean.failure_rate < 0.5)).nonzero()[:, 0]
        chosen: list[int] = []
        for n in sorted(fresh.tolist(), key=lambda n: [int(self.y[m]) for m in chosen].count(int(self.y[n]))):
            if len(chosen) < count:
                chosen.append(n)
        return [
            ImageTriple(
                index=int(self.index[n]),
                label=int(self.y[n]),
                clean_prediction=int(clean.prediction[n]),
                adversarial_prediction=int(final.prediction[n]),
                clean=self.x[n].cpu().tolist(),
                adversarial=self.standing.x_adv[n].cpu().tolist(),
            )
            for n in chosen
        ]


class _Bends(TorchFunctionMode):
    """Counts the outputs of activations, as modules and as functions alike."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "").rstrip("_") in ("relu", "sigmoid", "tanh"):
            self.count += made.numel()
        return made


def _hidden_elements(network: nn.Module, x: Tensor) -> int:
    """Outputs of all layers that bend: the cost of a linear relaxation grows with their square."""
    with torch.no_grad(), _Bends() as bends:
        network(x.clone())
    return bends.count


class _Decided(Exception):
    """The claim is refuted; nothing more needs to run."""


def _histogram(elements: Tensor) -> GradientHistogram:
    size = elements[torch.isfinite(elements)].abs().double()
    edges = [float(e) for e in range(-45, 6)]
    logs = size[size > 0].log10().clamp(edges[0], edges[-1] - 1e-9)
    counts = (
        torch.histc(logs, len(edges) - 1, edges[0], edges[-1]) if len(logs) else torch.zeros(len(edges) - 1)
    )
    zero = float((size == 0).double().mean()) if len(size) else 1.0
    return GradientHistogram(bin_edges=edges, counts=[int(c) for c in counts], zero_share=zero)
