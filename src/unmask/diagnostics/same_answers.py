"""Whether equal images get equal answers: at the beginning and now, plainly asked, under attack, and judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..attacks import PGD, Attack
from ..classifier import Classifier, Network
from ..errors import GradientFailed, ModelFailed
from ..judge import judge
from ..randomness import Streams
from ..state import State
from ..threat import ThreatModel
from .answers import Answer, Disagreement, Recorded, disagreements
from .base import Diagnostic, Images, Labels, Reading
from .random_noise import RandomPoints

ATTACKED, JUDGED = "under attack", "to the judge"
UNASKED = "by a network that nobody had asked before"
BUILT = "built anew in a process without an audit"
ANEW = f"by the network {BUILT}"
# Of each occasion so many answers, the last ones to most images, are asked of a network that nobody has asked. Ours.
APART = 3


@dataclass(frozen=True, kw_only=True)
class SameAnswers(Diagnostic):
    """Asks the network again what it was asked before, in other circumstances.

    A network that counts its calls, looks at the clock, remembers what it saw, or knows an attack from a user (by what
    called it, by steps that are small, by a backward pass that came before) answers an attack and everybody else
    otherwise. Then nothing that an attack did not find tells anything. What preflight was told, what an attack is told
    on its way, and what the judge is told of its result are compared with what the network says to a plain question
    afterwards, each under the random numbers that it had. `value` is the share of the answers that are not given again.

    **Fields**
    - `early`: what the network said before the first attack.
    - `seedable`: whether equal seeds are to give equal answers; else means over draws are compared.
    - `untouched`: what the network keeps between calls, as it was before the first; put back before each plain
      question.
    - `apart`: the same network in a process in which nobody has asked it anything, or None: what it keeps where
      `untouched` does not see it, in another process or under a name of a library's, shows there.
    - `rebuilt`: the network built once more where there is no audit (`Rebuilt`), or None: what looks for one by the
      modules that are loaded, the words of the command line or the callers' names answers otherwise there.
    - `not_rebuilt`: why there is no such process where there should be one, for the explanation.
    - `attack`: whose questions are written down.
    - `examples`: at most so many are attacked.

    **Cost**: the attack, one judgement, and one forward for each question; sixteen where nothing can be seeded;
    a few of them once more `apart`, and `rebuilt`.
    """

    early: tuple[Answer, ...] = ()
    seedable: bool = True
    untouched: State | None = None
    apart: Network | None = None
    rebuilt: Network | None = None
    not_rebuilt: str = ""
    attack: Attack = PGD(steps=8)
    examples: int = 8

    def examine(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Reading:
        streams = Streams.of(generator, len(x))
        few = slice(self.examples)
        answers = _under_attack(self.attack, classifier, x[few], y[few], threat, streams[few])
        # In preflight the other images were still in the batch, and probabilities not yet logarithms.
        door = classifier if self.untouched is None else classifier.replace(state=self.untouched)
        parts = ((door.replace(alone=False), self.early), (door, answers))
        found = [d for to, of in parts for d in disagreements(to, of, seedable=self.seedable)]
        unheard = self.not_rebuilt
        for network, who in ((self.apart, UNASKED), (self.rebuilt, ANEW)):
            if network is not None and self.seedable and not found:
                found, failed = _elsewhere(door.replace(network=network, state=None), parts, who)
                unheard = failed if who == ANEW and failed else unheard
        total = sum(len(a.x) for _, of in parts for a in of)
        others = sum(d.others for d in found)
        return Reading(
            name="same_answers",
            passed=not found,
            value=others / max(1, total),
            expected="0: share of earlier answers that are not given again",
            explanation="; ".join(map(str, found)) + ": the network is not one function of the image."
            if found
            else "What was answered early, under attack and to the judge is answered again."
            + (f" Not compared with the network {BUILT}: {unheard}." if unheard else ""),
            statistics={"answers": float(total), "others": float(others)},
            decisive=True,
        )


def _elsewhere(
    apart: Classifier, parts: Sequence[tuple[Classifier, Sequence[Answer]]], who: str
) -> tuple[list[Disagreement], str]:
    """What a network answers otherwise in another process, and why it could not be asked there, if so."""
    found = []
    for door, answers in parts:
        for when in dict.fromkeys(a.when for a in answers):
            some = [a for a in answers if a.when == when]
            largest = max(len(a.x) for a in some)
            last = [a for a in some if len(a.x) == largest][-APART:]
            told = [replace(a, when=f"{when}, {who},") for a in last]
            try:
                found += disagreements(apart.replace(alone=door.alone), told, seedable=True)
            except ModelFailed as error:
                return found, str(error)
    return found, ""


def _under_attack(
    attack: Attack, classifier: Classifier, x: Images, y: Labels, threat: ThreatModel, streams: Streams
) -> Sequence[Answer]:
    """What the network is told to an attack, and then to the judge."""
    network = Recorded(classifier.network, ATTACKED)
    watched = classifier.replace(network=network)
    try:
        ball = threat.around(x.shape[1:])
        x_adv = attack.run(watched, x, y, ball, generator=streams.fork("attack"))
    except GradientFailed:
        x_adv = RandomPoints(tries=4).run(watched, x, y, threat, generator=streams.fork("points"))
    network.when = JUDGED
    judge(watched, x_adv, x, y, threat, generator=streams.fork("judge"))
    return network.answers
