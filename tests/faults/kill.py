"""An audit killed at random moments and resumed gives the report of the undisturbed one.

    python tests/faults/kill.py [MOMENTS] [SEED]

Each time a process is killed by SIGKILL after a random share of the time that the undisturbed audit took, up to three
times in a row, then resumed to its end. Compared are `report.json` without what is measured by a clock, and the
evidence, byte by byte. Prints one line for each moment and, last, how many were equal; exit status 1 if not all were.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NETWORK = """
import torch
from torch import nn
from unmask.data import load


class Noisy(nn.Module):
    def __init__(self, noise):
        super().__init__()
        data = load("digits", split="train")
        means = torch.stack([data.x[data.y == c].mean(0).flatten() for c in range(10)])
        self.linear, self.noise = nn.Linear(64, 10), noise
        self.linear.weight.data, self.linear.bias.data = 2 * means, -(means**2).sum(1)

    def forward(self, x):
        x = (x * 16).round() / 16
        return self.linear((x + self.noise * torch.randn_like(x)).flatten(1))


def network():
    return Noisy(0.0).eval()
"""
OPTIONS = ["--data", "digits", "--norm", "linf", "--epsilon", "0.05", "--examples", "24", "--budget", "quick"]
BY_CLOCK = {"seconds"}


def without_clock(value: Any) -> Any:
    """A report without what a clock measured."""
    if isinstance(value, dict):
        return {k: without_clock(v) for k, v in value.items() if k not in BY_CLOCK}
    return [without_clock(v) for v in value] if isinstance(value, list) else value


def outcome(folder: Path) -> tuple[str, str]:
    report = without_clock(json.loads((folder / "report.json").read_text()))
    evidence = hashlib.sha256((folder / "evidence.safetensors").read_bytes()).hexdigest()
    return json.dumps(report, sort_keys=True), evidence


def audit(file: Path, *where: str, kill_after: float | None = None) -> int:
    """Exit status; minus nine where it was killed."""
    command = [sys.executable, "-m", "unmask", "audit", *where, "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=file.parent)
    try:
        _, said = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        return -signal.SIGKILL
    if process.returncode not in (0, 1, 3):
        print("   ", said.decode().strip().splitlines()[-1:])
    return process.returncode


def main(moments: int, seed: int) -> int:
    chance, equal = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "net.py")
        file.write_text(NETWORK)
        new = [f"{file}:network", *OPTIONS]
        began = time.monotonic()
        status = audit(file, *new, "--out", f"{place}/whole")
        took, wanted = time.monotonic() - began, outcome(Path(place, "whole"))
        print(f"undisturbed: exit status {status} after {took:.1f} s")
        for moment in range(moments):
            out, at = f"{place}/{moment}", []
            done = None
            for _ in range(chance.randint(1, 3)):
                at.append(chance.uniform(0.1, 1.0) * took)
                begun = Path(out, "command.json").exists()
                where = ["--resume", out] if begun else [*new, "--out", out]
                if not begun:
                    shutil.rmtree(out, ignore_errors=True)
                done = audit(file, *where, kill_after=at[-1])
                if done != -signal.SIGKILL:
                    break
            if done == -signal.SIGKILL:
                begun = Path(out, "command.json").exists()
                if not begun:
                    shutil.rmtree(out, ignore_errors=True)
                done = audit(file, *(["--resume", out] if begun else [*new, "--out", out]))
            same = done == status and outcome(Path(out)) == wanted
            equal += same
            words = ", ".join(f"{t:.1f}" for t in at)
            print(
                f"killed after {words} s: {'equal' if same else f'DIFFERS, exit status {done}'}", flush=True
            )
            shutil.rmtree(out)
    print(f"{equal} of {moments} resumed audits equal the undisturbed one")
    return int(equal < moments)


if __name__ == "__main__":
    sys.exit(
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 40, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    )
