"""Whether data fit into this machine's memory, asked before they are read: else the system ends the process."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ..errors import UnusableInput

# Where a container's limit stands, under the second and the first version of control groups.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

# The way out for files that can only be read as a whole.
STREAMED = "save {} with numpy.save or numpy.savez, of which --examples N reads N rows and no more"


def refuse_what_exceeds_memory(needed: float, what: str, way_out: str) -> None:
    """**Raises** `UnusableInput` where `needed` bytes are more than `memory()`: "{what} 31 GB …; {way_out}"."""
    held = memory()
    if held is not None and needed > held:
        raise UnusableInput(
            f"{what} {needed / 1e9:.3g} GB, and this machine has {held / 1e9:.3g} GB; {way_out}"
        )


def memory() -> int | None:
    """Bytes of memory that this machine has, or that a container is given of it; None where neither is said."""
    found = []
    with contextlib.suppress(AttributeError, OSError, ValueError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in _LIMITS:
        try:
            found.append(int(file.read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return min(found, default=None)
