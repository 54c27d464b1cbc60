"""Whether an attack without gradients beats the one with them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..attacks import PGD, Attack, Square
from ..classifier import Classifier
from ..randomness import Streams
from ..threat import ThreatModel
from .base import Diagnostic, Images, Labels, Reading, breaks_more, rates, survives, tried


@dataclass(frozen=True, kw_only=True)
class BlackBox(Diagnostic):
    """A search that sees only outputs, against an attack that sees gradients. The latter knows strictly more.

    `value` is the robust accuracy under the white-box attack minus that under the black-box one. Fails when
    the black-box attack breaks more of the same examples, beyond chance.

    **Cost**: both attacks.
    **Source**: Athalye et al. 2018, arXiv:1802.00420, section 3.1.
    """

    black: Attack = Square(queries=200)
    white: Attack = PGD(steps=20, rel_step_size=0.125)
    draws: int = 4

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
        ran = tuple(
            tried(name, a, classifier, x, y, threat, draws=self.draws, generator=streams.fork(name))
            for a, name in ((self.black, "black"), (self.white, "white"))
        )
        black, white = map(rates, ran)
        passed = not breaks_more(black > 0.5, white > 0.5)
        return Reading(
            name="black_box",
            passed=passed,
            value=survives(white) - survives(black),
            expected="at most 0, up to chance: accuracy under gradients minus that under search",
            explanation=(
                f"{survives(white):.1%} survive the attack with gradients and {survives(black):.1%} a search"
                + ("." if passed else ": a gradient that helps less than none is masked.")
            ),
            statistics={"black_box_accuracy": survives(black), "white_box_accuracy": survives(white)},
            tried=ran,
        )
