"""An audit killed at random moments and resumed gives the report of the undisturbed one.

    python tests/faults/kill.py [SEED] [FIRST] [LAST]

Forty audits are killed by SIGKILL, each at another moment, and resumed to their end: 20 at moments spread over the
whole run, 10 while a file is being written, and 10 under `torchrun --nproc-per-node 2`, where by turns rank 0, rank 1,
or everything is killed, the agent too. Compared with the undisturbed audit are `report.json` without what a clock
measures, and the evidence, byte by byte. Prints one line for each and, last, how many were equal; exit status 1 if not
all were. FIRST and LAST choose some of the forty, from 1 on: the same seed names the same moments.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from audits import (
    NETWORK,
    arguments,
    descendants,
    ended,
    is_over,
    kill,
    outcome,
    processor_seconds,
    start,
    worker,
)

ALONE, WRITING, TOGETHER = 20, 10, 10
LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
VICTIMS = ("rank 0", "rank 1", "everything")
PATIENCE, PAUSE = 600.0, 0.02  # seconds within which a process must have ended, and between two looks at it


@dataclass(frozen=True)
class Undisturbed:
    """What an audit gives that nobody disturbs, its seconds on the processor, and how many files it writes."""

    status: int
    seconds: float
    outcome: tuple[str, str]
    files: int


def half_written(out: Path) -> list[Path]:
    """Files that stand beside their place and have not been renamed to it."""
    return [path for path in out.glob("**/.*.*") if path.suffix[1:].isdigit()]


def undisturbed(file: Path, launcher: list[str]) -> Undisturbed:
    out, took = file.with_name("undisturbed"), 0.0
    process = start(arguments(file, out), launcher, file.with_name("log"))
    while not is_over(process.pid):
        took = max(took, processor_seconds(process.pid))
        time.sleep(PAUSE)
    status = process.wait()
    assert ended(out, status), file.with_name("log").read_text()
    found = Undisturbed(status, took, outcome(out), len([p for p in out.glob("**/*") if p.is_file()]))
    shutil.rmtree(out)
    return found


@dataclass(frozen=True)
class Blow:
    """When what of an audit is killed.

    **Fields**
    - `whole`: the undisturbed audit that the resumed one must equal.
    - `launcher`: what runs both.
    - `victim`: one of `VICTIMS`, or the process where there is one.
    - `after`: seconds of the processor, which no other load moves; None where `write` says when.
    - `write`: number of the file during whose writing it is.
    """

    whole: Undisturbed
    launcher: list[str]
    victim: str
    after: float | None = None
    write: int = 0

    def __str__(self) -> str:
        when = f"at write {self.write}" if self.after is None else f"after {self.after:.1f} s"
        return f"{self.victim} killed {when}"

    def wait(self, pid: int, out: Path) -> None:
        """Until the moment has come, or the audit has ended before."""
        if self.after is not None:
            while processor_seconds(pid) < self.after and not is_over(pid):
                time.sleep(PAUSE)
            return
        seen: set[str] = set()
        while len(seen) < self.write and not is_over(pid):
            seen |= {path.name for path in half_written(out)}

    def strike(self, pid: int) -> None:
        if self.victim.startswith("rank"):
            kill(*[w for w in [worker(pid, int(self.victim[-1]))] if w is not None])
        else:
            kill(pid, *descendants(pid))


def blows(chance: random.Random, alone: Undisturbed, together: Undisturbed) -> Iterator[Blow]:
    """One in each of equal shares of the run."""
    for n in range(ALONE):
        yield Blow(alone, [], "the process", after=(n + chance.random()) / ALONE * alone.seconds)
    for n in range(WRITING):
        write = 1 + int((n + chance.random()) / WRITING * alone.files)
        yield Blow(alone, [], "the process", write=write)
    for n in range(TOGETHER):
        after = (n + chance.random()) / TOGETHER * together.seconds
        yield Blow(together, LAUNCHER, VICTIMS[n % len(VICTIMS)], after=after)


def survives(file: Path, blow: Blow) -> tuple[bool, str]:
    """Whether a killed and resumed audit equals the undisturbed one, and what was found of it between."""
    out, log = file.with_name("out"), file.with_name("log")
    log.unlink(missing_ok=True)
    process = start(arguments(file, out), blow.launcher, log)
    blow.wait(process.pid, out)
    blow.strike(process.pid)
    process.wait(PATIENCE)
    words = f"{len(list(out.glob('journal/*.entry')))} steps kept"
    if half_written(out):
        words += f", {half_written(out)[0].name} half written"
    if not (out / "command.json").exists():  # killed before it had claimed its folder
        shutil.rmtree(out, ignore_errors=True)
    status = start(arguments(file, out), blow.launcher, log).wait(PATIENCE)
    same = ended(out, status) and (status, outcome(out)) == (blow.whole.status, blow.whole.outcome)
    if not same:
        words += f"; exit status {status}: {log.read_text().strip().splitlines()[-1:]}"
    shutil.rmtree(out, ignore_errors=True)
    return same, words


def main(seed: int, first: int, last: int) -> int:
    chance, equal, began = random.Random(seed), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "net.py")
        file.write_text(NETWORK)
        alone, together = undisturbed(file, []), undisturbed(file, LAUNCHER)
        print(
            f"undisturbed: {alone.seconds:.1f} s of the processor, under torchrun {together.seconds:.1f} s",
            flush=True,
        )
        for blow in list(blows(chance, alone, together))[first - 1 : last]:
            same, words = survives(file, blow)
            equal += same
            print(f"{blow}, {words}: {'equal' if same else 'DIFFERS'}", flush=True)
    total = min(last, ALONE + WRITING + TOGETHER) - first + 1
    print(f"{equal} of {total} resumed audits equal the undisturbed one, in {time.monotonic() - began:.0f} s")
    return int(equal < total)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:]), *(0, 1, 40)[len(sys.argv) - 1 :]))
