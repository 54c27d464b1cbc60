"""Whether a network has become slower by being asked, so that what asks it often would not end."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from ..errors import UnusableInput
from ..types import Outputs
from .call import Network, called

# Calls among which the quickest is what the network took at first. Ours.
FIRST = 20
# Seconds of processor time that calls take before the first look, and twice as many before each later one. Ours.
SPENT = 20.0
# So many times as long, and at least so many seconds, for the same question: then what the network keeps has grown.
# Ours: a growing memory makes every call dearer without end, and other causes do not make one question dearer so much.
SLOWER, LONG = 20.0, 0.01


class Pace:
    """Calls the network, and stops where one question takes far longer than it did at first.

    What a network keeps where nobody can put it back (a file, a database, another process) may grow with every call,
    and with it the time of a call. Thousands of calls then take hours, whatever was forecast of the first ones.

    **Cost**: nothing at a usual pace; a forward or three of a question of the first ones where calls have become dear.
    """

    def __init__(self):
        self._spent, self._look, self._calls = 0.0, SPENT, 0
        # The network asked then, for a repaired one in its place is slower; its question; with autograd; seconds.
        self._first: tuple[Network, Tensor, bool, float] | None = None

    def call(self, network: Network, x: Tensor) -> Outputs:
        """As `called`.

        **Raises** `UnusableInput` where a question takes `SLOWER` times as long as at first.
        """
        began = time.process_time()
        found = called(network, x)
        seconds = time.process_time() - began
        self._spent += seconds
        self._calls += 1
        if self._calls <= FIRST and (self._first is None or seconds < self._first[3]):
            self._first = network, x.detach().clone(), torch.is_grad_enabled(), seconds
        elif self._spent > self._look:
            self._look = 2 * self._spent
            self._compare()
        return found

    def _compare(self) -> None:
        assert self._first is not None
        network, x, learning, at_first = self._first
        least = max(SLOWER * at_first, LONG)
        now = float("inf")
        for _ in range(3):
            began = time.process_time()
            with torch.set_grad_enabled(learning):
                called(network, x)
            now = min(now, time.process_time() - began)
            if now < least:
                return
        self._look = self._spent  # whoever goes on is told again
        raise UnusableInput(
            f"the network takes {now:.3g} s for a question that took {at_first:.2g} s at first: what it keeps from "
            "call to call grows, and an audit would not end; let it keep nothing, in a file or elsewhere"
        )
