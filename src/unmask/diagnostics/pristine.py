"""A network that nobody has asked yet, however much it has been asked: in a process split off before the first call."""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import struct
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..classifier import Network, seeded
from ..errors import ModelFailed
from ..state.forked import keep_quiet
from ..types import Outputs

# Seconds for one answer, and for all of them; who needs longer is not asked. Ours.
PATIENCE, IN_ALL = 60, 120.0
_LENGTH = struct.Struct("<q")
Asker = Callable[[Network, dict[str, Any]], dict[str, Any]]


class Pristine:
    """The network as it is now, for ever: each question is put to a copy of a process that has never asked it.

    Whatever a network remembers, in itself or elsewhere in the process, no answer is the answer to a second question.
    Random numbers are seeded as they are where the question is asked.

    **Arguments**
    - `also`: answers the questions that are no image, of many calls perhaps: it is given the network and a dictionary
      of tensors, words and numbers, and returns one.

    **Raises** `ModelFailed` on a call where the network raises, crashes or takes longer than `PATIENCE`, and once all
    calls have taken `IN_ALL`. What runs there has no open files, one thread and no terminal.

    >>> class Counts:
    ...     calls = 0
    ...     def __call__(self, x):
    ...         self.calls += 1
    ...         return x * self.calls
    >>> network = Counts()
    >>> apart = Pristine(network)
    >>> float(network(torch.ones(()))), float(network(torch.ones(())))
    (1.0, 2.0)
    >>> float(apart(torch.ones(()))), float(apart(torch.ones(())))
    (1.0, 1.0)
    >>> apart.close()
    """

    def __init__(self, network: Network, also: Asker | None = None):
        self._left = IN_ALL
        theirs, self._questions = os.pipe()
        self._answers, to_us = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer Pythons warn of threads: the child starts none
            self._process = os.fork()
        if self._process == 0:
            _serve(network, also, theirs, to_us)
        os.close(theirs)
        os.close(to_us)

    @staticmethod
    def of(network: Network, device: torch.device, also: Asker | None = None) -> Pristine | None:
        """None where a process cannot be split off: without `fork`, or with a GPU in use."""
        possible = hasattr(os, "fork") and device.type == "cpu" and not torch.cuda.is_initialized()
        return Pristine(network, also) if possible else None

    def __call__(self, x: Tensor) -> Tensor:
        began = time.monotonic()
        try:
            return self._told((x.detach(), torch.initial_seed()), min(PATIENCE, self._left))
        finally:
            self._left -= time.monotonic() - began

    def also(self, question: dict[str, Any], patience: float) -> dict[str, Any]:
        """What `also` answers, in no more than `patience` seconds. **Raises** `ModelFailed` as a call does."""
        return self._told((question, patience), patience)

    def _told(self, question: tuple[Any, float], patience: float) -> Any:
        if not self._process:
            raise ModelFailed("the process that was split off has ended")
        try:
            _send(self._questions, _packed(question))
            answer = _receive(self._answers, time.monotonic() + patience)
        except OSError:
            answer = None
        if answer is None:
            self.close()
            raise ModelFailed("the process that was split off gave no answer in time")
        if not answer:
            raise ModelFailed("the network raised in the process that was split off")
        return torch.load(io.BytesIO(answer), weights_only=True)

    def close(self) -> None:
        """Ends the process."""
        if self._process:
            for kill in (os.killpg, os.kill):  # it leads no group before it has run for a moment
                with contextlib.suppress(OSError):
                    kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
            self._process = 0
            os.close(self._questions)
            os.close(self._answers)


def _packed(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _send(pipe: int, content: bytes) -> None:
    left = memoryview(_LENGTH.pack(len(content)) + content)
    while left:
        left = left[os.write(pipe, left) :]


def _receive(pipe: int, deadline: float | None = None) -> bytes | None:
    """What was sent; None at the end of the pipe, or past the deadline."""

    def exactly(size: int) -> bytes | None:
        found = b""
        while len(found) < size:
            if deadline is not None:
                ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
                if not ready:
                    return None
            more = os.read(pipe, min(size - len(found), 2**20))
            if not more:
                return None
            found += more
        return found

    size = exactly(_LENGTH.size)
    return None if size is None else exactly(_LENGTH.unpack(size)[0])


def _serve(network: Network, also: Asker | None, questions: int, answers: int) -> None:
    """In the child: for each question one more child, that answers it; never back."""
    try:
        os.setsid()  # Ctrl-C is meant for the audit
        keep_quiet()
        kept = sorted({questions, answers, 2})
        for after, before in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
            os.closerange(after + 1, before)  # the journal's lock among them, which must go with the audit
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        while (question := _receive(questions)) is not None:
            ours, to_us = os.pipe()
            child = os.fork()
            if child == 0:
                signal.alarm(PATIENCE)
                _send(to_us, _answered(network, also, question))
                os._exit(0)
            os.close(to_us)
            _send(answers, _receive(ours) or b"")
            os.close(ours)
            os.waitpid(child, 0)
    finally:
        os._exit(1)


def _answered(network: Network, also: Asker | None, question: bytes) -> bytes:
    asked, number = torch.load(io.BytesIO(question), weights_only=True)
    if isinstance(asked, dict):
        assert also is not None
        signal.alarm(max(1, int(number)))
        return _packed(also(network, asked))
    with torch.no_grad(), seeded(number, asked.device):
        outputs = Outputs.of(network(asked))
    return b"" if outputs is None else _packed(outputs.logits.detach().clone())
