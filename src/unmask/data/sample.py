"""Which examples of a data set are audited: a random sample, stratified by class, that its seed says again."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ..errors import UnusableInput, plural

# Which of a set's labels `[n]` are taken: their places, ascending.
Choice = Callable[[np.ndarray], np.ndarray]


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Places `[count]`, ascending, of a random sample whose classes have the shares that they have in the set.

    Each class gets its share rounded down; what is left goes to the largest remainders, ties by lot. Within a class
    every example is equally likely. The first examples of a folder sorted by class would all be of one class.

    >>> labels = np.array([0] * 40 + [1] * 20)
    >>> np.bincount(labels[stratified(labels, 9, seed=0)]).tolist()
    [6, 3]
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * count / len(labels)
    shares = np.floor(exact).astype(int)
    remainders = exact - shares + 1e-9 * rng.random(len(classes))
    shares[np.argsort(-remainders)[: count - shares.sum()]] += 1
    chosen = [order[labels[order] == c][:share] for c, share in zip(classes, shares, strict=True)]
    return np.sort(np.concatenate(chosen))


def mixed(labels: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """An order of the examples in which the first ones stand for all: as they come, or by lot where they come by class.

    What an audit asks of a few examples, it asks of the first. Of a folder, or of arrays, sorted by class these would
    be of one class, and a network that hides its gradient for another would never be asked. They come by class where
    neighbours share theirs more often than chance explains, by three standard deviations.

    >>> mixed(torch.tensor([0, 1, 2, 0, 2, 1])).tolist()
    [0, 1, 2, 3, 4, 5]
    >>> labels = torch.arange(3).repeat_interleave(20)
    >>> labels[mixed(labels)[:12]].bincount().tolist()
    [4, 2, 6]
    """
    as_they_come = torch.arange(len(labels), device=labels.device)
    if len(labels) < 3:
        return as_they_come
    shares = labels.unique(return_counts=True)[1].double() / len(labels)
    chance = float(shares.square().sum())
    together = float((labels[1:] == labels[:-1]).double().mean())
    if together <= chance + 3 * math.sqrt(chance * (1 - chance) / (len(labels) - 1)):
        return as_they_come
    return torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).to(labels.device)


def places(
    labels: np.ndarray, examples: int | None, seed: int | None, name: str, without: int | None = None
) -> np.ndarray:
    """Places of all examples, of the first `examples` where there is no seed, else of a stratified sample.

    Those of the class `without` are left out beforehand.

    **Raises** `UnusableInput` where the set holds fewer.
    """
    if without is not None:
        others = np.flatnonzero(labels != without)
        if not len(others) or (examples is not None and examples > len(others)):
            images = plural(len(others), "image that is", "images that are")
            raise UnusableInput(
                f"{name} holds {len(others)} {images} not of the target class {without}; give --examples at most that "
                "number, or another class"
            )
        return others[places(labels[others], examples, seed, name)]
    if examples is None:
        return np.arange(len(labels))
    if examples > len(labels):
        raise UnusableInput(
            f"--examples is {examples}, but {name} holds {len(labels)}; give at most that many"
        )
    return np.arange(examples) if seed is None else stratified(labels, examples, seed)
