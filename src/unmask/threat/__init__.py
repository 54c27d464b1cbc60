"""Threat models: what the adversary may do. Whatever depends on it stands in this room and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import Unsupported, UnusableInput
from .base import ThreatModel
from .lp import L1, L2, Linf, NormBall
from .patch import Patch
from .sparse import L0, Counted, FewPixels, L0Elements

__all__ = [
    "BALLS",
    "L0",
    "L1",
    "L2",
    "NORMS",
    "Counted",
    "FewPixels",
    "L0Elements",
    "Linf",
    "NormBall",
    "Patch",
    "ThreatModel",
    "norm_ball",
    "one_radius",
    "threat_model",
]

BALLS: dict[str, type[NormBall]] = {"linf": Linf, "l2": L2, "l1": L1}
NORMS: dict[str, type[ThreatModel]] = {**BALLS, "l0": L0, "l0-elements": L0Elements, "patch": Patch}


def threat_model(norm: str, epsilon: float | str | Sequence[float], **fields: object) -> ThreatModel:
    """The threat model of a norm's name, for the CLI and for files; a list of radii has one a channel or feature.

    >>> threat_model("linf", 0.3).epsilon
    0.3
    """
    if norm.lower() not in NORMS:
        raise UnusableInput(f"the norm is {norm!r}; choose one of {', '.join(NORMS)}")
    return NORMS[norm.lower()](epsilon=epsilon, **fields)  # type: ignore[arg-type]


def norm_ball(threat: ThreatModel, who: str) -> NormBall:
    """The threat model, if it is the ball of a norm.

    **Raises** `Unsupported` in the name of `who`, the part that needs one.

    >>> norm_ball(L0(epsilon=5), "`PGD`")
    Traceback (most recent call last):
    ...
    unmask.errors.Unsupported: `PGD` needs a ball of linf, l2, l1, and the threat model is l0
    """
    if not isinstance(threat, NormBall):
        raise Unsupported(f"{who} needs a ball of {', '.join(BALLS)}, and the threat model is {threat.norm}")
    return threat


def one_radius(threat: ThreatModel, who: str) -> NormBall:
    """The threat model, if it is the ball of a norm with the same radius everywhere.

    **Raises** `Unsupported` in the name of `who`, the part that needs one.

    >>> one_radius(Linf([0.1, 0.2]), "`CarliniWagner`")
    Traceback (most recent call last):
    ...
    unmask.errors.Unsupported: `CarliniWagner` needs one radius for all channels or features, and epsilon has several
    """
    ball = norm_ball(threat, who)
    if ball.weights is not None:
        raise Unsupported(f"{who} needs one radius for all channels or features, and epsilon has several")
    return ball
