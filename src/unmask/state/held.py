"""What a network holds, as a record that can be compared with and put back."""

from __future__ import annotations

from collections.abc import Iterable

from .parts import Names
from .reach import parts_of


class State:
    """What `network` holds now: its attributes, buffers and parameters, and all that can be reached from these.

    Seen are modules and other objects, containers, closures, attributes of the user's classes, the global variables
    that their code names, those of other files and libraries among them, context variables, what a running generator
    holds, and the environment; not files, data bases, other processes, or what compiled code keeps. Generators of
    random numbers are left alone.

    **Cost**: a copy of every tensor, until `only` drops those that no call changes.

    >>> class Counts:
    ...     calls = 0
    ...     def __call__(self, x):
    ...         self.calls += 1
    ...         return x * self.calls
    >>> network = Counts()
    >>> state = State(network)
    >>> network(2), network(2), state.changes()
    (2, 4, ('calls',))
    >>> state.restore()
    >>> network(2)
    2
    """

    def __init__(self, network: object):
        self._parts = parts_of(network)

    def changes(self) -> tuple[str, ...]:
        """Names of what is no longer as it was when this was made, such as `net.mem`."""
        return tuple(name for part in self._parts for name in part.changes())

    def only(self, names: Iterable[str]) -> State:
        """The same, of these alone: those that some calls were seen to change."""
        wanted, chosen = set(names), State(None)
        places = {name.rpartition(".")[0] for name in wanted}
        for part in self._parts:
            if isinstance(part, Names):
                if part.at in places or part.at in wanted:
                    chosen._parts.append(part.only(wanted))
            elif part.at in wanted:
                chosen._parts.append(part)
        return chosen

    def counts(self) -> tuple[str, ...]:
        """Names of the changes that are single numbers, such as a count of the calls."""
        return tuple(name for part in self._parts for name in part.counts())

    def restore(self) -> None:
        """Puts everything back as it was, in place: whoever holds a module or a tensor still holds it."""
        for part in self._parts:
            part.restore()
