"""Every random defence of `unmask.defenses`, audited by someone who knows nothing, beside an attack that knows it.

`python -m tests.audit.test_random_defences [NAME ...]` prints the table.
"""

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from tests.fixtures.case import fixture
from tests.fixtures.digits_networks import trained, with_weights

from unmask.attacks import Attack, MomentumPGD
from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.classifier import Classifier
from unmask.data import load
from unmask.defenses import (
    SAP,
    CropEnsemble,
    InputNoise,
    PixelDrop,
    RandomMember,
    RandomResizePad,
    TestTimeDropout,
    WeightNoise,
)
from unmask.gradients import BPDA, EOT
from unmask.judge import judge
from unmask.objectives import margin_loss
from unmask.threat import Linf

EPSILON = 0.15
# Within this of the attack that knows the defence; the accuracies themselves are means over 32 and more draws.
TOLERANCE = 0.02


def plain(name="plain_cnn"):
    return Classifier(trained(name))


def resized():
    return Classifier(with_weights(fixture("random_resize").Resized(), "resized_cnn").base)


def members(passes):
    others = (trained("noisy_cnn"), trained("plain_mlp"))
    return RandomMember(others=others, passes=passes).wrap(plain())


@dataclass(frozen=True)
class Known:
    """A defence and where it draws: `(passes) -> Classifier`, the file under `defenses/` and a piece of the line."""

    build: Callable[[int], Classifier]
    file: str
    draws: str
    undefended: bool = False


DEFENCES = {
    "SAP": Known(lambda k: SAP(passes=k).wrap(plain()), "sap.py", "torch.poisson", undefended=True),
    "SAP, Bernoulli": Known(
        lambda k: SAP(passes=k, sampler="bernoulli").wrap(plain()), "sap.py", "torch.rand", undefended=True
    ),
    "InputNoise": Known(
        lambda k: InputNoise(sigma=0.2, passes=k).wrap(plain("noisy_cnn")), "noise.py", "torch.randn_like(x)"
    ),
    "WeightNoise": Known(
        lambda k: WeightNoise(strength=0.3, passes=k).wrap(plain()), "noise.py", "torch.randn_like(w)"
    ),
    "PixelDrop": Known(
        lambda k: PixelDrop(rate=0.2, passes=k).wrap(plain("pixel_dropped_cnn")), "dropping.py", "torch.rand"
    ),
    "TestTimeDropout": Known(
        lambda k: TestTimeDropout(rate=0.3, passes=k).wrap(plain("dropout_cnn")), "dropping.py", "F.dropout"
    ),
    "RandomResizePad": Known(
        lambda k: RandomResizePad(largest=1.5, passes=k).wrap(resized()), "resizing.py", "torch.randint"
    ),
    "CropEnsemble": Known(
        lambda k: CropEnsemble(share=0.8, passes=k).wrap(plain("shifted_cnn")), "resizing.py", "torch.randint"
    ),
    "RandomMember": Known(members, "ensemble.py", "torch.randint"),
}


def hand_attacks(known: Known) -> list[Attack]:
    """EOT with more draws than an audit spends; through the undefended network where neurons are dropped."""
    gradients = [EOT(draws=20)]
    if known.undefended:
        gradients.append(EOT(BPDA(), draws=10))
    return [MomentumPGD(steps=100, objective=margin_loss, gradient=g, early_stop=False) for g in gradients]


def by_hand(known: Known, classifier: Classifier, data, threat) -> float:
    """Accuracy that the better of the attacks that know the defence leaves, on 32 fresh draws."""
    generator = torch.Generator().manual_seed(3)
    left = 1.0
    for attack in hand_attacks(known):
        x_adv = attack.run(classifier, data.x, data.y, threat, generator=generator)
        seen = judge(classifier, x_adv, data.x, data.y, threat, draws=32, generator=generator)
        left = min(left, 1 - float(seen.failure_rate.mean()))
    return left


@pytest.mark.slow
@pytest.mark.parametrize("passes", [1, 10])
@pytest.mark.parametrize("name", DEFENCES)
def test_as_strong_as_one_who_knows_the_defence(name, passes):
    known = DEFENCES[name]
    data, threat = load("digits", examples=64), Linf(epsilon=EPSILON)
    classifier = known.build(passes)
    hand = by_hand(known, classifier, data, threat)
    report = audit(classifier, data, claim_about(threat, passes=passes))
    assert report.robust_accuracy <= hand + TOLERANCE
    # One mechanism, at the line that draws, whatever is detached or cast on the way there.
    if (
        name == "RandomMember"
    ):  # its members' gradients agree (0.77), so that what it draws is a fact and no masking
        assert [fact.statement for fact in report.facts] == ["draws random numbers; hides nothing"]
        assert not any(control.role == "open" for control in report.controls)
        return
    assert {finding.mechanism for finding in report.masking} == {"stochastic"}
    assert any(f.file.endswith(known.file) and known.draws in f.code for f in report.masking)
    if known.undefended:
        # The tracer's pass without the drops, or the undefended network that the defence itself brings.
        ways = ("keeps the dropped neurons", "the surrogate that the defence brings")
        assert any(way in report.masking[0].repair for way in ways)


def main() -> None:
    """Prints the table of all defences, or of those named."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    data, threat = load("digits", examples=64), Linf(epsilon=EPSILON)
    print("defence            passes  clean  naive  audit   hand")
    for name in sys.argv[1:] or DEFENCES:
        for passes in (1, 10):
            classifier = DEFENCES[name].build(passes)
            hand = by_hand(DEFENCES[name], classifier, data, threat)
            report = audit(classifier, data, claim_about(threat, passes=passes))
            print(
                f"{name:18s} {passes:6d}  {report.clean_accuracy:.3f}  {report.naive_robust_accuracy:.3f}"
                f"  {report.robust_accuracy:.3f}  {hand:.3f}  {sorted({f.mechanism for f in report.masking})}",
                flush=True,
            )


if __name__ == "__main__":
    main()
