"""`unmask audit`: from a classifier and a claim to a verdict."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from ..audit.records import Report
from ..claim.claim import Claim
from ..cli import options as opt
from ..errors import UnmaskError, UnusableInput
from ..foreign import failure
from .device import choose_device
from .folders import writable
from .pipes import readers_may_leave


def add_parser(commands: Any) -> None:
    """Adds the subcommand."""
    command = commands.add_parser(
        "audit",
        help="find out whether robustness is real, and where the gradient is masked",
        description="Audits a network. This runs the Python file that TARGET names.",
    )
    command.add_argument(
        "target",
        nargs="?",
        metavar="TARGET",
        help="path/to/file.py:callable, package.module:callable, or claim.toml, which holds the options",
    )
    opt.add_options(command)
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to write (default: unmask-<callable>)"
    )
    command.add_argument(
        "--fail-under",
        type=opt.number,
        metavar="SHARE",
        help="exit status 1 if the measured accuracy under attack is below this share of the examples",
    )
    command.add_argument("--resume", type=Path, metavar="DIR", help="go on with an interrupted audit")
    command.add_argument(
        "--json", action="store_true", help="print report.json, everything else on standard error"
    )
    command.add_argument("--quiet", action="store_true", help="print nothing but the verdict")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Audits, writes the folder, prints the outcome, and returns the exit status."""
    with contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext():
        report, files = perform(arguments)
    if _rank() > 0:
        return 0  # the first process answers for all
    with readers_may_leave(sys.stdout):
        _print(arguments, report, files)
    return _status(report, arguments.fail_under)


def _status(report: Report, fail_under: float | None) -> int:
    """The verdict's, but 1 where the measured accuracy falls below a gate that compares these very examples."""
    if fail_under is None or report.robust_accuracy >= fail_under:
        return report.exit_status
    print(
        f"accuracy under attack, {report.robust_accuracy:.4g}, is below --fail-under {fail_under:g}",
        file=sys.stderr,
    )
    return 1


def perform(arguments: argparse.Namespace) -> tuple[Report, list[Path]]:
    """Audits and writes the folder. Sets `arguments.resumable` once there is something to resume."""
    if arguments.resume is not None and arguments.out not in (None, arguments.resume):
        raise UnusableInput(f"--resume {arguments.resume} and --out {arguments.out} differ; leave --out out")
    if arguments.fail_under is not None and not 0 <= arguments.fail_under <= 1:
        raise UnusableInput(
            f"--fail-under is {arguments.fail_under:g}; give a share between 0 and 1, for instance 0.4"
        )
    claim = opt.gather(arguments, arguments.resume)
    out = arguments.resume or arguments.out or free_folder(f"unmask-{short_name(claim.target)}")
    if _rank() > 0 or arguments.resume is not None:
        return _performed(arguments, claim, out)
    _refuse_used(out)
    with writable(out):  # before anything is loaded
        try:
            return _performed(arguments, claim, out)
        except UnmaskError:
            if (out / opt.COMMAND).exists():  # stored by this command; the next one, corrected, begins anew
                _forget_unbegun(out)
            raise


def _performed(arguments: argparse.Namespace, claim: Claim, out: Path) -> tuple[Report, list[Path]]:
    # Here, so that a wrong option is told before torch is loaded.
    from ..audit.run import audit
    from ..audit.runtime.processes import of_torchrun
    from ..claim.stated import check_checkpoint, check_clean, check_scope
    from ..claim.target_classes import load_for
    from ..target.class_names import in_order_of
    from ..target.target import load_target
    from .terminal import TerminalProgress

    device = choose_device(claim.device)
    check_scope(claim)
    attacks = [_attack(spec) for spec in claim.attack]
    target = load_target(claim.target)
    check_checkpoint(claim.checkpoint_hash, target.checkpoint_hash, target.spec)
    data = load_for(
        claim.targets,
        claim.data,
        split=claim.split,
        examples=claim.examples,
        seed=claim.seed,
        allow_pickle=claim.allow_pickle,
    )
    data = in_order_of(target.network, data)
    check_clean(claim, target.network, data, device=device)
    resuming = arguments.resume is not None
    if _rank() == 0 and not resuming:
        opt.store(out, claim)
    arguments.resumable = out
    with of_torchrun(), TerminalProgress(quiet=arguments.quiet or _rank() > 0) as progress:
        report = audit(
            target,
            data,
            claim.model_copy(update={"device": device}),
            out=out,
            resume=resuming,
            progress=progress,
            attacks=attacks,
        )
    return report, _write(report, out) if _rank() == 0 else []


def short_name(target: str) -> str:
    """What a target is called on its folder: without place, options and defences.

    >>> short_name("nets/defence.py:jpeg + median(size=3)"), short_name("nets/w.pth(arch='net.py:Net')")
    ('jpeg', 'w')
    """
    bare = target.partition(" + ")[0].partition("(")[0]
    return bare.rpartition(":")[2].rpartition("/")[2].partition(".")[0] or "audit"


def free_folder(name: str) -> Path:
    """The name, or the first of name-2, name-3, … that is not taken."""
    folder, number = Path(name), 1
    while folder.exists():
        number += 1
        folder = Path(f"{name}-{number}")
    return folder


def _forget_unbegun(out: Path) -> bool:
    """Removes what an audit left that finished no step; False where it finished one."""
    from ..audit.runtime.journal import forget_unbegun

    forgotten = forget_unbegun(out / "journal")
    if forgotten:
        (out / opt.COMMAND).unlink(missing_ok=True)
    return forgotten


def _refuse_used(out: Path) -> None:
    """**Raises** `UnusableInput` where the folder holds steps of an audit, or its report."""
    if (out / opt.COMMAND).exists() and not _forget_unbegun(out):
        raise UnusableInput(f"{out} already holds an audit; go on with --resume {out}, or give another --out")
    if (out / "report.json").exists():  # of an audit from Python, or whose journal was removed
        raise UnusableInput(f"{out} already holds a report; give another --out")


def _write(report: Report, out: Path) -> list[Path]:
    from ..audit.evidence import FILE
    from ..report.html import write_html
    from ..report.json import write_json

    files = [write_json(out, report), out / FILE]
    try:
        files.insert(0, write_html(out, report))
    except Exception as error:  # for the eyes only: the verdict stands without it
        warning = f"report.html could not be written: {failure(error)}"
        write_json(out, report.model_copy(update={"warnings": [*report.warnings, warning]}))
        with readers_may_leave(sys.stderr):
            print(f"unmask: {warning}", file=sys.stderr)
    return [file for file in files if file.exists()]


def _print(arguments: argparse.Namespace, report: Report, files: list[Path]) -> None:
    from ..report import words
    from .terminal import console, show_report

    if arguments.json:
        sys.stdout.write(report.to_json())
    if arguments.quiet:
        if not arguments.json:
            print(f"{words.headline(report)}. {words.verdict_sentence(report)}")
        return
    show_report(report, files, console(sys.stderr if arguments.json else sys.stdout))


def _attack(spec: str) -> Any:
    from ..attacks.foreign import as_attack, makes_itself
    from ..state.process import kept
    from ..target.load import build, find

    with kept():
        found, _ = find(spec)
        attack = build(spec)[0] if makes_itself(found) else found
    return as_attack(attack, spec)


def _rank() -> int:
    """Which of `torchrun`'s processes this is; the first one writes and prints."""
    return int(os.environ.get("RANK", "0"))
