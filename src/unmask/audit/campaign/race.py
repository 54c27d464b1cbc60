"""The race: every way of following the gradient runs the same short attack on a few examples."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from scipy.stats import binomtest
from torch import Tensor

from ...attacks import ascent
from ...errors import UnmaskError, first_line
from ...foreign import wants_to_stop
from ...remedies import Candidate
from ..context import Subject
from .pricing import PATIENCE, duration, payable, race_seconds
from .standing import Standing

# A race is worth its cost only where it can change something; this many winners go on to all examples. Ours.
WINNERS = 3
# A repair is credited where equally good gradients would give its lead with at most this probability. Ours.
LUCK = 0.1
# Further images on which the best of the others meets the exact gradient where those of the race tell nothing. Ours.
HEAT = 48


def credited(gains: Tensor, luck: float = LUCK) -> float:
    """Mean of the gains in failure rate; 0 where luck explains that more are gains than losses.

    `gains`: `[examples]`, each in [-1, 1]. A sign test over the examples on which anything changed, at `luck`.
    """
    won, lost = int((gains > 0).sum()), int((gains < 0).sum())
    if not won or binomtest(won, won + lost, alternative="greater").pvalue > luck:
        return 0.0
    return float(gains.mean())


@dataclass(frozen=True)
class Race:
    """How the candidates did: `[candidates, examples]` failure rates.

    `heat`: `[2, others]`, of the exact gradient and the best of the others on further examples, where those of the race
    were too few to tell them apart.
    """

    entrants: list[Candidate]
    rates: Tensor
    heat: Tensor | None = None

    @classmethod
    def unrun(cls, entrants: list[Candidate]) -> Race:
        """One without a contest: only the first entrant, the exact gradient, stands."""
        return cls(entrants[:1], torch.zeros(1, 1))

    @property
    def exact(self) -> float:
        """Accuracy that the exact gradient leaves."""
        return float(1 - self.rates[0].mean())

    @property
    def repaired(self) -> float:
        """Accuracy that the best of the others leaves; the exact gradient's where there are no others."""
        accuracy = 1 - self.rates.mean(1)
        return float(accuracy[1:].min()) if len(accuracy) > 1 else float(accuracy[0])

    @property
    def gap(self) -> float:
        """Accuracy that the best of the others takes off the exact gradient; 0 where luck explains it.

        The examples are those that an attack with the exact gradient has left, so that any second attack breaks a few
        of them: a sign test over the examples on which the two differ, at `LUCK`; at half of it in a second look.
        """
        gains = self.rates[self.rates.mean(1).argmax()] - self.rates[0]
        gap = credited(gains)
        if gap > 0 or self.heat is None:
            return gap
        return credited(torch.cat([gains, self.heat[1] - self.heat[0]]), LUCK / 2)

    def winners(self) -> list[Candidate]:
        """The best, then whoever breaks what those before did not; at most `WINNERS`.

        Of those that are equally good it is the first; of repairs, the quickest that takes less than half of its time.
        Where nobody broke anything nothing tells for leaving the exact gradient, least of all that a repair is quick.
        """
        if len(self.entrants) == 1:
            return self.entrants
        chosen: list[int] = []
        covered = torch.zeros_like(self.rates[0])
        for _ in range(WINNERS):
            gains = (self.rates - covered).clamp_min(0).sum(1)
            first, *level = (gains == gains.max()).nonzero()[:, 0].tolist()
            prices = {n: self.entrants[n].seconds for n in level if first > 0}
            # A price of 0 is that of an estimate that did not run.
            quicker = [n for n, price in prices.items() if 0 < 2 * price < self.entrants[first].seconds]
            best = min(quicker, key=lambda n: prices[n], default=first)
            if chosen and gains[best] < 0.5:
                break
            chosen.append(best)
            covered = torch.maximum(covered, self.rates[best])
        return [self.entrants[n] for n in chosen]

    def rivals(self) -> list[Candidate]:
        """Those beside the winners that did no worse than the best, as far as luck goes, the better ones first.

        On images that all of them break a race tells nothing apart; what is left may fall to another one. None costs
        more than twice what the best does, and with the winners they are at most `WINNERS`.
        """
        winners = self.winners()
        dearest = 2 * winners[0].passes
        best = self.rates[self.rates.mean(1).argmax()]
        order = self.rates.mean(1).argsort(descending=True, stable=True).tolist()
        level = [self.entrants[n] for n in order if credited(best - self.rates[n]) == 0]
        level = [e for e in level if e not in winners and e.passes <= dearest]
        return level[: max(0, WINNERS - len(winners))]


def run_race(subject: Subject, standing: Standing, entrants: list[Candidate]) -> Race:
    """All candidates on a few examples: those that the standard attack left, as far as there are any.

    Where they would try everybody's patience, by their prices, it runs on fewer examples, and at last without the
    dearest entrants. All are compared on the same examples.
    """
    if len(entrants) == 1:
        return Race.unrun(entrants)
    subject.progress.stage("race")
    left = (standing.rate < 0.5).nonzero()[:, 0]
    others = (standing.rate >= 0.5).nonzero()[:, 0]
    some = torch.cat([left, others])[: subject.budget.race_examples]
    steps, wanted = subject.budget.race_steps, len(some)
    rest = left[wanted:][:HEAT]
    images, racing = payable(entrants, wanted, steps)
    if images < wanted or len(racing) < len(entrants):
        subject.progress.note(
            f"race on {images} of {wanted} images, {len(racing)} of {len(entrants)} gradients: all on all of them "
            f"would take about {duration(race_seconds(entrants, wanted, steps))}, these take "
            f"{duration(race_seconds(racing, images, steps))}"
        )
    some = some[:images]
    rates: list[Tensor] = []
    for entrant in racing:
        rates.append(_lap(subject, standing, entrant, some))
        if bool((rates[-1] >= 1).all()):
            break  # nobody can do better
    race = Race(racing[: len(rates)], torch.stack(rates))
    if not len(rest) or subject.random or race.repaired >= race.exact or race.gap > 0:
        return race
    pair = racing[0], race.winners()[0]
    patience = PATIENCE * wanted * steps - race_seconds(racing, images, steps)
    if race_seconds(pair, len(rest), steps) > patience:
        return race
    return replace(
        race, heat=torch.stack([_lap(subject, standing, entrant, rest, "heat") for entrant in pair])
    )


def _lap(
    subject: Subject, standing: Standing, entrant: Candidate, some: Tensor, name: str = "race"
) -> Tensor:
    attack = ascent(
        subject.threat,
        steps=subject.budget.race_steps,
        gradient=entrant.gradient,
        objective=entrant.objective,
        early_stop=not subject.random,
    )
    recipe = f"{name}: {attack.describe()}, {entrant.name}"
    try:
        return standing.attack(f"{name} {entrant.name}", recipe, attack, some)
    except BaseException as error:
        if isinstance(error, torch.OutOfMemoryError | OSError) or wants_to_stop(
            error
        ):  # OSError: the journal's
            raise
        foreseen = isinstance(error, UnmaskError | RuntimeError)
        said = f"{entrant.name} does not run on this network: {first_line(error)[:120]}"
        (subject.progress.note if foreseen else subject.warn)(said)
        return torch.zeros(len(some), device=subject.device)
