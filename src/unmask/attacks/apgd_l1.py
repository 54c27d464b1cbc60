"""Auto-PGD in the L1 ball: sparse steps whose sparsity follows the best point."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ..classifier import Classifier
from ..judge import fooled
from ..threat import L1
from ..types import per_example
from .batch import Batch, Incumbent

if TYPE_CHECKING:
    from .apgd import APGD

Images = Float[Tensor, "batch *dims"]
_RADII = (
    (3.0, 0.3),
    (2.0, 0.3),
    (1.0, 0.4),
)  # the paper's multi-epsilon schedule: radius / epsilon, share of steps
_FIRST_DENSITY = 0.2  # share of pixels in the first steps
_SHRINK = 1.5  # divisor of the density and of the step size at a checkpoint
_SPARSER = 0.95  # the best point's support must shrink below this share of the last checkpoint's
_SMALLEST_STEP = 0.1  # of the radius


def ascend_l1(attack: APGD, classifier: Classifier, batch: Batch, threat: L1, best: Incumbent) -> None:
    """One restart of APGD under an L1 threat model: three radii, the larger ones first.

    A linear function over the L1 ball and the box has a sparse maximiser, but not a one-sparse one; hence
    steps along the signs of the `k` largest gradient entries, `k` following the support of the best point so
    far. There is no momentum.

    **Cost**: `steps + 3` estimates, one more for each change of radius.
    **Source**: Croce & Hein 2021, arXiv:2103.01208, algorithms 1 and 2.
    **Differs**: an iterate that fools inside the final ball counts in every phase.
    """
    x_adv = replace(threat, epsilon=_RADII[0][0] * threat.epsilon).random_start(
        batch.x, generator=batch.streams
    )
    for rel_radius, steps in _phases(attack.steps):
        radius = replace(threat, epsilon=rel_radius * threat.epsilon)
        batch, x_adv, value = _phase(attack, classifier, batch, threat, radius, x_adv, steps, best)
        if not len(batch):
            return
    best.offer(batch.index, x_adv, value)


def _phases(steps: int) -> Iterator[tuple[float, int]]:
    done = 0
    for rel_radius, share in _RADII:
        part = round(share * steps) if rel_radius > 1 else steps - done
        done += part
        yield rel_radius, part


def _phase(
    attack: APGD,
    classifier: Classifier,
    batch: Batch,
    threat: L1,
    radius: L1,
    x_adv: Images,
    steps: int,
    best: Incumbent,
) -> tuple[Batch, Float[Tensor, "left *dims"], Tensor]:
    """Ascends inside one radius; returns the examples left, their best points and the values there."""
    x_adv = radius.project(x_adv, batch.x)
    pixels = x_adv[0].numel()
    x_best, grad_best = x_adv, torch.zeros_like(x_adv)
    value_best = x_adv.new_full((len(batch),), -torch.inf)
    step_size = x_adv.new_full((len(batch),), radius.epsilon)
    support = _support(x_adv, batch.x)
    density = torch.full_like(step_size, _FIRST_DENSITY)
    if radius.epsilon < _RADII[0][0] * threat.epsilon:  # later phases go on with the sparsity they have found
        density = (support / pixels / _SHRINK).clamp(1 / pixels, 1)
    every = max(round(0.04 * steps), 1)
    for step in range(steps + 1):
        est = attack.gradient.estimate(classifier, batch.objective, x_adv, batch.y, generator=batch.streams)
        better = est.value > value_best
        chosen = per_example(better, x_adv)
        x_best = torch.where(chosen, x_adv, x_best)
        grad_best = torch.where(chosen, est.grad, grad_best)
        value_best = torch.where(better, est.value, value_best)
        grad = est.grad

        if attack.early_stop:
            won = fooled(est.outputs, batch.y, threat)
            if radius.epsilon > threat.epsilon:
                won = won & (threat.distance(x_adv, batch.x) <= threat.epsilon)
            if won.any():
                best.fooled(batch, won, x_adv)
                batch, x_adv, x_best, grad, grad_best, value_best, step_size, support, density = batch.keep(
                    ~won, x_adv, x_best, grad, grad_best, value_best, step_size, support, density
                )
                if not len(batch):
                    break
        if step == steps:
            break

        if step > 0 and step % every == 0:
            now = _support(x_best, batch.x)
            sparser = now < _SPARSER * support
            step_size = torch.where(sparser, radius.epsilon, step_size / _SHRINK)
            step_size = step_size.clamp_min(_SMALLEST_STEP * radius.epsilon)
            density = (now / pixels / _SHRINK).clamp(1 / pixels, 1)
            support = now
            again = per_example(sparser, x_adv)
            x_adv, grad = torch.where(again, x_best, x_adv), torch.where(again, grad_best, grad)

        direction = threat.from_units(_sparse_ascent(threat.from_units(grad), density))
        x_adv = radius.project(x_adv + per_example(step_size, x_adv) * direction, batch.x)
    return batch, x_best, value_best


def _support(x_adv: Images, x: Images) -> Float[Tensor, " batch"]:
    """Number of changed pixels."""
    return (x_adv != x).flatten(1).sum(1).to(x.dtype)


def _sparse_ascent(grad: Images, density: Float[Tensor, " batch"]) -> Images:
    """Signs of each example's largest `density * pixels` gradient entries, scaled to L1 norm one."""
    flat = grad.flatten(1)
    size = flat.abs()
    kept = (density * flat.shape[1]).long().clamp(1, flat.shape[1])
    threshold = size.sort(dim=1, descending=True).values.gather(1, kept[:, None] - 1)
    signs = torch.where(size >= threshold, flat.sign(), torch.zeros_like(flat))
    return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).reshape(grad.shape)
