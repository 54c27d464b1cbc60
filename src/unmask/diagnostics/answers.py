"""What a network said when it was asked, and whether it says so again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..classifier import Classifier, Network, seeded
from ..errors import ModelFailed, plural
from ..randomness import Streams
from ..types import Outputs
from .comparison import CHANGED, FEW, SLIGHT, distances

# Draws by which a network whose randomness cannot be seeded is asked again, and standard errors that count as another
# answer: a chance of 2e-9 for each class. Ours.
DRAWS, ERRORS = 16, 6.0


@dataclass(frozen=True)
class Answer:
    """One call of the network.

    **Fields**
    - `when`: in words.
    - `x`: what it was asked. `logits`: what it said, `[batch, classes]`.
    - `seed`: of the global random numbers it may have drawn from.
    """

    when: str
    x: Tensor
    logits: Tensor
    seed: int


class Recorded(nn.Module):
    """A network that is asked as always, while every call is written down until `at_most` bytes are.

    >>> network = Recorded(nn.Flatten(), "early")
    >>> network(torch.ones(1, 2, 2)).shape, len(network.answers)
    (torch.Size([1, 4]), 1)
    """

    def __init__(self, network: object, when: str, at_most: int = 2**28):
        super().__init__()
        self.network, self.when, self.left = network, when, at_most
        self.answers: list[Answer] = []

    def forward(self, x: Tensor) -> object:
        seed, asked = torch.initial_seed(), x.detach().clone()  # the network may write into it
        returned = self.network(x)  # pyright: ignore[reportCallIssue]
        read = Outputs.of(returned)
        size = asked.nbytes
        if read is not None and size <= self.left:
            self.left -= size
            self.answers.append(Answer(self.when, asked, read.logits.detach().clone(), seed))
        return returned


@dataclass(frozen=True)
class Disagreement:
    """Answers that were not given again.

    **Fields**
    - `when` they were given; `others` of them, `of` so many images.
    - `largest`: change of a logit. `labels`: images whose class is another.
    """

    when: str
    others: int
    of: int
    largest: float
    labels: int

    def __str__(self) -> str:
        return (
            f"{self.others} of {self.of} answers given {self.when} {plural(self.others, 'is', 'are')} not given again "
            f"(logits differ by up to {self.largest:.3g}, {self.labels} {plural(self.labels, 'label', 'labels')})"
        )


def disagreements(
    classifier: Classifier, answers: Sequence[Answer], *, seedable: bool
) -> Iterator[Disagreement]:
    """Asks everything again, plainly and last things first; yields for each occasion what is not answered so again.

    What rounding explains is no difference: a point at which tiny noise moves the answer as far, one point alone, or a
    change of a few percent without another label. Where random numbers cannot be seeded, an answer is one draw: means
    over all images are compared, with the spread of draws.

    **Cost**: four forwards for three images; six more where one differs; `DRAWS` of them where nothing can be seeded.
    """
    again = {}
    for n, answer in enumerate(reversed(answers)):
        again[id(answer)] = _again(classifier, answer) if seedable else _draws(classifier, answer)
        if n % 3 == 0:  # once more, so that whoever answers every second call otherwise falls out of step
            _again(classifier, answer)
    for when in dict.fromkeys(a.when for a in answers):
        some = [a for a in answers if a.when == when]
        found = (_differ if seedable else _means_differ)(classifier, some, [again[id(a)] for a in some])
        if found is not None:
            yield found


@dataclass(frozen=True)
class Elsewhere:
    """A network, called as by a user: from a thread of its own, on whose stack no audit is to be seen and no attack."""

    network: Network

    def __call__(self, x: Tensor) -> Tensor | Outputs:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(torch.set_grad_enabled, False)  # each thread has a mode of its own
            return thread.submit(self.network, x).result()


def _plain(classifier: Classifier, x: Tensor, seed: int) -> Tensor:
    # Under a seed that is set here, not by the door.
    asked = classifier.replace(deterministic=True, probabilities=False)
    streams = Streams.seeded(0, torch.arange(len(x), device=x.device))
    with torch.no_grad(), seeded(seed, x.device):
        try:
            return asked.replace(network=Elsewhere(classifier.network))(x, generator=streams).logits
        except ModelFailed:  # it may be bound to the thread that made it
            return asked(x, generator=streams).logits


def _again(classifier: Classifier, answer: Answer) -> Tensor:
    return _plain(classifier, answer.x, answer.seed)


def _draws(classifier: Classifier, answer: Answer) -> Tensor:
    return torch.stack([_plain(classifier, answer.x, answer.seed + n) for n in range(DRAWS)])


def _said(classifier: Classifier, answers: Sequence[Answer]) -> Tensor:
    read = classifier.replace(probabilities=False)
    return torch.cat([read.as_logits(Outputs(a.logits)).logits for a in answers])


def _differ(
    classifier: Classifier, answers: Sequence[Answer], again: Sequence[Tensor]
) -> Disagreement | None:
    said, now = _said(classifier, answers), torch.cat(list(again))
    share = distances(said, now)
    if int((share > CHANGED).sum()) < FEW:
        return None
    jitter = torch.zeros_like(share)
    for n, size in enumerate((1e-7, 1e-6, 1e-5)):
        moved = [_plain(classifier, a.x + size * _signs(a.x, n), a.seed) for a in answers]
        jitter = torch.maximum(jitter, distances(now, torch.cat(moved)))
    other = share > (4 * jitter).clamp_min(CHANGED)
    # Unless it was no noise: the very same question, three times over.
    for _ in range(3):
        once_more = torch.cat([_again(classifier, a) for a in answers])
        other |= (share > CHANGED) & (distances(now, once_more) > CHANGED)
    labels = (said.argmax(1) != now.argmax(1)) & other
    if int(other.sum()) < FEW or (bool((share[other] <= SLIGHT).all()) and not labels.any()):
        return None
    largest = float((said - now)[other].abs().max())
    return Disagreement(answers[0].when, int(other.sum()), len(said), largest, int(labels.sum()))


def _signs(x: Tensor, n: int) -> Tensor:
    streams = Streams.seeded(n, torch.arange(len(x), device=x.device), "rounding")
    return streams.signs(*x.shape[1:], device=x.device).to(x)


def _means_differ(
    classifier: Classifier, answers: Sequence[Answer], again: Sequence[Tensor]
) -> Disagreement | None:
    said, draws = _said(classifier, answers).double(), torch.cat(list(again), 1).double()
    now, spread = draws.mean(0), draws.var(0)
    change = said - now
    error = (spread.sum(0) * (1 + 1 / DRAWS)).sqrt()
    # The least difference that is no rounding: where nothing varies any more, the network has settled.
    least = CHANGED * said.abs().sum(0)
    if not (change.sum(0).abs() > ERRORS * error + least).any():
        return None
    other = change.abs().amax(1) > CHANGED * said.abs().amax(1)
    labels = int((said.argmax(1) != now.argmax(1)).sum())
    return Disagreement(answers[0].when, int(other.sum()), len(said), float(change.abs().max()), labels)
