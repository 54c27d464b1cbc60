"""A command in a process of its own, which says its exit status itself: what ends that process decides nothing."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable

FAILED = 2  # as for everything that somebody else's code has failed at
_PR_SET_PDEATHSIG = 1
LINGERS = 5.0  # seconds; ours
_HEARD = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
# From outside, whose meaning shells know by 128 + number; of any other the process itself is the cause.
_SENT = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, signal.SIGUSR1, signal.SIGUSR2}


def watched(run: Callable[[], int]) -> int:
    """Runs it in a process of its own; its exit status, or `FAILED` with a line where that process ended without one.

    So `exec`, `exit` of the C library or a crash in native code, in somebody's network, never is a verdict. Signals
    that are sent to this process alone are handed on; those of a terminal reach both. Ends with this process, however
    that is ended. Only on Linux; elsewhere it runs here.
    """
    if not sys.platform.startswith("linux"):
        return run()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_HEARD, signal.SIGCHLD})
    parent, (hears, says) = os.getpid(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(hears)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if os.getppid() != parent:  # it had ended already
            return FAILED
        status = run()
        os.write(says, bytes([status]))
        return status
    os.close(says)
    os.set_blocking(hears, False)  # what it has started may still hold the other end
    ended, said = _end_of(child, hears)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return said[0] if said else _without_a_word(ended)


def _end_of(child: int, hears: int) -> tuple[int, bytes]:
    """Waits for it and hands on what is sent to this process; how it ended, and the status that it said.

    A thread that never ends would keep it for ever: it is ended `LINGERS` seconds after it has said its status.
    """
    said, until = b"", float("inf")
    while True:
        came = signal.sigtimedwait({*_HEARD, signal.SIGCHLD}, 0.5)
        if not said and (said := _heard(hears)):
            until = time.monotonic() + LINGERS
        if came is None:
            if time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
        elif came.si_signo == signal.SIGCHLD:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status), said or _heard(hears)
        elif came.si_code <= 0 and came.si_pid != child:  # not of the system, as a terminal's are
            os.kill(child, came.si_signo)


def _heard(hears: int) -> bytes:
    try:
        return os.read(hears, 1)
    except BlockingIOError:
        return b""


def _without_a_word(ended: int) -> int:
    """The status of a process that ended with this one, or by that signal where it is negative, and said none."""
    number = -ended
    if number in _SENT and number != signal.SIGKILL:
        return 128 + number
    if number == signal.SIGKILL:
        line = "the process was killed, perhaps for want of memory; give a smaller --batch-size or fewer --examples"
    else:
        how = f"by {signal.Signals(number).name}" if ended < 0 else f"with status {ended}"
        line = f"the process ended {how}, and not by unmask: code that it was given left it; run that by itself first"
    print(f"unmask: {line}; an audit that was under way goes on with --resume DIR", file=sys.stderr)
    return 128 + number if number == signal.SIGKILL else FAILED
