"""How many draws a gradient of a random network is worth, and where to spend them.

One small network on digits behind seven random defences, each attacked at one radius. Rows with a fixed number of
draws a step get `--budget` draws an example, spent as `budget / draws` steps; those whose number follows the noise get
half of that: `EOT(snr=...)` under PGD, and `MomentumPGD(max_draws=8)`, which draws again at a point only while the sign
of its running mean still changes. Every attack ascends the margin loss. Accuracy is of the mean over the defence's own
passes, on fresh draws, the same for all rows. Differences are to the strongest fixed number of draws under PGD, the
attack that the papers use EOT with, and to the strongest of all fixed rows; with the standard error over the examples.

    python benchmarks/eot_draws.py --budget 480 --examples 150
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.attacks import PGD, GradientAttack, MomentumPGD
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
from unmask.objectives import margin_loss
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


def pgd(eot: EOT, steps: int) -> PGD:
    """Crosses the ball in as many steps as there are, as PGD's default does: 40 steps of a sixteenth."""
    size = max(0.02, min(0.25, 2.5 / steps))
    return PGD(steps=steps, rel_step_size=size, gradient=eot, objective=margin_loss, early_stop=False)


def momentum(eot: EOT, steps: int) -> MomentumPGD:
    """One estimate a step, its defaults."""
    return MomentumPGD(steps=steps, gradient=eot, objective=margin_loss, early_stop=False)


def settling(eot: EOT, steps: int) -> MomentumPGD:
    """As `momentum`, and draws again where the running mean still changes its sign."""
    return MomentumPGD(steps=steps, max_draws=8, gradient=eot, objective=margin_loss, early_stop=False)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    attack: str
    draws: str
    steps: int
    cost: float
    rate: Tensor

    def against(self, best: Row) -> str:
        """Points of accuracy that it leaves more than `best`; negative is stronger."""
        behind = best.rate - self.rate
        return f"{100 * behind.mean():+.1f} ± {100 * float(behind.std()) / len(behind) ** 0.5:.1f}"


def measured(classifier: Classifier, data: Data, epsilon: float, budget: int) -> list[Row]:
    """Fixed numbers of draws at the whole budget, those that follow the noise at half of it."""
    rows = []
    for make in (pgd, momentum):
        for draws in FIXED:
            steps = max(1, budget // draws - (make is pgd))
            rate, cost = attacked(classifier, data, epsilon, make(EOT(draws=draws), steps))
            rows.append(Row(make.__name__, str(draws), steps, cost, rate))
    for make, eot, words in (
        (pgd, EOT(snr=0.5, max_draws=40), "by noise, snr 0.5"),
        (settling, EOT(draws=1), "while the sign changes"),
    ):
        # What a step costs is known once it has been made: a short run sets the number of steps.
        steps = budget // 2 if make is settling else budget // 8
        for _ in range(3):
            rate, cost = attacked(classifier, data, epsilon, make(eot, steps))
            if 0.9 <= 2 * cost / budget <= 1.0:
                break
            steps = max(1, int(steps * 0.97 * budget / 2 / cost))
        rows.append(Row(make.__name__, words, steps, cost, rate))
    return rows


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budget", type=int, default=480, help="draws per example")
    parser.add_argument("--examples", type=int, default=150)
    parser.add_argument("--only", default="", help="defences whose name contains this")
    arguments = parser.parse_args()
    data = load("digits", examples=arguments.examples)
    plain = Classifier(trained(0), deterministic=True)
    print(
        "| defence | attack | draws a step | steps | forwards | accuracy left | to PGD's best | to the best |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, (defense, epsilon) in defenses().items():
        if arguments.only not in name:
            continue
        rows = measured(defense.wrap(plain), data, epsilon, arguments.budget)
        fixed = [row for row in rows if row.draws.isdigit()]
        best_pgd = max((r for r in fixed if r.attack == "pgd"), key=lambda r: float(r.rate.mean()))
        best = max(fixed, key=lambda r: float(r.rate.mean()))
        for row in rows:
            print(
                f"| {name} | {row.attack} | {row.draws} | {row.steps} | {row.cost:.0f} | "
                f"{100 * (1 - row.rate.mean()):.1f} % | {row.against(best_pgd)} | {row.against(best)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
