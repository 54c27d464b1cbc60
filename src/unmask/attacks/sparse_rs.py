"""Sparse-RS: random search over few pixels or one patch."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import Unsupported
from ..threat import Counted, Patch, ThreatModel
from .base import Images
from .random_search import Moves, RandomSearch
from .sparse_moves import PatchMoves, PixelMoves

# Of 10,000 queries, and the divisor of the share from there on: the paper's appendix A and its authors' code.
_SCHEDULE = (
    (0, 2), (50, 4), (200, 5), (500, 6), (1000, 8), (2000, 10), (4000, 12), (6000, 15), (8000, 20),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SparseRS(RandomSearch):
    """Random search over which pixels change, or where a patch lies and what it shows; values are ends of the box.

    **Fields**
    - `alpha_init`: share of the changed pixels that the first queries exchange, of the patch that they repaint; it
      falls on the paper's schedule, stretched to `queries`.

    **Cost**: at most `queries` forwards per example, no backward.
    **Raises** `Unsupported` for the ball of a norm.
    **Source**: Croce et al. 2022, arXiv:2006.12834.
    **Differs**: one schedule for pixels and patches.
    """

    alpha_init: float = 0.3

    def describe(self) -> str:
        return f"Sparse-RS-{self.queries}"

    def share(self, query: int, rounds: int) -> float:
        """Share of the pixels, or of the patch, that a query changes."""
        past = [divisor for begins, divisor in _SCHEDULE if 10_000 * query / rounds > begins]
        return self.alpha_init / (past[-1] if past else 1)

    def moves(self, threat: ThreatModel, x: Images) -> Moves:
        if isinstance(threat, Counted):
            return PixelMoves(threat, x)
        if isinstance(threat, Patch):
            return PatchMoves(threat, x)
        raise Unsupported(
            f"`SparseRS` changes few pixels or a patch, and the threat model is {threat.norm}; use `Square`"
        )
