"""Which examples of a data set are audited: a random sample, stratified by class, that its seed says again."""

from __future__ import annotations

import numpy as np

from ..errors import UnusableInput


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


def places(labels: np.ndarray, examples: int | None, seed: int | None, name: str) -> np.ndarray:
    """Places of all examples, of the first `examples` where there is no seed, else of a stratified sample.

    **Raises** `UnusableInput` where the set holds fewer.
    """
    if examples is None:
        return np.arange(len(labels))
    if examples > len(labels):
        raise UnusableInput(
            f"--examples is {examples}, but {name} holds {len(labels)}; give at most that many"
        )
    return np.arange(examples) if seed is None else stratified(labels, examples, seed)
