"""Standard streams whose reader may be gone: `unmask audit … --json | head` must end as if head had read it all."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

# By these Hugging Face's libraries are asked for no progress bars: of hub and transformers, and of data sets.
BARS = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")


def no_bars_in_logs() -> None:
    """Libraries that load networks and data draw no progress bars where no terminal shows them; users may want them."""
    if sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty():
        return
    for name in BARS:
        os.environ.setdefault(name, "1")


# What torch warns a network's author of, and what is so because of how we ask: with gradients, without, copied, loaded.
_OURS = (
    "None of the inputs have requires_grad=True",
    "Converting a tensor with requires_grad=True to a scalar",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)


def no_warnings_of_ours() -> None:
    """What torch warns of is printed where a user's code has caused it, and not where our way of asking has."""
    for message in _OURS:
        warnings.filterwarnings("ignore", message=message)


@contextlib.contextmanager
def readers_may_leave(stream: TextIO) -> Iterator[None]:
    """Within the block a closed pipe ends the printing and nothing else: what was to be told is known all the same."""
    try:
        yield
    except BrokenPipeError:
        silence(stream)


def finish_printing(stream: TextIO) -> None:
    """Flushes while an error can still be told: at exit Python would turn it into a status of its own.

    **Raises** `OSError` where the stream leads to a full disk.
    """
    with readers_may_leave(stream):
        try:
            stream.flush()
        except ValueError:  # closed already
            return
        except OSError:
            silence(stream)
            raise


def silence(stream: TextIO) -> None:
    """Sends whatever the stream still holds nowhere."""
    with contextlib.suppress(OSError, ValueError):  # a stream that is no file has nothing to send
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
