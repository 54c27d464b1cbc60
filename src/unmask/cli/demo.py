"""`unmask demo`: the whole story on one screen, on a defence that is trained and broken within a minute."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from .folders import writable

CLAIM, EPSILON, EXAMPLES = 0.9, 0.2, 200


def add_parser(commands: Any) -> None:
    """Adds the subcommand."""
    command = commands.add_parser(
        "demo",
        help="a masked defence, exposed on one screen",
        description="Trains a small digit classifier behind a quantising defence, audits its claim and "
        "verifies the evidence.",
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="folder to write (default: unmask-demo)")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """0 if the demonstration went as it must: the claim refuted, the evidence verified."""
    from .audit import free_folder

    folder = arguments.out or free_folder("unmask-demo")
    with writable(folder):
        return _run(folder)


def _run(folder: Path) -> int:
    from ..audit.verify import verify
    from ..cli import main
    from .audit import perform
    from .terminal import console, show_report
    from .verify import show

    out = console(sys.stdout)
    file = write_defence(folder)
    words = [
        "audit",
        f"{file}:defended",
        "--norm",
        "linf",
        "--epsilon",
        f"{EPSILON:g}",
        "--claim",
        f"{CLAIM:g}",
    ]
    words += ["--examples", f"{EXAMPLES}", "--exhaustive", "--out", str(folder / "audit")]
    out.print(
        f"A classifier of digits that quantises its input is in {file}. Its author claims {100 * CLAIM:g} %"
    )
    out.print(f"accuracy under perturbations of at most {EPSILON:g}. Let us see:")
    out.print(f"\n$ unmask {' '.join(words)}")
    report, files = perform(main.parser().parse_args(words))
    show_report(report, files, out)
    out.print(f"\n$ unmask verify {folder / 'audit'}")
    outcome = verify(folder / "audit")
    show(outcome, quiet=True)
    return 0 if report.verdict == "refuted" and outcome.holds else 1


def write_defence(folder: Path) -> Path:
    """Copies the defence's source into `folder`, trains it on digits for seconds, saves its weights."""
    import torch
    from safetensors.torch import save_file
    from torch import nn

    from ..data import load
    from .demo_defence import architecture

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "demo_defence.py"
    shutil.copyfile(Path(__file__).with_name("demo_defence.py"), file)
    data = load("digits", split="train")
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = architecture().train()
        optimizer = torch.optim.Adam(network.parameters(), 2e-3)
        for _ in range(15):
            for batch in torch.randperm(len(data)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(data.x[batch]), data.y[batch]).backward()
                optimizer.step()
    save_file(network.state_dict(), folder / "demo_defence.safetensors")
    return file
