"""The audit, told nothing, beside an attacker who knows the transformation: mechanism, line and accuracy."""

from pathlib import Path

import pytest
import torch
from tests.fixtures.case import fixture

from unmask.attacks import APGD, MomentumPGD
from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.classifier import Classifier
from unmask.data import load
from unmask.defenses import (
    JPEG,
    BitDepth,
    Composed,
    InputNoise,
    KWinners,
    LowRank,
    Median,
    NonLocalMeans,
    PixelDeflection,
    PixelDrop,
    Reformer,
    Thermometer,
    TotalVariation,
)
from unmask.defenses.transforms import Autoencoder, train_autoencoder
from unmask.gradients import BPDA, EOT, Exact
from unmask.judge import judge
from unmask.objectives import cross_entropy, margin_loss
from unmask.threat import Linf
from unmask.training import Standard
from unmask.zoo import CNN

EXAMPLES = 40
THREAT = Linf(epsilon=0.2)
HERE = Path("src", "unmask", "defenses")


def trained(channels=1, wrapped=None):
    """A small CNN of digits; behind the thermometer's code, or with k winners."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = CNN(8, channels=channels, widths=(8, 16), hidden=32)
    data = load("digits", split="train")
    if channels > 1:
        data = type(data)(
            Thermometer(levels=channels).transformation()(data.x), data.y, "code", "train", data.index
        )
    behind = network if wrapped is None else wrapped.wrap(Classifier(network)).network
    recipe = Standard(epochs=12, batch_size=32, learning_rate=0.1, pad=1, mirror=False)
    recipe.fit(behind, data, None, generator=torch.Generator().manual_seed(0))
    return network.eval()


def plain():
    return fixture("digits_networks").trained("plain_cnn")


def reformer():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = Autoencoder(1, pooled=False, width=8)
    train_autoencoder(network, load("digits", split="train").x, generator=torch.Generator().manual_seed(0))
    return Reformer(autoencoder=network)


# name: defence, network, file of the guilty line (None: nothing is masked), mechanism
CASES = {
    "bit depth": (BitDepth, plain, "bit_depth", "shattered"),
    "3 bits": (lambda: BitDepth(bits=3), plain, "bit_depth", "shattered"),
    "jpeg": (JPEG, plain, "jpeg", "shattered"),
    "jpeg 25": (lambda: JPEG(quality=25), plain, "jpeg", "shattered"),
    "total variation": (
        lambda: TotalVariation(drop=0.0, iterations=25),
        plain,
        "total_variation",
        "shattered",
    ),
    "total variation, dropped": (
        lambda: TotalVariation(drop=0.2, passes=2, iterations=15),
        plain,
        "total_variation",
        "shattered",
    ),
    "median": (Median, plain, "median", "shattered"),
    "non-local means": (
        lambda: NonLocalMeans(window=5, strength=4.0),
        plain,
        "non_local_means",
        "shattered",
    ),
    "thermometer": (Thermometer, lambda: trained(16), "thermometer", "shattered"),
    "thermometer, decoded": (lambda: Thermometer(decode=True), plain, "thermometer", "shattered"),
    "k winners": (
        lambda: KWinners(share=0.1),
        lambda: trained(wrapped=KWinners(share=0.1)),
        None,
        None,
    ),
    "low rank": (LowRank, plain, "low_rank", "shattered"),
    "pixel deflection": (
        lambda: PixelDeflection(deflections=5, passes=2),
        plain,
        "pixel_deflection",
        "shattered",
    ),
    "reformer": (reformer, plain, None, None),
    "jpeg, then noise": (
        lambda: Composed((JPEG(), InputNoise(sigma=0.05, passes=2))),
        plain,
        "jpeg",
        "shattered",
    ),
    "3 bits, then dropped pixels": (
        lambda: Composed((BitDepth(bits=3), PixelDrop(rate=0.1, passes=4))),
        plain,
        "bit_depth",
        "shattered",
    ),
    "bits, then median": (lambda: Composed((BitDepth(), Median())), plain, "median", "shattered"),
}


def hand_accuracy(defended, data):
    """BPDA by the defence's own surrogate, under two objectives; EOT where it is random."""
    exact = defended.surrogate is None
    gradient = Exact() if exact else BPDA()
    worst = torch.zeros(len(data))
    generator = torch.Generator().manual_seed(3)
    for objective in (cross_entropy, margin_loss):
        attack = APGD(steps=60, gradient=gradient, objective=objective)
        if not defended.deterministic:
            gradient = EOT(BPDA(same_values=True), draws=2)
            attack = MomentumPGD(gradient=gradient, objective=objective, early_stop=False)
        x_adv = attack.run(defended, data.x, data.y, THREAT, generator=generator)
        seen = judge(defended, x_adv, data.x, data.y, THREAT, draws=16, generator=generator)
        worst = torch.maximum(worst, seen.failure_rate)
    return 1 - float(worst.mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_told_nothing(name):
    build, base, file, mechanism = CASES[name]
    data = load("digits", examples=EXAMPLES)
    defended = build().wrap(Classifier(base(), deterministic=True))
    hand = hand_accuracy(defended, data)
    # The network alone: the audit sees neither the surrogate nor whether it is random.
    report = audit(defended.network, data, claim_about(THREAT, passes=defended.passes))
    found = [(f.mechanism, Path(f.file).name, f.line, f.code, f.repair) for f in report.masking]
    print(
        f"\n{name}: clean {report.clean_accuracy:.3f}, naive {report.naive_robust_accuracy:.3f}, "
        f"hand {hand:.3f}, audit {report.robust_accuracy:.3f}, {report.cost.seconds:.0f} s, {found}"
    )
    assert report.robust_accuracy <= hand + 0.02 + (0 if defended.deterministic else 0.02)
    named = {f.mechanism for f in report.masking}
    if mechanism is None:
        assert not named
    else:
        assert mechanism in named
        guilty = [f for f in report.masking if Path(f.file).name == f"{file}.py"]
        assert guilty, found
        assert all(f.line > 0 and f.code and f.repair for f in guilty)
