"""The settings of the whole process that decide how everybody's later code runs: how each is read and written."""

from __future__ import annotations

import os
import random
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, overrides
from torch.utils._device import DeviceContext


@dataclass(frozen=True)
class Setting:
    """Something global: its name for people, and how it is read and written."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


# First the modes: through one of the user's, whatever follows would be read and written.
_MODES = [
    Setting("torch's function modes", lambda: _entered(), lambda were: _enter(were)),
    Setting("torch's gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
    Setting("torch's default device", lambda: _default_device(), lambda was: _set_device(was)),
    Setting("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Setting("torch's anomaly mode", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    Setting("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
    Setting(
        "torch's precision of products",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    Setting("torch's functions that read answers", lambda: _readers(), lambda were: _set_readers(were)),
]
_FOLDER = Setting("the working directory", lambda: _folder(), lambda was: was and os.chdir(was))
_HANDLERS = Setting("handlers of signals", lambda: _handlers(), lambda were: _set_handlers(were))
# What a prediction is read, copied and compared with: whoever replaces one of these decides a judgement.
_READERS = (
    "argmax argmin max min amax amin topk sort argsort kthvalue gather where cat stack clone detach to "
    "eq ne lt le gt ge equal isfinite isnan all any sum mean __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __getitem__"
).split()

# A second descriptor of each standard stream, for who closes one that this process still needs.
_SPARE: dict[str, int | None] = {}


def modes() -> list[Setting]:
    """What a forward pass may leave behind it, to the harm of whoever called it; cheap enough to look at each time."""
    return [*_MODES, _FOLDER, _HANDLERS]


def arithmetic(kind: str = "cpu") -> list[Setting]:
    """What decides which numbers torch computes on a device of this kind, and whether it records them."""
    return [
        *_MODES,
        Setting(
            "torch's autocast",
            lambda: torch.is_autocast_enabled(kind),
            lambda on: torch.set_autocast_enabled(kind, on),
        ),
        Setting("torch's deterministic mode", _deterministic, _set_deterministic),
        Setting("torch's handling of denormal numbers", _flushes, torch.set_flush_denormal),
        Setting("cuDNN's settings", _cudnn, lambda was: torch.backends.cudnn.set_flags(*was)),
        Setting("NumPy's handling of errors", np.geterr, lambda was: np.seterr(**was)),
    ]


def surroundings() -> list[Setting]:
    """What decides where a process reads and writes, and how it ends."""
    return [
        _FOLDER,
        Setting(
            "the command line", lambda: list(sys.argv), lambda was: sys.argv.__setitem__(slice(None), was)
        ),
        Setting("variables of the environment that are read here", _ranks, _set_ranks),
        _HANDLERS,
        Setting("standard output", lambda: _stream("stdout"), lambda was: _set_stream("stdout", was)),
        Setting("standard error", lambda: _stream("stderr"), lambda was: _set_stream("stderr", was)),
        Setting("the limit on recursion", sys.getrecursionlimit, sys.setrecursionlimit),
        Setting("warnings that are raised", _raised_warnings, _unraise_warnings),
    ]


def random_numbers(device: torch.device | None = None) -> list[Setting]:
    """Every global generator that somebody's code may draw from."""
    found = [
        Setting("Python's random state", random.getstate, random.setstate),
        Setting("NumPy's random state", lambda: _plain(np.random.get_state()), np.random.set_state),
        Setting("torch's random state", lambda: _bytes(torch.get_rng_state()), _set_torch_state),
    ]
    if device is not None and device.type == "cuda":
        found.append(
            Setting(
                "CUDA's random state",
                lambda: _bytes(torch.cuda.get_rng_state(device)),
                lambda state: torch.cuda.set_rng_state(_tensor(state), device),
            )
        )
    return found


def _readers() -> list[Any]:
    """Each as tensors and torch have it themselves; None where it is inherited, as most of a tensor's are."""
    return [own.get(name) for own in (vars(Tensor), vars(torch)) for name in _READERS]


def _set_readers(were: list[Any]) -> None:
    places = [(owner, name) for owner in (Tensor, torch) for name in _READERS]
    for (owner, name), was in zip(places, were, strict=True):
        if was is not None:
            setattr(owner, name, was)
        elif name in vars(owner):
            delattr(owner, name)


def _stack() -> list[Any]:
    return overrides._get_current_function_mode_stack()


def _entered() -> list[Any]:
    """Modes that are entered. The default device is one as well and has a setting of its own."""
    return [mode for mode in _stack() if not isinstance(mode, DeviceContext)]


def _enter(were: list[Any]) -> None:
    _restack([mode for mode in _stack() if isinstance(mode, DeviceContext)] + were)


def _default_device() -> torch.device | None:
    return next((mode.device for mode in reversed(_stack()) if isinstance(mode, DeviceContext)), None)


def _set_device(was: torch.device | None) -> None:
    # `torch.device("meta").__enter__()` is not known to `set_default_device`, which leaves its own alone.
    own = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    _restack([mode for mode in _stack() if mode is own or not isinstance(mode, DeviceContext)])
    torch.set_default_device(was)


def _restack(modes: list[Any]) -> None:
    for _ in _stack():
        overrides._pop_mode()
    for mode in modes:
        overrides._push_mode(mode)


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _set_deterministic(was: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(was[0], warn_only=was[1])


def _flushes() -> bool:
    """Whether numbers below the normal range count as zero. torch can set it and not tell it."""
    return bool(torch.tensor(1e-310, dtype=torch.float64, device="cpu") * 1 == 0)


def _cudnn() -> tuple[Any, ...]:
    of = torch.backends.cudnn
    return of.enabled, of.benchmark, of.benchmark_limit, of.deterministic, of.allow_tf32


def _stream(name: str) -> tuple[Any, bool]:
    """A stream and whether it is closed."""
    stream = getattr(sys, name)
    if name not in _SPARE:  # once: who closes the stream closes its descriptor
        try:
            _SPARE[name] = os.dup(stream.fileno())
        except (AttributeError, OSError, ValueError):  # none, or in memory
            _SPARE[name] = None
    return stream, getattr(stream, "closed", False)


def _set_stream(name: str, was: tuple[Any, bool]) -> None:
    stream, closed = was
    if not closed and getattr(stream, "closed", False):
        spare = _SPARE[name]
        stream = open(os.devnull if spare is None else spare, "w", closefd=spare is None)  # noqa: SIM115
    setattr(sys, name, stream)


def _folder() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # somebody removed it
        return None


def _ranks() -> dict[str, str]:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    names = (*names, "UNMASK_DATA")
    return {name: os.environ[name] for name in names if name in os.environ}


def _set_ranks(were: dict[str, str]) -> None:
    for name in _ranks():
        del os.environ[name]
    os.environ.update(were)


def _handlers() -> list[Any]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def _set_handlers(were: list[Any]) -> None:
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), were, strict=True):
        if handler is not None:  # not set from Python
            signal.signal(number, handler)


def _raised_warnings() -> list[Any]:
    """Filters that turn warnings into exceptions. Others decide what is printed, and libraries add some on import."""
    return [one for one in warnings.filters if one[0] == "error"]


def _unraise_warnings(were: list[Any]) -> None:
    for one in _raised_warnings():
        if one not in were:
            warnings.filters.remove(one)  # pyright: ignore[reportAttributeAccessIssue]
    warnings._filters_mutated()  # pyright: ignore[reportAttributeAccessIssue]


def _plain(state: Any) -> tuple[Any, ...]:
    return (state[0], tuple(state[1].tolist()), *state[2:])


def _bytes(state: Tensor) -> bytes:
    return state.numpy().tobytes()


def _tensor(state: bytes) -> Tensor:
    return torch.frombuffer(bytearray(state), dtype=torch.uint8)


def _set_torch_state(state: bytes) -> None:
    torch.set_rng_state(_tensor(state))
