"""`unmask`: one file per subcommand, and one place that turns exceptions into an exit status."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence

from .. import __version__
from ..cli import audit, bound, claim, demo, reproduce, train, verify
from ..errors import UnmaskError, UnusableInput
from .allocator import keep_freed_memory

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
CRASHED = 70  # EX_SOFTWARE of sysexits.h; Python's own 1 would read as "claim refuted"


class Parser(argparse.ArgumentParser):
    """Wrong options are unusable input: one line, like every other."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raises instead of exiting."""
        raise UnusableInput(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = Parser(
        prog="unmask",
        description="Tells real adversarial robustness from gradient masking.",
        epilog="Exit status: 0 finished and the claim is not refuted, 1 the claim is refuted (verify: "
        "something does not hold), 2 unusable input, 3 inconclusive, 130 interrupted.",
    )
    top.add_argument("--version", action="version", version=f"unmask {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for command in (audit, bound, claim, verify, demo, train, reproduce):
        command.add_parser(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand and returns the exit status."""
    arguments = argparse.Namespace()
    keep_freed_memory()
    try:
        arguments = parser().parse_args(argv)
        return arguments.run(arguments)
    except UnmaskError as error:
        print(f"unmask: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nunmask: stopped" + _way_back(arguments), file=sys.stderr)
        return INTERRUPTED
    except SystemExit as finished:  # --help and --version
        return int(finished.code or 0)
    except Exception:  # a defect of ours: shown whole, under a status that no verdict has
        traceback.print_exc()
        print("unmask: this is a defect of unmask, please report it" + _way_back(arguments), file=sys.stderr)
        return CRASHED


def _way_back(arguments: argparse.Namespace) -> str:
    out = getattr(arguments, "resumable", None)
    return "" if out is None else f"; nothing is lost, go on with: unmask audit --resume {out}"
