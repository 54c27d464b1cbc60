"""The attacks of an audit in their order, ever more effort on ever fewer examples, until the claim is decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...attacks import Attack, Others, Setting, ascent
from ...diagnostics import Preflight
from ...errors import GradientFailed, UnmaskError, Unsupported, first_line
from ...foreign import failure, wants_to_stop
from ...gradients import Exact, GradientEstimator
from ...objectives import cross_entropy
from ...remedies import Candidate, per_element
from ...statistics import mean_interval
from ..context import Subject
from ..distances import distances
from .own_attack import OwnAttack, own_name
from .plan import Budget
from .race import Race, run_race
from .standing import Standing
from .steps import (
    Step,
    averaged_steps,
    black_box_steps,
    first_step,
    joint_steps,
    slope_free_step,
    step_of,
)

# If the winners leave more than this of the race's examples, gradient-free attacks run on everything. Ours.
STUBBORN = 0.05
# A race whose best entrant leaves more than this shows that no gradient is of use. Ours.
USELESS = 0.5
# A line of stages goes on while the last one broke at least this share of what it was given: those that were nearest to
# breaking, so that of the rest fewer will fall. On networks whose gradient misleads a walk breaks a half and more, on
# others 0 to 5 % (`benchmarks/cascade_cost.py`). Ours.
PAYING = 0.1
# A share of the survivors is never fewer than these: of one example nothing can be learned. Ours.
AT_LEAST = 2


class _Decided(Exception):
    """The claim is refuted; nothing more needs to run."""


class Campaign:
    """Runs the plan's attacks; `standing` keeps what they find."""

    def __init__(self, subject: Subject, standing: Standing, facts: Preflight):
        self.subject, self.standing, self.facts = subject, standing, facts
        self.naive_rates: Tensor | None = None  # failure rates of all examples under the standard attack
        self.near_standard: Tensor | None = None  # `distances` of what it found
        self._searched = False

    def naive(self, clean_rates: Tensor) -> float:
        """What a standard attack with cross-entropy and the exact gradient reports; `clean_rates`: `[examples]`."""
        attack = ascent(self.subject.threat, steps=self.subject.budget.naive_steps, objective=cross_entropy)
        recipe = f"naive: {attack.describe()}, cross-entropy, exact gradient"
        chosen = self.standing.unbroken()
        rates = clean_rates.clone()
        if self.facts.gradient_available:
            try:
                alone = self.standing.attack("naive", recipe, attack, chosen)
            except (RuntimeError, GradientFailed):  # its own backward refuses, as it would for anybody
                alone = torch.zeros(len(chosen), device=self.subject.device)
            rates[chosen] = torch.maximum(rates[chosen], alone)
        self.naive_rates = rates
        self.near_standard = distances(self.subject, self.standing.x_adv, rates, clean_rates)
        return 1 - float(rates.mean())

    def run(self, entrants: list[Candidate], suspicious: bool, extra: Sequence[Attack]) -> Race:
        """Race, winners on everything, the cascade and the user's own; ends early once the claim is refuted.

        Returns the race: only the exact gradient stands in it if the claim was refuted before.
        """
        race = Race.unrun(entrants)
        try:
            self._stop_if_decided()
            race = run_race(self.subject, self.standing, entrants)
            self._main(race, suspicious or not self.facts.gradient_available or self.facts.label_only)
            self._run_own(extra)
        except _Decided:
            self.subject.progress.note("the claim is refuted; --exhaustive would go on")
        return race

    def run_outside(self, steps: Sequence[Step], extra: Sequence[Attack]) -> None:
        """The attacks of an adversary who only sees answers, then the user's own; ends early as `run` does."""
        self.subject.progress.stage("attack: queries")
        try:
            self._stop_if_decided()
            for step in steps:
                self._run(step)
            self._run_own(extra)
        except _Decided:
            self.subject.progress.note("the claim is refuted; --exhaustive would go on")

    def _run_own(self, extra: Sequence[Attack]) -> None:
        """The user's attacks; what they changed beside their proposals was put back and is said."""
        journal, processes = self.subject.journal, self.subject.processes
        for n, attack in enumerate(extra):
            key, name = f"side effects {n}", own_name(attack)
            entry = journal.get(key) if journal else None
            changed: set[str] = set(entry.record["changed"]) if entry else set()

            def told(more: list[str], key: str = key, changed: set[str] = changed) -> None:
                changed |= set(more)
                if journal:  # before the batch is: a resumed audit does not run it again
                    journal.put(key, {"changed": sorted(changed)})

            try:
                self._run(Step(f"extra {n}", f"yours: {name}", OwnAttack(attack, told)))
            finally:
                if everywhere := sorted({c for some in processes.gather(changed) for c in some}):
                    some = ", ".join(everywhere[:4]) + (", …" if len(everywhere) > 4 else "")
                    self.subject.warn(
                        f"the attack {name} broke the contract of an attack, which is undone: {some}"
                    )

    def _main(self, race: Race, suspicious: bool) -> None:
        setting = replace(self._setting(race.winners()[0].gradient), others=self._others())
        for budget in self.subject.budget.in_turn():
            self._spend(budget, race, setting, suspicious)

    def _spend(self, budget: Budget, race: Race, setting: Setting, suspicious: bool) -> None:
        """One budget: winners of the race on everything, special attacks, the lines of stages, gradient-free search."""
        first, *others = race.winners()
        early_stop, threat = not setting.random, self.subject.threat
        self.subject.progress.stage(f"attack: {first.name}")
        for winner in others if first.exact else (first, *others):
            self._run(first_step(budget, threat, winner.name, winner.gradient, winner.objective, early_stop))
        rivals, passes = race.rivals() if setting.random else [], self.subject.classifier.passes
        if setting.random:
            for step in averaged_steps(budget, threat, (first, *rivals), passes=passes):
                self._run(step)
        if setting.detector:
            for step in joint_steps(
                budget, threat, first.name, first.gradient, early_stop=early_stop, classes=setting.classes
            ):
                self._run(step)
        broken: dict[str, int] = {"": 1}  # by each stage that ran; what asks for no stage is always given
        for line in budget.lines_for(threat):
            for stage in line:
                if (stage.unless and stage.unless in broken) or not broken.get(stage.given):
                    break
                step = step_of(stage, first.name, setting)
                broke, of = self._try(step) if step else (0, 0)
                broken[stage.name] = broke
                if broke < PAYING * of or not of:
                    break
        for rival in rivals if self.standing.robust_accuracy > STUBBORN else ():
            self._try(first_step(budget, threat, rival.name, rival.gradient, rival.objective, early_stop))
        if suspicious and self.standing.robust_accuracy > STUBBORN:
            self.subject.progress.stage("attack: gradient-free")
            self._searched = True
            useless = early_stop and len(race.entrants) > 1 and race.repaired > USELESS
            for step in black_box_steps(budget, threat, setting, substitute=useless):
                self._try(step)

    def _setting(self, gradient: GradientEstimator) -> Setting:
        return Setting(
            gradient=gradient,
            random=self.subject.random,
            detector=self.facts.has_detector,
            classes=self._free_classes,
            shape=tuple(self.subject.x.shape[1:]),
        )

    def _others(self) -> Others:
        """The audit's own examples, with what the network takes them for."""
        seen = self.standing.judged(self.subject.x, "others", 1)
        return Others(self.subject.x, seen.prediction)

    def go_on(self, steps: Sequence[Step], *, search: bool) -> None:
        """What the controls ask for: attacks of theirs on all that is left, and `search` there without gradients.

        Search that has run is not run again. Ends early as `run` does.
        """
        subject, threat = self.subject, self.subject.threat
        subject.progress.stage("attack: as the controls ask")
        more = list(steps)
        if search and not self._searched:
            setting = self._setting(Exact())
            more += black_box_steps(subject.budget, threat, setting, substitute=False)
        if search and not subject.random:
            more.append(slope_free_step(subject.budget, threat, size=per_element(threat, subject.x)))
        self._searched |= search
        try:
            for step in more:
                self._try(step)
        except _Decided:
            subject.progress.note("the claim is refuted; --exhaustive would go on")

    @property
    def _free_classes(self) -> int:
        """Classes that an attack may aim at by its own choice: under a targeted goal there is no more than one."""
        return 2 if self.subject.threat.goal == "targeted" else self.facts.num_classes

    def _try(self, step: Step) -> tuple[int, int]:
        """As `_run`; an attack that does not know this norm or shape of input is left out, and that is said."""
        try:
            return self._run(step)
        except Unsupported as error:
            self.subject.progress.note(f"{step.name} is left out: {first_line(error)}")
            return 0, 0

    def _run(self, step: Step) -> tuple[int, int]:
        """Runs a step; returns how many examples it broke, of how many."""
        left = len(self.standing.unbroken())
        if not left:
            return 0, 0
        before = self.standing.broken
        chosen = self.standing.unbroken(min(1.0, max(step.fraction, AT_LEAST / left)))
        try:
            self.standing.attack(step.name, step.recipe, step.attack, chosen)
        except BaseException as error:
            failed_forward = isinstance(error, UnmaskError) and not isinstance(error, GradientFailed)
            # OSError: the journal's, on a full disk.
            ours = isinstance(error, torch.OutOfMemoryError | OSError)
            if failed_forward or ours or wants_to_stop(error):
                raise
            # A gradient that raises is the network's or a repair's; what was found so far stands, others go on.
            self.subject.warn(f"{step.recipe} does not run on this network: {failure(error)}")
        self._stop_if_decided()
        return self.standing.broken - before, len(chosen)

    def decided(self) -> bool:
        """Whether the claim is refuted and nothing more needs to run."""
        try:
            self._stop_if_decided()
        except _Decided:
            return True
        return False

    def _stop_if_decided(self) -> None:
        """Stops once the interval refutes the claim; for random networks on fresh draws, as it will be scored."""
        claim = self.subject.claim.claim
        if claim is None or self.subject.claim.exhaustive:
            return
        if mean_interval((1 - self.standing.rate.clamp_min(0)).tolist())[1] >= claim:
            return
        if self.subject.random:
            fresh = self.standing.judged(self.standing.x_adv, "decided?", 4).failure_rate
            if mean_interval((1 - fresh).tolist())[1] >= claim:
                return
        raise _Decided
