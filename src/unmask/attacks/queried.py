"""An attack from outside: it asks the deployed network, and sees nothing but the answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..classifier import Classifier, Meter
from ..errors import Unsupported, UnusableInput
from ..randomness import Streams
from ..threat import ThreatModel
from ..types import Outputs
from .base import Attack, Cost, Images, Labels


def _closed(x: Tensor) -> Tensor:
    raise Unsupported("an adversary outside the network sees answers only; use an attack that needs no more")


class Service(Classifier):
    """A classifier as its users see it: a query is answered by the deployed prediction, and by nothing else.

    An answer is the logits, or one-hot for the class alone, and whether the input is rejected (a score of one or minus
    one). No gradient leads through it, and there is no network to look into.

    **Arguments**
    - `inside`: the network that answers.
    - `answers`: `scores` or `labels`.
    - `most`: queries that may be asked, in examples; None for no limit.

    **Raises** `UnusableInput` at the query that is one too many.
    """

    def __init__(self, inside: Classifier, answers: Literal["scores", "labels"], most: int | None = None):
        super().__init__(_closed, deterministic=inside.deterministic)
        self.inside = inside.replace(meter=Meter())
        self.answers = answers
        self.most = most

    def __call__(self, x: Images, *, generator: torch.Generator | Streams) -> Outputs:
        """The deployed prediction: one query for each example, `passes` forwards of the network."""
        self.meter.forwards += len(x)
        if self.most is not None and self.meter.forwards > self.most:
            raise UnusableInput(
                f"the attack asks more than {self.most} queries of this batch; give an attack that keeps to the limit"
            )
        outputs = self.inside.predict(x, generator=generator)
        logits, score = outputs.logits, outputs.detector_score
        if self.answers == "labels":
            sound = torch.isfinite(logits).all(1, keepdim=True)
            logits = torch.where(sound, F.one_hot(logits.argmax(1), logits.shape[1]).to(logits), logits)
        return Outputs(logits, None if score is None else torch.where(score > 0, 1.0, -1.0).to(score))


@dataclass(frozen=True, kw_only=True)
class Queried(Attack):
    """Runs another attack against the service instead of the network.

    **Fields**
    - `inner`: an attack that needs no gradient, such as `Square`, `RayS`, `HopSkipJump` or `Substitute`.
    - `answers`: what the service says: `scores`, the logits, or `labels`, the predicted class. Either way it says
      whether it rejects.
    - `queries`: about each example at most, over the batch; None for no limit.

    **Cost**: a query costs as many forwards as the classifier has passes.
    **Raises** `UnusableInput` where `inner` asks more; `Unsupported` where it wants to look inside.
    """

    inner: Attack
    answers: Literal["scores", "labels"] = "scores"
    queries: int | None = None

    def describe(self) -> str:
        return f"{self.inner.describe()}, told {self.answers}"

    def cost(self, classes: int) -> Cost | None:
        return self.inner.cost(classes)

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        service = Service(classifier, self.answers, None if self.queries is None else self.queries * len(x))
        try:
            return self.inner.run(service, x, y, threat, generator=generator)
        finally:
            classifier.meter.forwards += service.inside.meter.judge_forwards
