"""An audit killed at random moments and resumed gives the report of the undisturbed one.

    python tests/faults/kill.py [SEED] [FIRST] [LAST]

Forty audits are killed by SIGKILL, each with some of its steps kept and others not, and resumed to their end:

- 14 at a random moment after a step, another one each, spread over the journal;
- 12 while they write a step: with half of its file on the disk, with the whole file under its temporary name, and with
  the new name not yet made safe (`dies_writing.py`);
- 9 under `torchrun --nproc-per-node 2` after a step, where by turns rank 0, rank 1, or everything is killed, the agent
  too;
- 5 under `torchrun` while rank 0 writes a step.

Those without `torchrun` are processes split off from this one, so that loading does not take longer than auditing.
Compared with the undisturbed audit are `report.json` without what a clock measures, and the evidence, byte by byte.
Prints one line for each and, last, how many were equal; exit status 1 if not all were. FIRST and LAST choose some of
the forty, from 1 on: the same seed names the same steps.
"""

from __future__ import annotations

import importlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from audits import NETWORK, Forked, arguments, descendants, ended, is_over, kept, kill, outcome, start, worker
from dies_writing import MOMENTS, arm

ALONE, WRITING, TOGETHER, TOGETHER_WRITING = 14, 12, 9, 5
LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
VICTIMS = ("rank 0", "rank 1", "everything")
DIES = Path(__file__).with_name("dies_writing.py")
PATIENCE, PAUSE = 600.0, 0.005  # seconds within which a process must have ended, and between two looks at it


@dataclass(frozen=True)
class Undisturbed:
    """What an audit gives that nobody disturbs, after how many steps, and the seconds between two of them."""

    status: int
    outcome: tuple[str, str]
    steps: int
    between: float


def audit(file: Path, out: Path, launcher: list[str], log: Path) -> Forked | subprocess.Popen[bytes]:
    """Begins the audit, or goes on with it."""
    given = arguments(file, out)
    return start(given, launcher, log) if launcher else Forked(given, log)


def half_written(out: Path) -> list[Path]:
    """Files that stand beside their place and have not been renamed to it."""
    return [path for path in out.glob("**/.*.*") if path.suffix[1:].isdigit()]


def undisturbed(file: Path, launcher: list[str]) -> Undisturbed:
    out, first, last = file.with_name("undisturbed"), 0.0, 0.0
    process = audit(file, out, launcher, file.with_name("log"))
    seen = 0
    while not is_over(process.pid):
        if kept(out) > seen:
            seen, last = kept(out), time.monotonic()
            first = first or last
        time.sleep(PAUSE)
    status = process.wait(PATIENCE)
    assert ended(out, status), file.with_name("log").read_text()
    found = Undisturbed(status, outcome(out), kept(out), (last - first) / kept(out))
    shutil.rmtree(out)
    return found


@dataclass(frozen=True)
class Blow:
    """When what of an audit is killed.

    **Fields**
    - `whole`: the undisturbed audit that the resumed one must equal.
    - `launcher`: what runs both.
    - `step`: how many are kept when it comes; while it is written, the number of that one.
    - `later`: seconds after that step, for a blow from outside.
    - `moment`: of `dies_writing.MOMENTS`, for one from inside.
    - `victim`: one of `VICTIMS`, or the process where there is one.
    """

    whole: Undisturbed
    launcher: list[str]
    step: int
    later: float = 0.0
    moment: str = ""
    victim: str = "the process"

    def __str__(self) -> str:
        when = (
            f"as step {self.step} is {self.moment}"
            if self.moment
            else f"{self.later:.2f} s after step {self.step}"
        )
        return f"{'torchrun: ' if self.launcher else ''}{self.victim} killed {when} of {self.whole.steps}"

    def strike(self, file: Path, out: Path, log: Path) -> None:
        """Starts the audit and kills it; returns once all of it has ended."""
        given, write = arguments(file, out), self.step + 1  # the settings are the first file of a journal
        if self.moment and self.launcher:
            start(given, self.launcher, log, (str(DIES), str(write), self.moment)).wait(PATIENCE)
            return
        if self.moment:
            Forked(given, log, partial(arm, write, self.moment)).wait(PATIENCE)
            return
        process = audit(file, out, self.launcher, log)
        while kept(out) < self.step and not is_over(process.pid):
            time.sleep(PAUSE)
        time.sleep(self.later)
        if self.victim.startswith("rank"):
            kill(*[w for w in [worker(process.pid, int(self.victim[-1]))] if w is not None])
        else:
            kill(process.pid, *descendants(process.pid))
        process.wait(PATIENCE)


def blows(chance: random.Random, alone: Undisturbed, together: Undisturbed) -> Iterator[Blow]:
    """One in each of equal shares of the journal."""

    def step(n: int, of: int, whole: Undisturbed) -> int:
        return 1 + int((n + chance.random()) / of * (whole.steps - 1))

    for n in range(ALONE):
        yield Blow(alone, [], step(n, ALONE, alone), later=chance.random() * alone.between)
    for n in range(WRITING):
        yield Blow(alone, [], step(n, WRITING, alone) + 1, moment=MOMENTS[n % len(MOMENTS)])
    for n in range(TOGETHER):
        later, victim = chance.random() * together.between, VICTIMS[n % len(VICTIMS)]
        yield Blow(together, LAUNCHER, step(n, TOGETHER, together), later=later, victim=victim)
    for n in range(TOGETHER_WRITING):
        at, moment = step(n, TOGETHER_WRITING, together) + 1, MOMENTS[n % len(MOMENTS)]
        yield Blow(together, LAUNCHER, at, moment=moment, victim="rank 0")


def survives(file: Path, blow: Blow) -> tuple[bool, str]:
    """Whether a killed and resumed audit equals the undisturbed one, and what was found of it between."""
    out, log = file.with_name("out"), file.with_name("log")
    log.unlink(missing_ok=True)
    blow.strike(file, out, log)
    steps = kept(out)
    words = f"{steps} steps kept"
    if half_written(out):
        words += f" and {half_written(out)[0].stat().st_size:,} bytes under a temporary name"
    status = audit(file, out, blow.launcher, log).wait(PATIENCE)
    same = ended(out, status) and (status, outcome(out)) == (blow.whole.status, blow.whole.outcome)
    if not same:
        words += f"; exit status {status}: {log.read_text().strip().splitlines()[-1:]}"
    if not 0 < steps < blow.whole.steps:
        words += "; NOT IN BETWEEN"
    shutil.rmtree(out, ignore_errors=True)
    return same, words


def main(seed: int, first: int, last: int) -> int:
    importlib.import_module("unmask.audit.run")  # before anything is split off
    chance, equal, began = random.Random(seed), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "net.py")
        file.write_text(NETWORK)
        alone, together = undisturbed(file, []), undisturbed(file, LAUNCHER)
        print(f"undisturbed: {alone.steps} steps, under torchrun {together.steps}", flush=True)
        chosen = list(blows(chance, alone, together))[first - 1 : last]
        for blow in chosen:
            same, words = survives(file, blow)
            equal += same
            print(f"{blow}, {words}: {'equal' if same else 'DIFFERS'}", flush=True)
    print(
        f"{equal} of {len(chosen)} resumed audits equal the undisturbed one, in {time.monotonic() - began:.0f} s"
    )
    return int(equal < len(chosen))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:]), *(0, 1, 40)[len(sys.argv) - 1 :]))
