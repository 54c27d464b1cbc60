"""Success is decided here and nowhere else: in the ball, in the box, finite, wrong, not rejected, on fresh draws."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .classifier import Classifier
from .objectives import Undetected, margin_loss
from .randomness import Streams
from .threat import ThreatModel
from .types import Outputs

# Chance that examples which draw by themselves are taken for ones that draw together. Ours.
TOGETHER = 1e-3

Images = Float[Tensor, "batch *dims"]
Labels = Int[Tensor, " batch"]


def fooled(outputs: Outputs, y: Labels, threat: ThreatModel) -> Bool[Tensor, " batch"]:
    """Whether outputs meet the adversary's goal. Non-finite logits never do, and neither does a rejected input."""
    prediction = outputs.logits.argmax(1)
    met = prediction == y if threat.goal == "targeted" else prediction != y
    met = met & torch.isfinite(outputs.logits).all(1)
    if outputs.detector_score is not None:
        met = met & (outputs.detector_score <= 0)
    return met


def _answered(outputs: Outputs) -> Bool[Tensor, " batch"]:
    finite, score = torch.isfinite(outputs.logits).all(1), outputs.detector_score
    return finite if score is None else (finite & ~torch.isnan(score)) | (score > 0)


@dataclass(frozen=True)
class Judgement:
    """What the judge saw, per example.

    **Fields**
    - `failure_rate`: share of the fresh draws on which the goal was met, in [0, 1]; 0 where `x_adv` is not allowed.
      For a deterministic network this is 0 or 1.
    - `allowed`: whether `x_adv` is finite, in the box and in the ball.
    - `finite`: whether all logits and scores of all draws were finite, or the input rejected.
    - `margin_loss`: mean over the draws of the largest other logit minus the label's, less what a detector objects;
      how near the example is to breaking, positive where it does. Under a targeted goal minus the first.
    - `prediction`: class on the last draw.
    - `shared`: covariance over the draws of whether this example failed and how many of its batch did. Summed over
      examples, the variance of their number: more than each one's own where a batch draws once for all.
    """

    failure_rate: Float[Tensor, " batch"]
    allowed: Bool[Tensor, " batch"]
    finite: Bool[Tensor, " batch"]
    margin_loss: Float[Tensor, " batch"]
    prediction: Int[Tensor, " batch"]
    shared: Float[Tensor, " batch"] | None = None

    def drawn_together(self, draws: int) -> bool:
        """Whether the number of failures varies from draw to draw by more than draws of each example's own would.

        A chi-squared test of that variance, at `TOGETHER`.
        """
        each = float((self.failure_rate * (1 - self.failure_rate)).double().sum()) * draws / max(1, draws - 1)
        if self.shared is None or draws < 2 or not each > 0:
            return False
        from scipy.stats import chi2  # here, for it takes a second to import

        most = float(chi2.isf(TOGETHER, draws - 1)) / (draws - 1)
        return float(self.shared.double().sum()) > most * each


def judge(
    classifier: Classifier,
    x_adv: Images,
    x: Images,
    y: Labels,
    threat: ThreatModel,
    *,
    draws: int = 1,
    generator: torch.Generator | Streams,
) -> Judgement:
    """Scores candidates as the network is deployed: each draw is a mean over the claimed passes, on fresh randomness.

    **Cost**: `draws * passes` judging forwards per example; one draw is enough for a deterministic network.
    """
    if classifier.deterministic:
        draws = 1
    allowed = threat.contains(x_adv, x)
    failed: list[Tensor] = []
    finite = torch.ones(len(x), dtype=torch.bool, device=x.device)
    loss = torch.zeros(len(x), device=x.device)
    prediction = torch.zeros_like(y)
    objective = Undetected(margin_loss).for_goal(threat.goal)
    for _ in range(draws):
        outputs = classifier.predict(x_adv, generator=generator)
        loss += objective(outputs, y).float() / draws
        prediction = outputs.logits.argmax(1)
        failed.append(fooled(outputs, y, threat))
        finite &= _answered(outputs)
    seen = torch.stack(failed) & allowed
    return Judgement(seen.float().mean(0), allowed, finite, loss, prediction, _shared(seen))


def _shared(failed: Bool[Tensor, "draws batch"]) -> Float[Tensor, " batch"]:
    apart = failed.float() - failed.float().mean(0)
    return (apart * apart.sum(1, keepdim=True)).sum(0) / max(1, len(failed) - 1)
