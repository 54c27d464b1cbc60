"""Whether an attack without gradients beats the one with them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..attacks import PGD, Attack, Square
from ..classifier import Classifier
from ..randomness import Streams
from ..threat import ThreatModel
from .base import Diagnostic, Images, Labels, Reading, breaks_more, rates, survives, tried
from .first_look import Partly, challenged


@dataclass(frozen=True, kw_only=True)
class BlackBox(Diagnostic):
    """A search that sees only outputs, against an attack that sees gradients. The latter knows strictly more.

    Fails when the black-box attack breaks more of the same examples, beyond chance. It cannot where it breaks nothing
    that the white-box attack left, so it looks there first, among a few examples (`first_look`), then on all of it if
    it finds something, and on what the white-box attack broke, too, if what it found is more than chance. `value` is
    the robust accuracy under the white-box attack minus that under the black-box one; where the latter did not run on
    all, the share that it breaks beside the former.

    **Cost**: the white-box attack, and the black-box one on what that left of 11 examples, or on all.
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
        of = (classifier, x, y, threat)
        gradients = tried("white", self.white, *of, draws=self.draws, generator=streams.fork("white"))
        challenger = Partly("black", self.black, *of, draws=self.draws, streams=streams.fork("black"))
        search = challenged(challenger, gradients, left_only=True)
        k = len(search.x_adv)
        black, white = rates(search), rates(gradients)[:k]
        if not challenger.attacked[:k].all():
            left, more = int((white <= 0.5).sum()), int(((black > 0.5) & (white <= 0.5)).sum())
            value, passed = more / max(k, 1), True
            words = f"{survives(white):.1%} of {k} survive the attack with gradients" + (
                f", and a search breaks {more or 'none'} of these {left}."
                if left
                else ": a search has nothing to add."
            )
            statistics = {"searched": float(left), "white_box_accuracy": survives(white)}
        else:
            value, passed = survives(white) - survives(black), not breaks_more(black > 0.5, white > 0.5)
            words = (
                f"{survives(white):.1%} of {k} survive the attack with gradients and {survives(black):.1%} a search"
                + ("." if passed else ": a gradient that helps less than none is masked.")
            )
            statistics = {
                "searched": float(k),
                "black_box_accuracy": survives(black),
                "white_box_accuracy": survives(white),
            }
        return Reading(
            name="black_box",
            passed=passed,
            value=value,
            expected="at most 0, up to chance: accuracy under gradients minus that under search",
            explanation=words,
            statistics=statistics,
            tried=(gradients, search),
        )
