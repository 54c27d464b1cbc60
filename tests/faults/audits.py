"""The small audit that is disturbed here, the processes it runs in, and what of its outcome must stay the same."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NETWORK = """
import torch
from torch import nn
from unmask.data import load


class NearestMean(nn.Module):
    def __init__(self):
        super().__init__()
        data = load("digits", split="train")
        means = torch.stack([data.x[data.y == c].mean(0).flatten() for c in range(10)])
        self.linear = nn.Linear(64, 10)
        self.linear.weight.data, self.linear.bias.data = 2 * means, -(means**2).sum(1)

    def forward(self, x):
        return self.linear(x.flatten(1))


def network():
    return NearestMean().eval()
"""
OPTIONS = ["--data", "digits", "--norm", "linf", "--epsilon", "0.3", "--examples", "3", "--budget", "quick"]
BY_CLOCK = {"seconds", "date"}
ENDED = (0, 1, 3)  # exit statuses of an audit that came to its end


def without_clock(value: Any) -> Any:
    """A report without what a clock measured."""
    if isinstance(value, dict):
        return {k: without_clock(v) for k, v in value.items() if k not in BY_CLOCK}
    return [without_clock(v) for v in value] if isinstance(value, list) else value


def outcome(folder: Path) -> tuple[str, str]:
    """The report but for its clocks, and the SHA-256 of the evidence."""
    report = without_clock(json.loads((folder / "report.json").read_text()))
    evidence = hashlib.sha256((folder / "evidence.safetensors").read_bytes()).hexdigest()
    return json.dumps(report, sort_keys=True), evidence


def arguments(file: Path, out: Path) -> list[str]:
    """Of `unmask`, for an audit of `file` in `out`: a new one, or what goes on with the one that was begun there."""
    if (out / "command.json").exists():
        return ["audit", "--resume", str(out), "--quiet"]
    return ["audit", f"{file}:network", *OPTIONS, "--out", str(out), "--quiet"]


def start(
    given: list[str], launcher: list[str], log: Path, runs: tuple[str, ...] = ("-m", "unmask")
) -> subprocess.Popen[bytes]:
    """Starts `unmask`, or what `runs` in its place, with these arguments.

    `launcher`: options of Python before, `-m` of `torchrun` among them.
    """
    with log.open("ab") as said:
        return subprocess.Popen(
            [sys.executable, *launcher, *runs, *given],
            stdout=said,
            stderr=said,
            cwd=log.parent,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )


class Forked:
    """An audit in a process split off from this one, which has loaded `unmask` already: as `start`, in less time.

    **Arguments**
    - `before`: called in that process before anything else.
    """

    def __init__(self, given: list[str], log: Path, before: Callable[[], None] = lambda: None):
        from unmask.cli.main import main

        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(said, 1)
            os.dup2(said, 2)
            os.chdir(log.parent)
            before()
            os._exit(main(given))

    def wait(self, patience: float) -> int:
        """Its exit status, negative for a signal."""
        deadline = time.monotonic() + patience
        while not is_over(self.pid):
            assert time.monotonic() < deadline, "it does not end"
            time.sleep(0.02)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def kept(out: Path) -> int:
    """Steps in the journal."""
    return len(list(out.glob("journal/*.entry")))


def ended(out: Path, status: int) -> bool:
    """Whether that audit came to its end; `torchrun` makes 1 of every exit status, so the report must be there."""
    return status in ENDED and (out / "report.html").exists()


def descendants(pid: int) -> list[int]:
    """Processes that a process started, and those that they did, nearest first."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found + [further for child in found for further in descendants(child)]


def is_over(pid: int) -> bool:
    """Whether a child has ended and only waits to be asked how."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def worker(agent: int, rank: int) -> int | None:
    """The process of that rank which a `torchrun` agent started; None where it runs none yet."""
    for pid in descendants(agent):
        with contextlib.suppress(OSError):
            if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return pid
    return None


def kill(*pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
