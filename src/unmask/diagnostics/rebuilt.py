"""The network as its owner runs it: built once more by a new interpreter that has loaded nothing of ours."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.box import InUnits
from ..errors import ModelFailed
from ..sources.preprocessing import Preprocessed
from ..types import Outputs
from . import plain_process
from .plain_process import digest

# Seconds for one answer, and for building the network and all answers together; who needs longer is not asked. Ours.
PATIENCE, IN_ALL = 60, 300.0
# What an environment says of processes that work together, of which this one is none.
_TOGETHER = (
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "ROLE_",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_",
    "TORCHELASTIC",
)
_FAILED = "the network could not be asked in a process of its own"
# Why there was no answer, where the exception does not say it.
_WHY: dict[type, str] = {TimeoutError: "it gave no answer in time", EOFError: "that process ended"}


class Rebuilt:
    """A network that a file or a module builds, asked in a process in which there is no audit.

    A network may know one by much: modules that are loaded, words of the command line, how often and by whom it was
    called. A process that is started anew, and runs what its owner would run, shows none of it. It is started by the
    first question, and each question is put to a copy of it that has answered none.

    **Arguments**
    - `spec`: `file.py:callable` or `module:callable`. `network`: what it returned here. `device`: where it is asked.
    - `units`: of the box in which it is asked, if its inputs are no pixels.

    **Raises** `ModelFailed` on a call where the process ends, gives no answer in time, or has built another network
    than `network` was (`digest`); then on every further one.
    """

    def __init__(self, spec: str, network: nn.Module, device: torch.device, units: InUnits | None = None):
        self._place, _, self._name = spec.rpartition(":")
        self._device, self._expected, self._units = str(device), digest(network), units
        self._process: subprocess.Popen[bytes] | None = None
        self._failed = ""
        self._late = threading.Timer(IN_ALL, self._give_up)

    @staticmethod
    def of(spec: str, network: object, device: torch.device) -> Rebuilt | None:
        """None where `unable` says why not."""
        units, own = network if isinstance(network, InUnits) else None, _own(network)
        if not isinstance(own, nn.Module) or Rebuilt.unable(spec, network):
            return None
        try:
            return Rebuilt(spec, own, device, units)
        except Exception:  # its state dict is its own code
            return None

    @staticmethod
    def unable(spec: str, network: object) -> str:
        """Why `spec` is not what builds `network`, which may stand in units of a box; empty where it is.

        >>> Rebuilt.unable("", nn.ReLU())
        'no Python callable was named that builds it'
        """
        place, _, name = spec.rpartition(":")
        plainly = place and all(part.isidentifier() for part in name.split("."))
        python = place.endswith(".py") or all(part.isidentifier() for part in place.split("."))
        if not (plainly and python):
            return "no Python callable was named that builds it"
        if isinstance(_own(network), Preprocessed):
            return "options stand in front of what the callable returned"
        if not isinstance(_own(network), nn.Module):
            return "what the callable returned is no torch module"
        return "" if hasattr(os, "fork") else "this system cannot copy a process"

    def __call__(self, x: Tensor) -> Any:
        if self._failed:
            raise ModelFailed(self._failed)
        if self._units is not None:
            x = self._units.natural(x)
        try:
            process = self._process or self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            plain_process.send(process.stdin.fileno(), (x.detach().cpu(), torch.initial_seed()))
            found = _received(process.stdout.fileno())
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self.close()
            why = _WHY.get(type(error), str(error))
            self._failed = self._failed or f"{_FAILED}: {why}"
            raise ModelFailed(self._failed) from error
        outputs = Outputs.of(found)
        if outputs is None:
            raise ModelFailed("the network gave nothing that can be read in a process of its own")
        score = None if outputs.detector_score is None else outputs.detector_score.to(x.device)
        return Outputs(outputs.logits.to(x.device), score)

    def _start(self) -> subprocess.Popen[bytes]:
        source = Path(plain_process.__file__).read_text(encoding="utf-8")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(_TOGETHER)}
        process = subprocess.Popen(
            [sys.executable, "-c", source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is meant for the audit
        )
        self._process = process
        self._late.daemon = True
        self._late.start()
        assert process.stdin is not None
        assert process.stdout is not None
        place = str(Path(self._place).expanduser().resolve()) if self._place.endswith(".py") else self._place
        what = {"place": place, "name": self._name, "device": self._device, "patience": PATIENCE}
        plain_process.send(process.stdin.fileno(), what)
        if _received(process.stdout.fileno(), IN_ALL) != self._expected:
            raise ValueError("other weights were built")
        return process

    def _give_up(self) -> None:
        self._failed = f"{_FAILED}: all questions took longer than {IN_ALL:g} s"
        self.close()

    def close(self) -> None:
        """Ends the process."""
        self._late.cancel()
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()


def _own(network: object) -> object:
    """What a callable returned, without the units of a box around it."""
    return network.network if isinstance(network, InUnits) else network


def _received(pipe: int, patience: float = PATIENCE) -> Any:
    if not select.select([pipe], [], [], patience)[0]:
        raise TimeoutError
    return plain_process.receive(pipe)
