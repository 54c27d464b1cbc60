"""A random member of an ensemble answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..classifier import Classifier
from ..errors import UnusableInput
from .base import RandomDefense


class _Member(nn.Module):
    def __init__(self, members: Sequence[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        return self.members[int(torch.randint(len(self.members), ()))](x)


class _Mean(nn.Module):
    def __init__(self, members: Sequence[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x) for member in self.members]).mean(0)


@dataclass(frozen=True, kw_only=True)
class RandomMember(RandomDefense):
    """Each pass, for the whole batch, a random one of several networks answers.

    **Fields**
    - `others`: the networks beside the wrapped one; all are equally likely.
    - `passes`, `average`: as `RandomDefense` has them.

    The surrogate of the classifier it returns is the mean of all members.

    **Source**: Sengupta, Chakraborti & Kambhampati 2017, arXiv:1705.07213 (MTDeep). **Differs**: they choose the
    probabilities as the equilibrium of a game.
    """

    others: Sequence[nn.Module] = field(default_factory=tuple)
    passes: int = 1

    def __post_init__(self) -> None:
        if not self.others:
            raise UnusableInput(
                "`RandomMember` has others=(); give at least one network beside the wrapped one"
            )

    def wrap(self, classifier: Classifier) -> Classifier:
        """As `Defense.wrap`. **Raises** `UnusableInput` for a network that is no `nn.Module`."""
        first = classifier.network
        if not isinstance(first, nn.Module):
            raise UnusableInput(f"`RandomMember` got a {type(first).__name__}; give a torch.nn.Module")
        members = [first, *self.others]
        mean = _Mean(members).train(getattr(first, "training", False))
        return self.randomised(classifier, _Member(members)).with_surrogate(mean)
