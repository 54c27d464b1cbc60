"""An audit by two `torchrun` agents, as on two machines, one of them killed, and resumed by two: the same report.

    python tests/faults/two_agents.py [SEED]

The agents meet on the loopback interface (`--nnodes 2`, one process each). Twice an audit is disturbed: once the agent
with rank 0 is killed with its process, once the other, each at a random moment between a third and two thirds of the
run. The one that is left must end by itself. Then two agents resume. Prints a line for each; exit status 1 if a resumed
report or its evidence is another than the undisturbed one's.
"""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
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

PATIENCE, PAUSE = 300.0, 0.02  # seconds within which an agent must have ended, and between two looks at it


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def agents(file: Path, out: Path) -> list[subprocess.Popen[bytes]]:
    """Two agents that share an audit."""
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--rdzv-id", "audit"]
    launcher = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", *meeting]
    given = arguments(file, out)
    return [start(given, launcher, file.with_name(f"agent {n}")) for n in range(2)]


def both_over(pair: list[subprocess.Popen[bytes]]) -> bool:
    return all(is_over(agent.pid) for agent in pair)


def used(pair: list[subprocess.Popen[bytes]]) -> float:
    return sum(processor_seconds(agent.pid) for agent in pair)


def wait(pair: list[subprocess.Popen[bytes]]) -> list[int | None]:
    """Exit statuses; None of an agent that had to be ended."""
    deadline = time.monotonic() + PATIENCE
    while not both_over(pair) and time.monotonic() < deadline:
        time.sleep(PAUSE)
    left = [agent for agent in pair if not is_over(agent.pid)]
    for agent in left:
        kill(agent.pid, *descendants(agent.pid))
    return [None if agent in left else agent.wait() for agent in pair]


def disturb(file: Path, out: Path, rank: int, after: float) -> str:
    """Kills the agent whose process has that rank; says what became of the other."""
    pair = agents(file, out)
    while used(pair) < after and not both_over(pair):
        time.sleep(PAUSE)
    victim = next((agent for agent in pair if worker(agent.pid, rank) is not None), pair[rank])
    kill(victim.pid, *descendants(victim.pid))
    steps = len(list(out.glob("journal/*.entry")))
    statuses = dict(zip([agent is victim for agent in pair], wait(pair), strict=True))
    left = statuses.get(False)
    return f"{steps} steps kept, the other agent " + (
        "had to be ended" if left is None else f"ended with {left}"
    )


def main(seed: int) -> int:
    chance, equal = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as place:
        file, out = Path(place, "net.py"), Path(place, "out")
        file.write_text(NETWORK)
        pair, whole = agents(file, out), 0.0
        while not both_over(pair):
            whole = max(whole, used(pair))
            time.sleep(PAUSE)
        statuses = wait(pair)
        assert ended(out, statuses[0] or 0), file.with_name("agent 0").read_text()
        wanted = outcome(out)
        print(f"undisturbed: exit statuses {statuses}, {whole:.1f} s of the processor", flush=True)
        for rank in (0, 1):
            shutil.rmtree(out)
            after = chance.uniform(1 / 3, 2 / 3) * whole
            words = disturb(file, out, rank, after)
            again = wait(agents(file, out))
            same = ended(out, again[0] or 0) and again == statuses and outcome(out) == wanted
            equal += same
            print(
                f"rank {rank} killed after {after:.1f} s, {words}; resumed: {'equal' if same else f'DIFFERS, {again}'}",
                flush=True,
            )
            if not same:
                print(
                    file.with_name("agent 0").read_text()[-3000:],
                    file.with_name("agent 1").read_text()[-3000:],
                )
    print(f"{equal} of 2 audits resumed by two agents equal the undisturbed one")
    return int(equal < 2)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
