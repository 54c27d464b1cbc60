"""Several processes that train one network: each takes its part of every minibatch, all take the same step.

Lightning Fabric starts the processes' talk and carries it. Accelerate could as well; Fabric is an object that is handed
around, where Accelerate keeps its state in a singleton of the whole process. Of either, only the launch and the
collectives are used: `DistributedDataParallel` expects one forward and one backward pass per step and no gradients of
the image, and attacks, TRADES, Free and YOPO do otherwise. So gradients are averaged once, right before the optimiser's
step, in one message.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import UnusableInput


@dataclass(frozen=True)
class Processes:
    """Who trains together; one process by default, which needs nothing.

    All randomness is drawn for the whole minibatch by everybody, so that the number of processes changes nothing
    beyond floating point; except where `parted` says otherwise.
    """

    fabric: Any = None

    @classmethod
    def join(cls, device: str) -> Processes:
        """Those that `torchrun` has started; just this one where it has not.

        **Raises** `UnusableInput` where several are asked for and `lightning-fabric` is not installed.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        try:
            from lightning_fabric import Fabric
        except ImportError as error:
            raise UnusableInput(
                "several processes need Lightning Fabric; run `pip install lightning-fabric`, or do without torchrun"
            ) from error
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        fabric = Fabric(
            accelerator=device.partition(":")[0],
            devices=here,
            num_nodes=int(os.environ["WORLD_SIZE"]) // here,
            strategy="ddp",
        )
        # As in audit/runtime/processes.py: a later import would keep the group, and its threads, until the very end.
        importlib.import_module("torch.distributed.nn.functional")
        fabric.launch()
        return cls(fabric)

    @property
    def size(self) -> int:
        """How many."""
        return 1 if self.fabric is None else self.fabric.world_size

    @property
    def rank(self) -> int:
        """Number of this one, from 0."""
        return 0 if self.fabric is None else self.fabric.global_rank

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.rank == 0

    def part(self, whole: Any) -> Any:
        """The part of a minibatch that belongs to this process: of a tensor, or of the examples' random streams."""
        if self.fabric is None:
            return whole
        share = len(whole) // self.size
        return whole[self.rank * share : (self.rank + 1) * share]

    def whole(self, part: Tensor) -> Tensor:
        """The parts of all processes, in order."""
        if self.fabric is None:
            return part
        whole = part.new_zeros(len(part) * self.size, *part.shape[1:])
        self.part(whole).copy_(part)
        return self.fabric.all_reduce(whole, reduce_op="sum")

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors by their mean over the processes, in one message."""
        if self.fabric is None or not tensors:
            return
        message = self.fabric.all_reduce(torch.cat([t.flatten() for t in tensors]), reduce_op="mean")
        for t, mean in zip(tensors, message.split([t.numel() for t in tensors]), strict=True):
            t.copy_(mean.view_as(t))

    def mean(self, values: Sequence[float]) -> list[float]:
        """Means over the processes."""
        if self.fabric is None:
            return list(values)
        return self.fabric.all_reduce(torch.tensor(values, dtype=torch.float64), reduce_op="mean").tolist()

    def parted(self, network: nn.Module) -> str | None:
        """One sentence where batch normalisation, as in PyTorch's own data parallelism, sees a process's part only."""
        whole = (nn.SyncBatchNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
        layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and not isinstance(m, whole)]
        if self.size == 1 or not layers:
            return None
        return (
            f"{len(layers)} layers of batch normalisation see only a process's part of a minibatch, so {self.size} "
            "processes do not give the loss curve of one; nn.SyncBatchNorm does on GPUs, nothing of PyTorch on CPUs: "
            "take one process, or a network without"
        )

    def wait(self) -> None:
        """Until all are here."""
        if self.fabric is not None:
            self.fabric.barrier()
