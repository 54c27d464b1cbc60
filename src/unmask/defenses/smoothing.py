"""Randomised smoothing: the honest random defence, which comes with a certificate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.stats import beta, norm
from torch import Tensor

from ..classifier import Classifier
from ..errors import UnusableInput
from ..randomness import Streams
from .base import Defense
from .noise import InputNoise

Images = Float[Tensor, "batch *dims"]
ABSTAIN = -1


@dataclass(frozen=True)
class SmoothedCertificate:
    """What can be proved about a batch under Gaussian noise.

    **Fields**
    - `prediction`: `[batch]`, the class that noise prefers, or `ABSTAIN` (-1).
    - `radius`: `[batch]`, L2, in units of the image range: no perturbation of at most this length changes the
      smoothed class; 0 where it abstains. Each holds with probability `1 - alpha` over the noise drawn.
    """

    prediction: Int[Tensor, " batch"]
    radius: Float[Tensor, " batch"]

    def certified_accuracy(self, y: Int[Tensor, " batch"], epsilon: float) -> float:
        """Share of the examples proved right within the L2 ball: a lower bound of the robust accuracy."""
        return float(((self.prediction == y) & (self.radius >= epsilon)).float().mean())


@dataclass(frozen=True, kw_only=True)
class RandomizedSmoothing(Defense):
    """Predicts the class that the network most often gives to noisy copies of the image.

    **Fields**
    - `sigma`: standard deviation of the noise, in units of the image range.
    - `samples`, `pilot`: noisy copies for the certificate, and for the guess of its class before; 100,000 and
      100 in the paper. The two sets are independent, or the bound would not hold.
    - `alpha`: probability that a certificate is wrong.
    - `passes`: of the classifier that `wrap` returns.
    - `batch_size`: noisy copies per forward pass.

    **Cost**: `pilot + samples` judging forwards for each certified example.
    **Source**: Cohen, Rosenfeld & Kolter 2019, arXiv:1902.02918, section 3.2.2 (CERTIFY) and equation 3 with
    p_B = 1 - p_A.
    **Differs**: `wrap` averages logits over its passes, as every classifier here; the certificate counts votes
    and belongs to the vote.
    """

    sigma: float = 0.25
    samples: int = 10_000
    pilot: int = 100
    alpha: float = 0.001
    passes: int = 100
    batch_size: int = 500

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise UnusableInput(f"`RandomizedSmoothing` has sigma={self.sigma}; give a positive number")
        if not 0 < self.alpha < 1:
            raise UnusableInput(
                f"`RandomizedSmoothing` has alpha={self.alpha}; give a number between 0 and 1"
            )
        for name in ("samples", "pilot", "batch_size"):
            if getattr(self, name) < 1:
                raise UnusableInput(
                    f"`RandomizedSmoothing` has {name}={getattr(self, name)}; give at least 1"
                )

    def wrap(self, classifier: Classifier) -> Classifier:
        """The classifier that attacks see: mean logits over noisy passes."""
        return InputNoise(sigma=self.sigma, passes=self.passes).wrap(classifier)

    def certify(
        self,
        classifier: Classifier,
        x: Images,
        *,
        generator: torch.Generator | Streams,
    ) -> SmoothedCertificate:
        """Certificates of the vote around the *undefended* `classifier`, example by example."""
        streams = Streams.of(generator, len(x))
        predictions, radii = [], []
        for n in range(len(x)):
            part = torch.tensor([n])
            pilot = self._votes(classifier, x[n], self.pilot, streams[part].fork("pilot"))
            top = int(pilot.argmax())
            votes = int(self._votes(classifier, x[n], self.samples, streams[part].fork("samples"))[top])
            radius = certified_radius(votes, self.samples, self.sigma, self.alpha)
            predictions.append(top if radius > 0 else ABSTAIN)
            radii.append(radius)
        return SmoothedCertificate(
            torch.tensor(predictions, device=x.device), torch.tensor(radii, device=x.device)
        )

    def _votes(
        self, classifier: Classifier, image: Tensor, count: int, stream: Streams
    ) -> Int[Tensor, " classes"]:
        votes: Tensor | None = None
        while count > 0:
            some = min(count, self.batch_size)
            noise = stream.normal(some, *image.shape, device=image.device)[0].to(image.dtype)
            many = Streams(stream.seeds.expand(some), stream.counter)
            logits = classifier.replace(passes=1).predict(image + self.sigma * noise, generator=many).logits
            cast = torch.bincount(logits.argmax(1), minlength=logits.shape[1])
            votes = cast if votes is None else votes + cast
            count -= some
        assert votes is not None
        return votes


def certified_radius(votes: int, samples: int, sigma: float, alpha: float) -> float:
    """L2 radius within which the class that got `votes` of `samples` keeps the majority; 0 if none is proved.

    The exact (Clopper & Pearson 1934) one-sided bound p of the class's probability, at level `1 - alpha`, gives
    `sigma * Phi^-1(p)` where p is above one half.

    >>> round(certified_radius(100_000, 100_000, 0.5, 0.001), 3)  # 3.8 sigma: the paper's ceiling
    1.906
    >>> certified_radius(50, 100, 0.5, 0.001)
    0.0
    """
    p = float(beta.ppf(alpha, votes, samples - votes + 1)) if votes else 0.0
    return sigma * float(norm.ppf(p)) if p > 0.5 else 0.0
