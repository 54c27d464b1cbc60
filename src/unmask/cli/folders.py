"""The folder that a command will write, held before anything is loaded or trained for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import UnusableInput


@contextlib.contextmanager
def writable(out: Path) -> Iterator[None]:
    """Makes the folder and tries to write there; if the block fails before anything was written, it goes again.

    **Raises** `UnusableInput` where it is a file, lies below one, or cannot be written.
    """
    if "\0" in str(out):  # of a claim file, or from Python: no shell hands one on
        raise UnusableInput(f"--out {str(out)!r} is no name of a folder; give another")
    made = not out.exists()
    trial = out / f".unmask.{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(bytes(4096))  # a full disk still takes an empty file
        trial.unlink()
    except OSError as error:
        with contextlib.suppress(OSError):
            trial.unlink(missing_ok=True)
            if made:
                out.rmdir()
        refusal = f"cannot be written ({error.strerror}); give another folder"
        raise UnusableInput(
            f"--out {out} {'is a file; give a folder' if out.is_file() else refusal}"
        ) from error
    try:
        yield
    except BaseException:
        if made:
            with contextlib.suppress(OSError):  # it holds something: that is kept
                out.rmdir()
        raise
