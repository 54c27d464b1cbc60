"""Whether a defence's randomness makes it robust, or only makes it noisy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..attacks import PGD, Attack
from ..classifier import Classifier, Network, seeded
from ..judge import fooled, judge
from ..randomness import Streams
from ..threat import ThreatModel
from .base import Diagnostic, Images, Labels, Reading, Tried, breaks_more


class OneDraw(nn.Module):
    """A random network that makes the same draw at every call: its randomness taken away, everything else kept."""

    def __init__(self, network: Network, seed: int, device: torch.device):
        super().__init__()
        self.network, self.seed, self.device = network, seed, device

    def forward(self, x: Tensor) -> Tensor:
        """What the network says on the draw of `seed`; a place in the batch keeps its draw."""
        with seeded(self.seed, self.device):
            return self.network(x)  # type: ignore[return-value]


def without_randomness(classifier: Classifier, *, seed: int = 0) -> Classifier:
    """The classifier with its randomness taken out: its surrogate if it has one, else one draw for good."""
    network = classifier.surrogate
    if network is None:
        network = OneDraw(classifier.network, seed, classifier.device)
    return classifier.replace(network=network, surrogate=None, passes=1, deterministic=True)


@dataclass(frozen=True, kw_only=True)
class RandomnessGain(Diagnostic):
    """The deployed mean of draws beside the same network without randomness, both attacked.

    The network without randomness is the surrogate (the undefended network), or else one draw for good. Each is
    attacked in its own right; what fools the one is tried on the other. `value` is the robust accuracy that
    randomness adds. Randomness **helps** where it adds some beyond chance (exact sign test on the examples that
    only one of the two loses). It **changes nothing** where it does not and the two agree in nearly all
    predictions, clean and attacked: then it only hides the gradient. What lies between is left open. An attack
    that noise defeats makes the gain too large: use the one that an audit chose.

    **Fields**
    - `attack`: without early stop, for one lucky draw would end it.
    - `draws`: deployed predictions per example and judgement.
    - `agreement`: share of equal predictions from which two networks count as saying the same. Ours.

    **Cost**: two attacks, `4 * draws` deployed predictions.
    **Source**: the question is that of Athalye et al. 2018, arXiv:1802.00420, section 4; sap.txt asks it of SAP.
    """

    attack: Attack = PGD(steps=20, rel_step_size=0.125, early_stop=False)
    draws: int = 4
    agreement: float = 0.9

    def examine(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Reading:
        if classifier.deterministic:
            return _reading(None, None, "The network draws no random numbers.", {}, ())
        streams = Streams.of(generator, len(x))
        silent = without_randomness(classifier)
        points = [
            self.attack.run(attacked, x, y, threat, generator=streams.fork(name))
            for name, attacked in (("deployed", classifier), ("silent", silent))
        ]
        rates, lost, same, tried = [], [], [], ()
        for name, x_adv in zip(("own", "transferred"), points, strict=True):
            seen = judge(
                classifier, x_adv, x, y, threat, draws=self.draws, generator=streams.fork(f"judge {name}")
            )
            outputs = silent.predict(x_adv, generator=streams.fork("silent"))
            rates.append(seen.failure_rate)
            by = "attack" if name == "own" else ""
            tried += (
                Tried(by=by, threat=threat, x_adv=x_adv, failure_rate=seen.failure_rate, draws=self.draws),
            )
            lost.append(fooled(outputs, y, threat) & threat.contains(x_adv, x))
            same.append(seen.prediction == outputs.logits.argmax(1))
        clean = classifier.predict(x, generator=streams.fork("clean")).logits.argmax(1)
        same.append(clean == silent.predict(x, generator=streams.fork("silent")).logits.argmax(1))
        worst, broken = torch.maximum(*rates), lost[0] | lost[1]
        agreement = float(torch.stack(same).double().mean())
        gain = float(broken.double().mean() - worst.double().mean())
        helps = breaks_more(broken, worst >= 0.5)
        statistics = {
            "robust_accuracy": 1 - float(worst.mean()),
            "robust_accuracy_without_randomness": 1 - float(broken.double().mean()),
            "agreement": agreement,
        }
        if helps:
            return _reading(True, gain, f"Randomness adds {gain:.0%} of robust accuracy.", statistics, tried)
        if agreement >= self.agreement:
            return _reading(
                False,
                gain,
                f"Randomness changes nothing that the attack can see: {agreement:.0%} of the predictions are equal "
                f"without it, and it adds {gain:+.0%} of robust accuracy.",
                statistics,
                tried,
            )
        words = f"Randomness changes {1 - agreement:.0%} of the predictions, but adds no robust accuracy beyond chance."
        return _reading(None, gain, words, statistics, tried)


def _reading(
    passed: bool | None,
    value: float | None,
    explanation: str,
    statistics: dict[str, float],
    tried: tuple[Tried, ...],
) -> Reading:
    return Reading(
        name="randomness_gain",
        passed=passed,
        value=value,
        expected="above 0, beyond chance: robust accuracy that randomness adds",
        explanation=explanation,
        statistics=statistics,
        tried=tried,
    )
