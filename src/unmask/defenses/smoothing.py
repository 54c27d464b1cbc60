"""Randomised smoothing: the honest random defence, which comes with a certificate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.stats import beta, binom, norm
from torch import Tensor, nn

from ..classifier import Classifier, Network
from ..errors import Unsupported, UnusableInput
from ..randomness import Streams
from ..threat import L1, L2, Linf, ThreatModel
from ..types import SelfCertificate
from .base import Defense, Transformed, randomised
from .noise import Noise

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


class _Vote(nn.Module):
    """One-hot vote of a network; backwards, the vote is the soft-max, as an attacker would have it."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)  # type: ignore[assignment]
        soft = logits.softmax(1)
        hard = F.one_hot(logits.argmax(1), logits.shape[1]).to(soft.dtype)
        return soft + (hard - soft).detach()


@dataclass(frozen=True, kw_only=True)
class RandomizedSmoothing(Defense):
    """Predicts the class that the network most often gives to noisy copies of the image.

    The classifier that `wrap` returns votes: each pass gives one to one class, so that the mean over its passes is
    the share of votes. It carries a certificate for exactly that prediction (`vote_certificate`), which an audit
    quotes as its lower bound. Its gradient is that of the soft-max of each noisy copy (Salman et al. 2019,
    arXiv:1906.04584, section 2.2): an honest defence makes its own attack easy.

    **Fields**
    - `sigma`: standard deviation of the noise, in units of the image range.
    - `samples`, `pilot`: noisy copies for the certificate, and for the guess of its class before; 100,000 and
      100 in the paper. The two sets are independent, or the bound would not hold.
    - `alpha`: probability that a certificate is wrong: one of `certify`, or any of all that one call of
      `vote_certificate` gives.
    - `passes`: votes of one prediction of the classifier that `wrap` returns.
    - `batch_size`: noisy copies per forward pass.

    **Cost**: `pilot + samples` judging forwards for each certified example.
    **Source**: Cohen, Rosenfeld & Kolter 2019, arXiv:1902.02918, section 3.2.2 (CERTIFY) and equation 3 with
    p_B = 1 - p_A.
    **Differs**: the paper certifies the vote of infinitely many copies and lets its finite one abstain; the
    certificate of `wrap` is about the finite vote itself.
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
        """The classifier under attack: votes of noisy copies, with its certificate."""

        def certificate(
            deployed: Classifier,
            x: Images,
            y: Int[Tensor, " batch"],
            threat: ThreatModel,
            *,
            generator: torch.Generator | Streams,
        ) -> SelfCertificate:
            undefended = classifier.replace(meter=deployed.meter)
            return self.vote_certificate(
                undefended, x, y, threat, passes=deployed.passes, generator=generator
            )

        network = _Vote(Transformed(Noise(self.sigma), classifier.network))
        return randomised(classifier, network, self.passes).replace(certificate=certificate)

    def vote_certificate(
        self,
        classifier: Classifier,
        x: Images,
        y: Int[Tensor, " batch"],
        threat: ThreatModel,
        *,
        passes: int,
        generator: torch.Generator | Streams,
    ) -> SelfCertificate:
        """Lower bounds of the probability that a vote of `passes` noisy copies is `y`, anywhere in the ball.

        Of `samples` copies of `x` those labelled `y` are counted; `y` is given, so that no pilot has to choose a
        class. Their exact one-sided lower bound p, at level `1 - alpha / batch` each (Bonferroni), moves at
        distance R to no less than p' = Phi(Phi^-1(p) - R / sigma) (Cohen et al., theorem 1, with both classes'
        bounds taken together). A vote is won for sure by more than half of the passes, hence with probability at
        least P[Binomial(passes, p') > passes / 2]: near p' = 1/2 that is a coin, not a proof, and it is counted
        as one.

        **Arguments**
        - `classifier`: the *undefended* one.
        - `threat`: an L2 ball; an L1 ball lies inside it, an Linf ball inside one larger by the root of the
          dimension.

        **Cost**: `samples` judging forwards per example.
        **Raises** `Unsupported` for a targeted goal.
        """
        if threat.goal != "untargeted":
            raise Unsupported(
                "a vote's certificate is about `y` staying the winner; the goal here is targeted"
            )
        reach = _l2_reach(threat, x[0].numel())
        streams = Streams.of(generator, len(x))
        rates = []
        for n in range(len(x)):
            stream = streams[torch.tensor([n])].fork("samples")
            votes = int(self._votes(classifier, x[n], self.samples, stream)[int(y[n])])
            p = vote_share_bound(votes, self.samples, self.alpha / len(x))
            p = float(norm.cdf(norm.ppf(p) - reach / self.sigma))
            rates.append(float(binom.sf(passes // 2, passes, p)))
        return SelfCertificate(
            torch.tensor(rates, dtype=torch.float64, device=x.device),
            self.alpha,
            f"randomised smoothing (Cohen et al. 2019), sigma {self.sigma:g}: {self.samples:,} noisy copies of each "
            f"example, votes of {passes}; all bounds hold together with probability {1 - self.alpha:g}",
        )

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
            radius = smoothed_radius(votes, self.samples, self.sigma, self.alpha)
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


def _l2_reach(threat: ThreatModel, dimension: int) -> float:
    """Radius of the smallest L2 ball around the threat model's."""
    if isinstance(threat, L2 | L1):  # the largest radius: a ball of several lies inside
        return threat.epsilon
    if isinstance(threat, Linf):
        return threat.epsilon * dimension**0.5
    raise Unsupported(f"no L2 ball is known around a ball of norm {threat.norm}")


def vote_share_bound(votes: int, samples: int, alpha: float) -> float:
    """Exact one-sided lower bound of a class's probability, at level `1 - alpha` (Clopper & Pearson 1934)."""
    return float(beta.ppf(alpha, votes, samples - votes + 1)) if votes else 0.0


def smoothed_radius(votes: int, samples: int, sigma: float, alpha: float) -> float:
    """L2 radius within which the class that got `votes` of `samples` keeps the majority; 0 if none is proved.

    The bound p of the class's probability, at level `1 - alpha`, gives `sigma * Phi^-1(p)` where p is above one
    half.

    >>> round(smoothed_radius(100_000, 100_000, 0.5, 0.001), 3)  # 3.8 sigma: the paper's ceiling
    1.906
    >>> smoothed_radius(50, 100, 0.5, 0.001)
    0.0
    """
    p = vote_share_bound(votes, samples, alpha)
    return sigma * float(norm.ppf(p)) if p > 0.5 else 0.0
