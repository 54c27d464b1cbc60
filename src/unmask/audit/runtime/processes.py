"""Several processes, as `torchrun` starts them: each works on its share of the examples, and all know the outcome."""

from __future__ import annotations

import importlib
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from ...errors import ModelFailed, UnusableInput, first_line

T = TypeVar("T")

# A share may take long; a process that dies is noticed by `torchrun`, which ends the others.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Processes:
    """The processes of one audit; by default this one alone.

    The first one, of rank 0, holds journal, report and terminal. Decisions are made from what was gathered, so that
    all processes make the same ones.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> Processes:
        """Those of torch's process group, if there is one."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def share(self, chosen: Tensor) -> Tensor:
        """What this process works on; nothing if there are fewer examples than processes."""
        return chosen.tensor_split(self.count)[self.rank]

    def gather(self, mine: T) -> list[T]:
        """What every process has, in the order of ranks."""
        if self.count == 1:
            return [mine]
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, mine)
        return found

    def agree(self, what: Mapping[str, str]) -> None:
        """All must work on the same network and data: `what` names each and says its hash.

        **Raises** `UnusableInput` where they do not.
        """
        every = self.gather(dict(what))
        for name in what:
            hashes = {one[name] for one in every}
            if len(hashes) > 1:
                raise UnusableInput(
                    f"the {self.count} processes have {len(hashes)} different versions of the {name}; make your "
                    "callable return the same every time, for instance by a fixed seed"
                )

    def attempt(self, call: Callable[[], T]) -> list[T]:
        """As `gather`, for what may raise: then all processes raise, and want of memory goes first."""
        try:
            mine: T | _Raised = call()
        except Exception as error:
            if self.count == 1:
                raise
            mine = _Raised(_portable(error))
        found = self.gather(mine)
        errors = [f.error for f in found if isinstance(f, _Raised)]
        if errors:
            raise next((e for e in errors if isinstance(e, torch.OutOfMemoryError)), errors[0])
        return [f for f in found if not isinstance(f, _Raised)]

    def first(self, call: Callable[[], T]) -> T:
        """The first process's answer, or what it raised, for all; the others wait."""
        found: list[Any] = self.attempt(lambda: call() if self.rank == 0 else None)
        return found[0]


@dataclass(frozen=True)
class _Raised:
    error: Exception


def _portable(error: Exception) -> Exception:
    """The error itself if it survives the trip to another process."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return ModelFailed(f"{type(error).__name__}: {first_line(error)}; run one process to see where")


@contextmanager
def of_torchrun() -> Iterator[Processes]:
    """Joins the processes that `torchrun` started; alone, does nothing.

    What they exchange is pickled on the host, so gloo carries it on GPUs too; two processes may share one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    # Its functions take the group that stands when it is imported as default argument, so that a later import (torch
    # does that by itself) would keep group and threads alive until the interpreter ends, which then may abort.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Processes.current()
    finally:
        dist.destroy_process_group()
