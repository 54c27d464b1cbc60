"""What the system lets a process do, and when it interrupts it: settings that an attack may not leave changed."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal

from .settings import Setting

_LIMITS = [value for name, value in sorted(vars(resource).items()) if name.startswith("RLIMIT_")]
# SIGINT and SIGTERM are among the surroundings, which a target's file may not change either.
_SIGNALS = [
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
]
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


def limits() -> list[Setting]:
    """Timers first: one that fires would interrupt what follows."""
    return [
        Setting("timers", lambda: [_runs(timer) for timer in _TIMERS], _stop_timers),
        Setting(
            "handlers of other signals",
            lambda: [_handler(number) for number in _SIGNALS],
            _set_handlers,
        ),
        Setting("the system's limits", lambda: [_limit(which) for which in _LIMITS], _set_limits),
        Setting("the mask of new files", _mask, os.umask),
        Setting("variables of the environment", lambda: dict(os.environ), _set_environment),
        Setting("garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    ]


def _runs(timer: int) -> bool:
    return signal.getitimer(timer)[0] > 0


def _stop_timers(ran: list[bool]) -> None:
    for timer, was in zip(_TIMERS, ran, strict=True):
        if not was:
            signal.setitimer(timer, 0)


def _handler(number: int) -> object:
    """What hears a signal; torch's data loaders listen to their workers' ends, from the first one on, for everybody."""
    found = signal.getsignal(number)
    return signal.SIG_DFL if getattr(found, "__module__", "").startswith("torch.") else found


def _set_handlers(were: list[object]) -> None:
    for number, handler in zip(_SIGNALS, were, strict=True):
        if handler is not None and _handler(number) is not handler:
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]


def _limit(which: int) -> tuple[int, int] | None:
    try:
        return resource.getrlimit(which)
    except (OSError, ValueError):  # not known to this system
        return None


def _set_limits(were: list[tuple[int, int] | None]) -> None:
    for which, was in zip(_LIMITS, were, strict=True):
        if was is not None and _limit(which) != was:
            with contextlib.suppress(
                OSError, ValueError
            ):  # a lower ceiling stays; what is below it comes back
                resource.setrlimit(which, (was[0], resource.getrlimit(which)[1]))
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(which, was)


def _mask() -> int:
    was = os.umask(0o077)
    os.umask(was)
    return was


def _set_environment(was: dict[str, str]) -> None:
    for name in os.environ.keys() - was.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in was.items() if os.environ.get(name) != value})
