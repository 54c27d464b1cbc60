"""An attack that branches over the signs of ReLUs: it looks where no descent from a point leads."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...attacks import Attack, Setting
from ...attacks.base import Images, Labels
from ...classifier import Classifier
from ...errors import Unsupported
from ...gradients import Exact
from ...judge import fooled
from ...objectives import Targeted
from ...randomness import Streams
from ...threat import NormBall, ThreatModel, norm_ball
from ..relaxation.size import hidden_elements
from .branch_and_bound import Search, relu_graph
from .linear_regions import Pieces


@dataclass(frozen=True, kw_only=True)
class BranchAndBound(Attack):
    """Branch and bound over the ReLUs' signs, with a short descent from wherever a branch's relaxation is least.

    Each branch's relaxation is smallest at some point of the ball, and each branch leads to another: starts as far
    apart as the network's own pieces. From the best of every batch, steps of the gradient's sign (steepest ascent in
    other norms) go downhill. A branch that is proved to hold no example is never looked at again; once all are, the
    example is left alone, for then there is nothing to find.

    Returns, per example, the first point that fools the network, else the one with the largest logit of a branch's
    class minus the label's.

    **Fields**
    - `branches`: bounded for each example, at most.
    - `steps`: of each descent.
    - `descents`: from the best points of each batch of up to 256 branches.
    - `elements`: hidden elements of the network, at most: bounding takes seconds an example beyond a thousand.

    **Cost**: per batch of branches one forward for each and `descents * (steps + 1)` estimates. Bounding asks nothing
    of the network; it takes time, 0.1 to 0.2 s for a thousand branches of two layers of 50.
    **Raises** `Unsupported` for networks of other operations than affine ones and ReLU, for larger ones, for random
    ones and those that are judged as more than one plain call, and for other threats than an untargeted ball.
    **Source**: Zhang et al. 2022 (ICML, PMLR 162), a branch and bound framework for stronger adversarial attacks; the
    bounds are `decide`'s.
    **Differs**: depth first, without their pool of points and their large neighbourhoods.
    """

    branches: int = 2000
    steps: int = 16
    descents: int = 16
    elements: int = 1000

    def describe(self) -> str:
        return f"branch and bound, {self.branches:,} branches"

    def fit(self, setting: Setting) -> Attack | None:
        """Itself; None where draws decide or a detector looks on, whose operations it does not know."""
        return None if setting.random or setting.detector else self

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        x, threat = x.detach(), norm_ball(threat, "`BranchAndBound`")
        if threat.goal != "untargeted":
            raise Unsupported("`BranchAndBound` aims at every other class; use `TargetedAPGD` for one")
        if not len(x):
            return x.clone()
        graph = relu_graph(_readable(classifier, x, self.elements), x.cpu())
        pieces, streams = Pieces(graph), Streams.of(generator, len(x))
        found = x.clone()
        for i in range(len(x)):
            one = slice(i, i + 1)
            descent = _Descent(self, classifier, x[one], y[one], threat, streams[one])
            with torch.no_grad():
                search = Search(graph, pieces, x[one].cpu(), int(y[i]), threat, threat.epsilon, descent)
                search.run(most=self.branches)
            found[i] = descent.best
        return threat.settle(found, x)


def _readable(classifier: Classifier, x: Images, most: int) -> nn.Module:
    """The network, where it is small and what is judged is a function of its operations alone; on the CPU."""
    network = classifier.network
    plain = classifier.passes == 1 and not classifier.alone and classifier.state is None
    if not isinstance(network, nn.Module) or not classifier.deterministic or not plain:
        raise Unsupported("`BranchAndBound` needs a deterministic torch.nn.Module, judged in one call")
    count = hidden_elements(network, x[:1])
    if count > most:
        raise Unsupported(
            f"`BranchAndBound` is for up to {most:,} hidden elements; this network has {count:,}"
        )
    return network if classifier.device.type == "cpu" else copy.deepcopy(network).cpu()


class _Descent:
    """Whether points of one example's ball fool the deployed network, they themselves or those downhill of the best."""

    def __init__(
        self,
        attack: BranchAndBound,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: NormBall,
        streams: Streams,
    ):
        self.attack, self.classifier, self.x, self.y = attack, classifier, x, y
        self.threat, self.streams = threat, streams
        self.best, self.value = x[0], -torch.inf

    def __call__(self, points: Tensor, targets: Tensor) -> Tensor | None:
        targets, everyone = targets.to(self.y.device), torch.zeros(len(points), dtype=torch.int64)
        x_adv = self.threat.settle(points.to(self.x), self.x[everyone])
        outputs = self.classifier(x_adv, generator=self.streams[everyone])
        value = Targeted(targets)(outputs, self.y[everyone])
        if self._take(x_adv, value, fooled(outputs, self.y[everyone], self.threat)):
            return self.best
        chosen = value.topk(min(self.attack.descents, len(value))).indices
        x_adv, objective, some = x_adv[chosen], Targeted(targets[chosen]), everyone[: len(chosen)]
        x, y, streams = self.x[some], self.y[some], self.streams[some]
        for step in range(self.attack.steps + 1):
            est = Exact().estimate(self.classifier, objective, x_adv, y, generator=streams)
            if self._take(x_adv, est.value, fooled(est.outputs, y, self.threat)):
                return self.best
            length = self.threat.epsilon * (1 - step / self.attack.steps)
            x_adv = self.threat.project(
                self.threat.ascend(x_adv, est.grad, est.value.new_full((len(y),), length)), x
            )
        return None

    def _take(self, x_adv: Images, value: Tensor, won: Tensor) -> bool:
        """Keeps the best point so far; whether it fools."""
        value = torch.where(won, torch.inf, value.nan_to_num(nan=-torch.inf))
        if float(value.max()) > self.value:
            self.value, self.best = float(value.max()), x_adv[value.argmax()].clone()
        return bool(won.any())
