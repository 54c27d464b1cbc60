"""How many draws a gradient of a random network is worth, and where to spend them.

One small network on digits behind seven random defences, each attacked at one radius. Rows with a fixed number of
draws get `--budget` draws an example, spent as `budget / draws` steps; those whose number follows the noise
(`EOT(snr=...)`) get half of that, for as many steps as it lasts. Three attacks: PGD, which the papers' EOT is used
with; APGD; and `MomentumPGD`, which averages over steps. Accuracy is of the mean over the defence's own passes, on
fresh draws, the same for all rows. Differences are to the best fixed number of draws under PGD, with the standard
error over the same examples.

    python benchmarks/eot_draws.py --budget 120 --examples 150
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from unmask.attacks import APGD, PGD, GradientAttack, MomentumPGD
from unmask.classifier import Classifier, Meter
from unmask.data import Data, load
from unmask.defenses import (
    SAP,
    CropEnsemble,
    Defense,
    InputNoise,
    PixelDrop,
    RandomMember,
    TestTimeDropout,
    WeightNoise,
)
from unmask.gradients import EOT
from unmask.judge import judge
from unmask.randomness import Streams
from unmask.threat import Linf
from unmask.training import Standard
from unmask.zoo import CNN

FIXED = (1, 10, 20, 40)
PASSES, DRAWS = 10, 4


def trained(seed: int) -> CNN:
    """A network of a few seconds."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = CNN(8)
    recipe = Standard(epochs=12, batch_size=32, learning_rate=0.1, pad=1, mirror=False)
    recipe.fit(network, load("digits", split="train"), None, generator=torch.Generator().manual_seed(seed))
    return network


def defenses() -> dict[str, tuple[Defense, float]]:
    """Each with a radius at which its accuracy is far from both ends."""
    return {
        "input noise 0.4": (InputNoise(sigma=0.4, passes=PASSES), 0.1),
        "pixel drop 0.4": (PixelDrop(rate=0.4, passes=PASSES), 0.08),
        "crops 0.75": (CropEnsemble(share=0.75, passes=PASSES), 0.1),
        "dropout 0.5": (TestTimeDropout(rate=0.5, passes=PASSES), 0.1),
        "weight noise 0.5": (WeightNoise(strength=0.5, passes=PASSES), 0.1),
        "SAP 0.1": (SAP(ratio=0.1, passes=PASSES), 0.1),
        "random member": (RandomMember(others=[trained(1), trained(2)], passes=PASSES), 0.1),
    }


def attacked(
    classifier: Classifier, data: Data, epsilon: float, attack: GradientAttack
) -> tuple[Tensor, float]:
    """Failure rate of each example, and what the attack cost in forwards an example."""
    classifier = classifier.replace(meter=Meter())
    threat = Linf(epsilon=epsilon)
    x_adv = attack.run(classifier, data.x, data.y, threat, generator=Streams.seeded(0, data.index, "attack"))
    cost = classifier.meter.forwards / len(data)
    fresh = Streams.seeded(0, data.index, "judge")
    return judge(classifier, x_adv, data.x, data.y, threat, draws=DRAWS, generator=fresh).failure_rate, cost


def pgd(eot: EOT, estimates: float) -> PGD:
    """Crosses the ball in as many steps as there are, as PGD's default does: 40 steps of a sixteenth."""
    steps = max(1, round(estimates) - 1)
    size = max(0.02, min(0.25, 2.5 / steps))
    return PGD(steps=steps, rel_step_size=size, gradient=eot, early_stop=False)


def apgd(eot: EOT, estimates: float) -> APGD:
    """Chooses its own step sizes."""
    return APGD(steps=max(2, round(estimates) - 3), gradient=eot, early_stop=False)


def momentum(eot: EOT, estimates: float) -> MomentumPGD:
    """Its defaults."""
    return MomentumPGD(steps=max(2, round(estimates)), gradient=eot, early_stop=False)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=int, default=120, help="draws per example")
    parser.add_argument("--examples", type=int, default=150)
    arguments = parser.parse_args()
    data = load("digits", examples=arguments.examples)
    plain = Classifier(trained(0), deterministic=True)
    print(
        "| defence | attack | draws a step | forwards | accuracy left | to the best fixed |\n|---|---|---|---|---|---|"
    )
    for name, (defense, epsilon) in defenses().items():
        classifier = defense.wrap(plain)
        best, best_rate = "", torch.zeros(len(data))
        rows: list[tuple[str, str, float, Tensor]] = []
        for attack in (pgd, momentum):
            for draws in FIXED:
                eot = EOT(draws=draws)
                rate, cost = attacked(classifier, data, epsilon, attack(eot, arguments.budget / draws))
                rows.append((attack.__name__, str(draws), cost, rate))
                if attack is pgd and rate.mean() > best_rate.mean():
                    best, best_rate = str(draws), rate
        for attack, snr in ((pgd, 0.5), (apgd, 0.5), (apgd, 4.0), (momentum, 0.05), (momentum, 0.5)):
            eot = EOT(snr=snr, max_draws=40)
            pilot = pgd(eot, 5)  # what a step costs
            price = attacked(classifier, data, epsilon, pilot)[1] / (pilot.steps + 1)
            estimates = arguments.budget / 2 / price
            rate, cost = attacked(classifier, data, epsilon, attack(eot, estimates))
            rows.append((attack.__name__, f"by noise, snr {snr:g}", cost, rate))
        for attack, draws, cost, rate in rows:
            behind = best_rate - rate
            error = float(behind.std() / len(behind) ** 0.5)
            print(
                f"| {name} | {attack} | {draws} | {cost:.0f} | {100 * (1 - rate.mean()):.1f} % | "
                f"{100 * behind.mean():+.1f} ± {100 * error:.1f} ({best}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
