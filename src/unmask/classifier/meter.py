"""What was asked of a network: passes, counted in examples."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass
class Meter:
    """Passes spent, counted in examples. Judging is counted apart from attacking."""

    forwards: int = 0
    backwards: int = 0
    judge_forwards: int = 0

    def snapshot(self) -> Meter:
        """A copy, which counts no further."""
        return replace(self)

    def since(self, earlier: Meter) -> Meter:
        """What was spent after that snapshot."""
        return Meter(
            self.forwards - earlier.forwards,
            self.backwards - earlier.backwards,
            self.judge_forwards - earlier.judge_forwards,
        )

    def add(self, more: Meter) -> None:
        """Counts what was spent elsewhere, too."""
        self.forwards += more.forwards
        self.backwards += more.backwards
        self.judge_forwards += more.judge_forwards
