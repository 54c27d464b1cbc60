"""The class that each example is to be taken for, where the adversary's goal is targeted.

Imports nothing of the attacks: `verify` asks here too.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..data import Data, load
from ..errors import UnusableInput, plural

Rule = Literal["random", "least-likely"]
Targets = Rule | int
Labels = Int[Tensor, " n"]


def load_for(
    targets: Targets | None,
    spec: str,
    *,
    split: str | None,
    examples: int | None,
    seed: int | None,
    allow_pickle: bool,
) -> Data:
    """As `unmask.data.load`, without the images that are of the target class already, where there is one."""
    without = targets if isinstance(targets, int) else None
    return load(spec, split=split, examples=examples, seed=seed, allow_pickle=allow_pickle, without=without)


def choose(
    targets: Targets, y: Labels, index: Labels, *, seed: int, logits: Float[Tensor, "n classes"]
) -> Labels:
    """The target of each example, never its label.

    - `random`: the label plus one plus SHA-256 of "target SEED INDEX" modulo the number of other classes, modulo the
      number of classes; `index` is the example's place in its split. Nobody can pick the easy one, and anybody can
      check it.
    - `least-likely`: of the other classes the one whose clean logit is smallest (Kurakin et al. 2017,
      arXiv:1607.02533).
    - a class: that one.

    **Arguments**
    - `logits`: of the clean images.

    **Raises** `UnusableInput` for a class that the network has not, or that an image is of already.
    """
    classes = logits.shape[1]
    if targets == "random":
        ahead = torch.tensor([_draw(seed, place, classes - 1) for place in index.tolist()], device=y.device)
        return (y + 1 + ahead) % classes
    if targets == "least-likely":
        return logits.scatter(1, y[:, None], torch.inf).argmin(1)
    if not 0 <= targets < classes:
        raise UnusableInput(f"targets is {targets}; the network has the classes 0 to {classes - 1}")
    if count := int((y == targets).sum()):
        raise UnusableInput(
            f"targets is {targets}, and {count} of {len(y)} images {plural(count, 'is', 'are')} of that class already; "
            f"leave {plural(count, 'it', 'them')} out"
        )
    return torch.full_like(y, targets)


def _draw(seed: int, place: int, count: int) -> int:
    digest = hashlib.sha256(f"target {seed} {place}".encode()).digest()
    return int.from_bytes(digest, "big") % count
