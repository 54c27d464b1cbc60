"""Whether the attack finds an adversarial example that is known to be there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointError

from ..attacks import APGD, Attack
from ..classifier import Classifier
from ..errors import ModelFailed, Unsupported
from ..judge import judge
from ..randomness import Streams
from ..threat import ThreatModel
from .base import Diagnostic, Images, Labels, Reading
from .readout import Inside, ReadOut, Replanted, last_linear, separate

# Chance that an attack with no more than the least success finds all of the first ones that guessing misses: three of
# 0.2. Ours.
CLEAR = 0.01


@dataclass(frozen=True, kw_only=True)
class Planted(Diagnostic):
    """The binarisation test: an adversarial example that was put there, and that the attack has to find.

    The network's own features get a new two-class read-out, made so that one point of the ball is
    misclassified for sure. An attack that misses it would also miss what it was sent for.

    Per example: `inner` points of the ball and one point on its sphere; a linear read-out on the penultimate
    features that tells that point from the others, its threshold at `closeness` of the way from the nearest
    other to it. Random points of the sphere tell how easy the task is without any attack; `value` is the
    attack's success with that of the random points taken out, `(attack - random) / (1 - random)`: 0 for
    guessing, 1 for always. Says nothing (None) where no example could be planted or random points already
    find most. It ends early where the first few are all found, three of which random points miss.

    **Fields**
    - `attack`: what is tested, with its gradient estimator.
    - `examples`: how many of the given ones, at most; each is attacked alone, for each has its own network.
    - `inner`, `inner_radius`: other points and their largest distance, as a fraction of epsilon.
    - `tries`: random points per example.
    - `draws`: of a random network, averaged wherever features or predictions are compared.
    - `least`: smallest passing value; ours. Masked attacks come to 0 and sound ones close to 1, but where most
      rectifiers are dead, as in certified networks, sound ones may miss half.

    **Cost**: `examples` times `(inner + 2) * draws + tries` forwards, and as many attacks on one example.
    **Source**: Zimmermann et al. 2022, arXiv:2206.13991.
    **Differs**: the read-out is Fisher's discriminant instead of logistic regression, closed and repeatable.
    It replaces the network's last layer in its place and keeps the margins' scale, so that what saturates or
    rounds the logits behind that layer stays under test. A detector's score is left out. `closeness` is 0.9
    instead of 0.999, since noise in a random network would drown the rest. Targets play no part: any change
    of class counts. A surrogate is given the same read-out if it shares the last layer; else an attack that
    needs it says nothing.
    """

    attack: Attack = APGD(steps=20, restarts=2)
    examples: int = 12
    inner: int = 100
    inner_radius: float = 0.9
    closeness: float = 0.9
    tries: int = 100
    draws: int = 8
    least: float = 0.2

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
        threat = replace(threat, goal="untargeted")
        layer = last_linear(classifier, x[:1], generator=streams[:1].fork("layer"))
        found, guessed = [], []
        for place in range(min(self.examples, len(x)) if threat.epsilon > 0 else 0):
            here = slice(place, place + 1)
            made = self._attacked(classifier, layer, x[here], threat, streams[here])
            if made is None:
                continue
            planted, label, x_adv = made
            guess = self._guess(planted, x[here], label, threat, streams[here].fork("guess"))
            for point, hits, tag in ((x_adv, found, "judge attack"), (guess, guessed, "judge guess")):
                verdict = judge(planted, point, x[here], label, threat, generator=streams[here].fork(tag))
                hits.append(float(verdict.failure_rate))
            if self._clear(found, guessed):
                break
        return self._reading(found, guessed)

    def _clear(self, found: list[float], guessed: list[float]) -> bool:
        """Whether all were found, so many of which guessing misses that an attack which just fails would hardly do it.

        What guessing finds says nothing of the attack, as in `value`; of more than half it would end in no value.
        """
        missed = sum(guess <= 0.5 for guess in guessed)
        return min(found) > 0.5 and self.least**missed <= CLEAR and 2 * missed >= len(found)

    def _attacked(
        self,
        classifier: Classifier,
        layer: nn.Linear | None,
        x: Images,
        threat: ThreatModel,
        streams: Streams,
    ) -> tuple[Classifier, Labels, Images] | None:
        """The planted network of `x` `[1, …]`, the label it gives and what the attack makes of it, or None.

        A read-out that cannot stand in the last layer's place, or cannot be differentiated there (a checkpointed
        segment that is left in the middle), is put behind the logits.
        """
        for place in (layer, None) if layer is not None else (None,):
            planted = self._plant(classifier, place, x, threat, streams.fork("plant"))
            if planted is None:
                continue
            label = planted.predict(x, generator=streams.fork("label")).logits.argmax(1)
            try:
                x_adv = self.attack.run(planted, x, label, threat, generator=streams.fork("attack"))
            except Unsupported:  # the attack needs a surrogate that cannot be given the new read-out
                return None
            except CheckpointError:
                continue
            return planted, label, x_adv
        return None

    def _plant(
        self,
        classifier: Classifier,
        layer: nn.Linear | None,
        x: Images,
        threat: ThreatModel,
        streams: Streams,
    ) -> Classifier | None:
        """The network in which one point of the sphere around `x` `[1, …]` is another class, or None."""
        draws = 1 if classifier.deterministic else self.draws
        closer = threat.scaled(self.inner_radius)
        repeated = Streams.seeded(streams.batch_seed(), torch.arange(self.inner, device=x.device))
        around = x.expand(self.inner, *x.shape[1:])
        inner = torch.where(
            (torch.arange(self.inner, device=x.device) % 2 == 0).reshape(-1, *[1] * (x.ndim - 1)),
            closer.random_start(around, generator=repeated),
            closer.random_point(around, generator=repeated),
        )
        outer = threat.random_point(x, generator=streams)
        points = torch.cat([x, inner, outer])

        inside = classifier.replace(network=Inside(classifier.network, layer))
        try:
            with torch.no_grad():
                classes = classifier(x, generator=streams).logits.shape[1]
                draw_of = [inside(points, generator=streams).logits.double() for _ in range(draws)]
        except (
            ModelFailed,
            RuntimeError,
        ):  # the layer is skipped, or sees something else than one row per example
            return None
        both = torch.stack(draw_of).mean(0)
        if classes < 2 or len(both) != len(points) or not torch.isfinite(both).all():
            return None
        features, logits = both[:, :-classes], both[:, -classes:]

        weight = separate(features[:-1], features[-1])
        centre = features[:-1].mean(0)
        score = (features - centre) @ weight
        nearest, top = float(score[:-1].max()), float(score[-1])
        if not top - nearest > 1e-4 * float(score.abs().max()):
            return None
        threshold = nearest + self.closeness * (top - nearest)
        two = logits.topk(2, dim=1).values
        gain = float((two[:, 0] - two[:, 1]).median().clamp_min(1e-3)) / (threshold - float(score[0]))
        dtype = x.dtype
        readout = ReadOut(weight.to(dtype), centre.to(dtype), threshold, gain, classes)
        planted = classifier.replace(
            network=Replanted(classifier.network, layer, readout),
            surrogate=_replanted_surrogate(classifier, layer, readout),
            passes=draws,
        )
        try:
            at_x, at_outer = planted.predict(points[[0, -1]], generator=streams).logits.argmax(1)
        except ModelFailed:
            return None
        return planted if bool(at_x != at_outer) else None

    def _guess(
        self, planted: Classifier, x: Images, label: Labels, threat: ThreatModel, streams: Streams
    ) -> Images:
        """The random point of the sphere that the planted network likes best; all tries in one batch."""
        each = Streams.seeded(streams.batch_seed(), torch.arange(self.tries, device=x.device))
        points = threat.random_point(x.expand(self.tries, *x.shape[1:]), generator=each)
        with torch.no_grad():
            logits = planted(points, generator=each).logits
        other = logits.scatter(1, label.expand(self.tries)[:, None], -torch.inf).amax(1)
        best = (other - logits[:, label[0]]).argmax()
        return points[best][None]

    def _reading(self, found: list[float], guessed: list[float]) -> Reading:
        planted = len(found)
        attack = sum(h > 0.5 for h in found) / max(planted, 1)
        random = sum(h > 0.5 for h in guessed) / max(planted, 1)
        value = (attack - random) / (1 - random) if planted and random <= 0.5 else None
        passed = None if value is None else value >= self.least
        if value is None:
            explanation = (
                "No adversarial example could be planted, so the attack could not be put to this test."
                if not planted
                else f"Random points already find {random:.0%} of the planted examples, so the test says "
                "nothing."
            )
        else:
            explanation = (
                f"The attack finds {attack:.0%} of {planted} adversarial examples that were planted; "
                f"random points find {random:.0%}"
                + ("." if passed else ": the attack misses what is certainly there.")
            )
        return Reading(
            name="planted",
            passed=passed,
            value=value,
            expected=f"at least {self.least}: success on planted examples, that of random points taken out",
            explanation=explanation,
            statistics={"planted": float(planted), "attack_success": attack, "random_success": random},
            decisive=True,
        )


def _replanted_surrogate(
    classifier: Classifier, layer: nn.Linear | None, readout: ReadOut
) -> nn.Module | None:
    surrogate = classifier.surrogate
    if surrogate is None or layer is None:
        return None if surrogate is None else Replanted(surrogate, None, readout)
    shared = isinstance(surrogate, nn.Module) and any(m is layer for m in surrogate.modules())
    # One with a last layer of its own has other features; it cannot stand in for the planted network.
    return Replanted(surrogate, layer, readout) if shared else None
