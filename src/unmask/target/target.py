"""The network under audit: found, built, and its modules' places in the source recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from ..classifier import Classifier
from ..errors import UnusableInput
from ..state.process import kept
from ..tracing.intercept.construction import construction_sites
from ..tracing.intercept.sites import at_home_in
from .load import build, checkpoint_hash
from .source_files import files_behind


@dataclass(frozen=True)
class Target:
    """What is audited.

    **Fields**
    - `network`: what the user's callable returned.
    - `spec`: how it was named, `file.py:callable` or `package.module:callable`.
    - `source`: the file that holds the callable, if it has one.
    - `checkpoint_hash`: SHA-256 over all parameters and persistent buffers; empty where there are none to see.
    - `files`: SHA-256 of the user's own Python files that were loaded with it, by their path from its folder.
    - `settings`: names of the process's settings that loading it changed, and that were put back.
    """

    network: nn.Module | Classifier
    spec: str
    source: Path | None
    checkpoint_hash: str
    files: Mapping[str, str] = field(default_factory=dict)
    settings: tuple[str, ...] = ()


def load_target(spec: str) -> Target:
    """Calls the user's callable, while watching on which line each module is built.

    Settings of the whole process that its code changes on the way are put back: they would decide how the audit runs.

    **Raises** `UnusableInput` with one line where there is no such callable, it needs arguments, it raises,
    or it returns something else than a network.
    """
    changed: list[str] = []
    with kept(changed.extend), construction_sites():
        built, source = build(spec)
    if source is not None:
        at_home_in(str(source))
    if not isinstance(built, nn.Module | Classifier):
        raise UnusableInput(
            f"{spec} returned a {type(built).__name__}; return a torch.nn.Module or an unmask Classifier"
        )
    network = built.network if isinstance(built, Classifier) else built
    files = {} if source is None or source.suffix != ".py" else files_behind(source)
    return Target(built, spec, source, checkpoint_hash(network), files, tuple(changed))
