"""The attack with gradients and the one without that suit a threat model."""

from __future__ import annotations

from ..gradients import Exact, GradientEstimator
from ..objectives import Objective, cross_entropy, margin_loss
from ..threat import FewPixels, ThreatModel
from .apgd import APGD
from .sparse_pgd import SparsePGD
from .sparse_rs import SparseRS
from .square import Square

EXACT = Exact()


def ascent(
    threat: ThreatModel,
    *,
    steps: int,
    restarts: int = 1,
    objective: Objective = cross_entropy,
    gradient: GradientEstimator = EXACT,
    early_stop: bool = True,
) -> APGD | SparsePGD:
    """The attack that follows gradients: `APGD` in the ball of a norm, `SparsePGD` where few pixels change.

    >>> from unmask.threat import Patch
    >>> ascent(Patch(epsilon=5), steps=20).describe()
    'sparse PGD-20'
    """
    kind = SparsePGD if isinstance(threat, FewPixels) else APGD
    return kind(steps=steps, restarts=restarts, objective=objective, gradient=gradient, early_stop=early_stop)


def search(
    threat: ThreatModel, *, queries: int, objective: Objective = margin_loss, early_stop: bool = True
) -> Square | SparseRS:
    """The attack that is told scores: `Square` in the ball of a norm, `SparseRS` where few pixels change."""
    kind = SparseRS if isinstance(threat, FewPixels) else Square
    return kind(queries=queries, objective=objective, early_stop=early_stop)
