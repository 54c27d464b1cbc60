"""Whether somebody's network survives symbolic tracing, found out where a crash does no harm.

Tracing hands the network placeholders instead of tensors. Python answers those with an exception; native code that a
network reaches outside torch may take them for memory and end the process.
"""

from __future__ import annotations

import inspect
import os
import re
import signal
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from ...errors import Unsupported, said
from ...foreign import user_line, wants_to_stop
from ...state.forked import keep_quiet

# Ways by which values leave torch for code that sees memory. Numbers (`item`) and lists cannot crash anybody.
_WAYS_OUT = frozenset(
    "numpy __array__ data_ptr __dlpack__ storage untyped_storage __cuda_array_interface__".split()
)
# Tracing takes milliseconds to a few seconds; who needs longer has no bounds worth waiting for. Ours.
PATIENCE = 60.0
# How torch and Python say that a placeholder of the trace has no value.
_PLACEHOLDERS = re.compile(r"\bProxy\b|symbolic(ally)? trac")
# What torch's makers of constants say to sizes given as placeholders, one after the other.
_SIZES = re.compile(r"(\w+)\(\) takes \d+ positional arguments? but \d+ (was|were) given")

_survivors: dict[int, weakref.ref[nn.Module]] = {}


class _Exits(TorchFunctionMode):
    """Notes the first way by which values leave torch."""

    way: str | None = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name == "__get__":
            name = getattr(getattr(func, "__self__", None), "__name__", name)
        if name in _WAYS_OUT and self.way is None:
            self.way = name
        return func(*args, **(kwargs or {}))


def answer(network: nn.Module, sample: Tensor) -> Tensor:
    """The network's output. **Raises** `Unsupported` if values leave torch on the way to it."""
    with _Exits() as exits:
        found = network(sample)
    if exits.way is not None:
        raise Unsupported(
            f"the network leaves torch (by `{exits.way}`), and no bound follows it there; it gets no certificate"
        )
    return found


def trace(network: nn.Module) -> fx.GraphModule:
    """`torch.fx.symbolic_trace`, tried in a child process first where the system has `fork`.

    **Raises** `Unsupported` where the child crashes or does not come back; what tracing itself raises else.
    """
    known = _survivors.get(id(network))
    if (known is None or known() is not network) and hasattr(os, "fork"):
        end = _child(lambda: _traced(network))
        if end:
            raise Unsupported(f"symbolic tracing of the network {end}; it gets no certificate")
        key = id(network)
        _survivors[key] = weakref.ref(network, lambda _: _survivors.pop(key, None))
    return _traced(network)


def _traced(network: nn.Module) -> fx.GraphModule:
    """With the length of a tensor among what is traced: Python's own `len` wants a number at once.

    **Raises** `Unsupported` where the network wants values of its tensors, which a trace does not have.
    """
    try:
        with _lengths_traced(network):
            return fx.symbolic_trace(network)
    except Exception as error:
        made = _SIZES.match(said(error))
        if made and isinstance(error, TypeError) and hasattr(torch, made[1]):
            raise Unsupported(
                f"bounds need constants of one size, and this network makes some for each batch by torch.{made[1]} "
                f"({user_line(error)}); one row, as torch.{made[1]}(1, …) makes it, has bounds"
            ) from error
        if wants_to_stop(error) or not _PLACEHOLDERS.search(said(error)):
            raise
        raise Unsupported(
            "bounds need a network whose path does not depend on the data, and this one takes numbers out of its "
            f"tensors for a branch, a loop or a function of Python's, or writes into them ({user_line(error)})"
        ) from error


@contextmanager
def _lengths_traced(network: nn.Module) -> Iterator[None]:
    """Within the block `len` is one that knows placeholders, in the files that the modules' forwards stand in."""
    places: dict[int, dict[str, Any]] = {}
    for module in network.modules():
        function = inspect.unwrap(getattr(type(module).forward, "__func__", type(module).forward))
        names = getattr(function, "__globals__", {})
        if not str(names.get("__name__", "")).startswith("torch."):
            places[id(names)] = names
    own = [names for names in places.values() if "len" not in names]
    try:
        for names in own:
            names["len"] = _length
        yield
    finally:
        for names in own:
            del names["len"]


def _length(of: Any) -> Any:
    if isinstance(of, fx.Proxy):
        return of.tracer.create_proxy("call_function", len, (of,), {})
    return len(of)


def _child(call: Callable[[], object]) -> str:
    """How a child process ended that made this call; empty where it survived, whatever Python raised in it."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # newer Pythons warn of threads: the child starts none and takes no lock
        child = os.fork()
    if child == 0:
        _run_and_leave(call)
    deadline, pause = time.monotonic() + PATIENCE, 1e-3
    try:
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                child = 0
                crash = os.waitstatus_to_exitcode(status)
                return f"crashes the process ({signal.Signals(-crash).name})" if crash < 0 else ""
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        return f"did not end within {PATIENCE:.0f} s"
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _run_and_leave(call: Callable[[], object]) -> None:
    """In the child: never back."""
    try:
        keep_quiet()
        call()
    except BaseException:
        pass  # an exception is an answer: only a crash is none
    finally:
        os._exit(0)
