"""An audit by two `torchrun` agents, as on two machines, one of them killed, and resumed by two: the same report.

    python tests/faults/two_agents.py [SEED]

The agents meet on the loopback interface (`--nnodes 2`, one process each). Twice an audit is disturbed: once the agent
with rank 0 is killed with its process, once the other, each after a random step of the middle third of the journal. The
one that is left must end by itself. Then two agents resume. Prints a line for each; exit status 1 if a resumed
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

from audits import NETWORK, arguments, descendants, ended, is_over, kept, kill, outcome, start, worker

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


def wait(pair: list[subprocess.Popen[bytes]]) -> list[int | None]:
    """Exit statuses; None of an agent that had to be ended."""
    deadline = time.monotonic() + PATIENCE
    while not both_over(pair) and time.monotonic() < deadline:
        time.sleep(PAUSE)
    left = [agent for agent in pair if not is_over(agent.pid)]
    for agent in left:
        kill(agent.pid, *descendants(agent.pid))
    return [None if agent in left else agent.wait() for agent in pair]


def disturb(file: Path, out: Path, rank: int, step: int) -> str:
    """Kills the agent whose process has that rank once so many steps are kept; says what became of the other."""
    pair = agents(file, out)
    while kept(out) < step and not both_over(pair):
        time.sleep(PAUSE)
    victim = next((agent for agent in pair if worker(agent.pid, rank) is not None), pair[rank])
    kill(victim.pid, *descendants(victim.pid))
    steps = kept(out)
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
        statuses = wait(agents(file, out))
        assert ended(out, statuses[0] or 0), file.with_name("agent 0").read_text()
        wanted, steps = outcome(out), kept(out)
        print(f"undisturbed: exit statuses {statuses}, {steps} steps", flush=True)
        for rank in (0, 1):
            shutil.rmtree(out)
            step = chance.randint(steps // 3, 2 * steps // 3)
            words = disturb(file, out, rank, step)
            again = wait(agents(file, out))
            same = ended(out, again[0] or 0) and again == statuses and outcome(out) == wanted
            equal += same
            words += f"; resumed: {'equal' if same else f'DIFFERS, {again}'}"
            print(f"rank {rank} killed after step {step} of {steps}, {words}", flush=True)
            if not same:
                print(
                    file.with_name("agent 0").read_text()[-3000:],
                    file.with_name("agent 1").read_text()[-3000:],
                )
    print(f"{equal} of 2 audits resumed by two agents equal the undisturbed one")
    return int(equal < 2)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
