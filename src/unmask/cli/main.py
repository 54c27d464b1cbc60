"""`unmask`: one file per subcommand, and one place that turns exceptions into an exit status."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence

from .. import __version__
from ..cli import audit, bound, claim, compare, demo, export, reproduce, train, verify
from ..errors import UnmaskError, UnusableInput, first_line, out_of_memory
from ..foreign import failure, signals_heard, stay, user_line, wants_to_stop
from .allocator import keep_freed_memory
from .pipes import finish_printing, no_bars_in_logs, no_warnings_of_ours, readers_may_leave
from .watched import watched

UNUSABLE = 2
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
    for command in (audit, bound, claim, verify, export, compare, demo, train, reproduce):
        command.add_parser(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand and returns the exit status, which only a finished subcommand makes 0, 1 or 3."""
    arguments = argparse.Namespace()
    keep_freed_memory()
    no_bars_in_logs()
    no_warnings_of_ours()
    try:
        arguments = parser().parse_args(_plain(sys.argv[1:] if argv is None else argv))
        with signals_heard():
            return _run(arguments)
    except SystemExit as finished:  # --help and --version
        return int(finished.code or 0)
    except BaseException as error:
        return _failed(arguments, error)


def command() -> int:
    """As `main`, in a process of its own, whose end by code that is given to it is no verdict."""

    def staying() -> int:
        stay()
        return main()

    return watched(staying)


def _plain(argv: Sequence[str]) -> Sequence[str]:
    """The words as they are.

    **Raises** `UnusableInput` for `--option=--`, which argparse takes for an empty list, and for a NUL, which no shell
    hands on.
    """
    for word in argv:
        if "\0" in word:
            raise UnusableInput(
                f"{word!r} is no name of a folder, a file or anything else; see unmask --help"
            )
        if word.startswith("--") and word.endswith("=--"):
            raise UnusableInput(f"{word[:-3]} is '--', which is no value; see unmask --help")
    return argv


def _run(arguments: argparse.Namespace) -> int:
    try:
        status = arguments.run(arguments)
        finish_printing(sys.stdout)
    except BaseException as error:  # here, where it is known whether a signal came
        return _failed(arguments, error)
    return status


def _failed(arguments: argparse.Namespace, error: BaseException) -> int:
    status, line = _judged(error)
    if status == CRASHED:
        traceback.print_exception(error)
    with readers_may_leave(sys.stderr):
        print(f"unmask: {' '.join(line.split())}{_way_back(arguments, error)}", file=sys.stderr)
    return status


def _judged(error: BaseException) -> tuple[int, str]:
    """Exit status and the line to print: whose failure was it, ours or that of something that we were given."""
    if isinstance(error, UnmaskError):
        return UNUSABLE, str(error)
    if wants_to_stop(error):
        return INTERRUPTED, "stopped"
    if isinstance(error, MemoryError) or _out_of_memory(error):
        return (
            UNUSABLE,
            f"out of memory ({first_line(error)}); give a smaller --batch-size or fewer --examples",
        )
    if user_line(error) or not isinstance(error, Exception):
        # `sys.exit` in somebody's network must not decide the status: 0 and 1 belong to verdicts.
        return UNUSABLE, f"code that is not unmask's raised {failure(error)}; make it run by itself first"
    if isinstance(error, OSError):
        place = f" {error.filename}" if error.filename else ""
        return UNUSABLE, f"the file system refuses{place}: {error.strerror or first_line(error)}"
    return CRASHED, "this is a defect of unmask, please report it"


def _out_of_memory(error: BaseException) -> bool:
    """Torch's own error, and what it says on the CPU; torch need not be loaded yet."""
    known = isinstance(error, RuntimeError) and out_of_memory(error)
    return type(error).__name__ == "OutOfMemoryError" or known


def _way_back(arguments: argparse.Namespace, error: BaseException) -> str:
    out = getattr(arguments, "resumable", None)
    if out is None or isinstance(error, UnmaskError) or not out.is_dir():
        return ""
    return f"; nothing is lost, go on with: unmask audit --resume {out}"
