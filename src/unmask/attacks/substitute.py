"""A substitute network, learned from the target's answers and attacked in its place."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..classifier import Classifier, seeded
from ..judge import fooled
from ..objectives import margin_loss
from ..randomness import Streams
from ..threat import ThreatModel
from .base import Attack, Cost, Images, Labels, Setting
from .batch import Batch, Incumbent
from .pgd import PGD


@dataclass(frozen=True, kw_only=True)
class Substitute(Attack):
    """Learns a small network that answers like the target near `x`, attacks it, asks the target, learns on.

    For targets without any useful gradient. The substitute imitates the logits where they say more than the
    predicted class, else the class. It is trained on the whole batch, so that an example's result does depend
    on the others.

    **Fields**
    - `samples`: random points of the ball per example on which the target is asked before the first attack.
    - `rounds`: attacks; the points found in one are training data of the next.
    - `epochs`: passes over the training data before each attack.
    - `inner`: the attack on the substitute.
    - `width`: channels of the first convolution, or half the hidden units for vectors.
    - `early_stop`: examples whose point fools the target take no part in later attacks.

    **Cost**: at most `1 + samples + rounds` forwards of the target per example. Passes of the substitute are
    the attack's own arithmetic and are not metered.
    **Source**: Papernot et al. 2017, arXiv:1602.02697; imitating logits as in Hinton et al. 2015,
    arXiv:1503.02531.
    **Differs**: the points are random in the ball, then adversarial ones, instead of Jacobian-based
    augmentation.
    """

    samples: int = 16
    rounds: int = 4
    epochs: int = 20
    inner: Attack = PGD(steps=20, rel_step_size=0.125, objective=margin_loss, early_stop=False)
    width: int = 32
    early_stop: bool = True

    def describe(self) -> str:
        return "substitute network, transferred"

    def fit(self, setting: Setting) -> Attack | None:
        return replace(self, early_stop=not setting.random)

    def cost(self, classes: int) -> Cost:
        return Cost(forwards=1 + self.samples + self.rounds)

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        x = x.detach()
        best = Incumbent(x)
        if not len(x):
            return best.x_adv
        whole = Batch.whole(x, y, generator, margin_loss.for_goal(threat.goal))
        points = [x, *(threat.random_start(x, generator=whole.streams) for _ in range(self.samples))]
        answers = [self._ask(classifier, whole, part, best, threat) for part in points]
        seed = whole.streams.batch_seed()
        with seeded(seed, x.device):
            network = _small_network(x, answers[0].shape[1], self.width).to(x)
        told = torch.cat(answers)
        told = told[torch.isfinite(told).all(1)]
        if len(told) < 2:
            return threat.settle(best.x_adv, x)  # nothing finite to learn from
        spread = _start_at(network, told)
        shuffle = torch.Generator().manual_seed(seed)
        for _ in range(self.rounds):
            left = best.unfooled() if self.early_stop else whole.index
            if not len(left):
                break
            told = torch.cat(answers) / spread
            sound = torch.isfinite(told).all(1)
            _imitate(network, torch.cat(points)[sound], told[sound], self.epochs, shuffle)
            part = whole.take(left)
            substitute = Classifier(network, deterministic=True)
            x_adv = self.inner.run(substitute, part.x, part.y, threat, generator=part.streams)
            points.append(x_adv)
            answers.append(self._ask(classifier, part, x_adv, best, threat))
            whole = Batch(whole.index, x, y, whole.streams.fork("round"), whole.objective)
        return threat.settle(best.x_adv, x)

    def _ask(
        self, classifier: Classifier, batch: Batch, x_adv: Images, best: Incumbent, threat: ThreatModel
    ) -> Float[Tensor, "batch classes"]:
        """One forward of the target; what it gets wrong goes to `best`."""
        with torch.no_grad():
            outputs = classifier(x_adv, generator=batch.streams)
        value = batch.objective(outputs, batch.y)
        won = fooled(outputs, batch.y, threat) & self.early_stop
        best.offer(batch.index, x_adv, torch.where(won, torch.inf, value))
        return outputs.logits


def _small_network(x: Images, classes: int, width: int) -> nn.Sequential:
    """Two strided convolutions and a linear layer for images, one hidden layer for everything else."""
    if x.ndim != 4 or min(x.shape[2:]) < 4:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(x[0].numel(), 2 * width), nn.ReLU(), nn.Linear(2 * width, classes)
        )
    tall, wide = (-(-size // 4) for size in x.shape[2:])
    return nn.Sequential(
        nn.Conv2d(x.shape[1], width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(2 * width * tall * wide, classes),
    )  # fmt: skip


def _start_at(network: nn.Sequential, answers: Tensor) -> Tensor:
    """Puts the mean answer into the last bias; returns the answers' spread around it, the unit of the loss.

    What matters near `x` is how the logits move, and that can be far smaller than the logits themselves.
    """
    spread = answers.std(0).amax().clamp_min(1e-12)
    last = network[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.bias.copy_(answers.mean(0) / spread)
    return spread


def _imitate(
    network: nn.Module, points: Images, answers: Tensor, epochs: int, shuffle: torch.Generator
) -> None:
    """Adam on the squared error to the logits, or on the cross-entropy where there are only classes."""
    labels = answers.argmax(1)
    only_classes = (answers.sort(1).values.diff(dim=1) > 0).sum(1).le(1).all()  # two values in each row
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(epochs):
        for part in torch.randperm(len(points), generator=shuffle).to(points.device).split(64):
            optimiser.zero_grad()
            with torch.enable_grad():
                said = network(points[part])
                loss = (
                    F.cross_entropy(said, labels[part]) if only_classes else F.mse_loss(said, answers[part])
                )
                loss.backward()
            optimiser.step()
    optimiser.zero_grad()
