"""The Square attack: random search that needs nothing but scores."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import Unsupported
from ..threat import L1, L2, Linf, ThreatModel
from .base import Images
from .random_search import Moves, RandomSearch
from .square_moves import LinfMoves, LpMoves

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries; the paper's section 5


@dataclass(frozen=True, kw_only=True)
class Square(RandomSearch):
    """Random search over square-shaped changes that always sit on the edge of the ball.

    **Fields**
    - `p_init`: share of the pixels in the first windows; it halves on the paper's schedule, stretched to
      `queries`.

    **Cost**: at most `queries` forwards per example, no backward.
    **Raises** `Unsupported` for inputs of more dimensions than volumes, and for what is no norm.
    **Source**: Andriushchenko et al. 2020, arXiv:1912.00049; L1 as in Croce & Hein 2021, arXiv:2103.01208.
    **Differs**: a change that would leave the point where it is takes the opposite sign instead of costing a
    query.
    """

    p_init: float = 0.8

    def describe(self) -> str:
        return f"Square-{self.queries}"

    def share(self, query: int, rounds: int) -> float:
        """Share of the pixels that a window covers."""
        return self.p_init / 2 ** sum(10_000 * query / rounds > halving for halving in _HALVINGS)

    def moves(self, threat: ThreatModel, x: Images) -> Moves:
        if not 2 <= x.ndim <= 5:
            raise Unsupported(
                f"`Square` needs vectors, signals, images or volumes, not {x.ndim - 1}-D inputs; use `RayS`"
            )
        if isinstance(threat, Linf):
            return LinfMoves(threat, x)
        if isinstance(threat, L1 | L2):
            return LpMoves(threat, x)
        raise Unsupported(f"`Square` knows no moves for {type(threat).__name__}; use `SparseRS`")
