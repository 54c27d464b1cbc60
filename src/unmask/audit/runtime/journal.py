"""Progress that survives Ctrl-C, `kill -9` and a power cut, so that `--resume` ends in the same report."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialize_tensors
from torch import Tensor

from ...errors import UnusableInput

SETTINGS = "settings.json"
_DIGEST = 32  # bytes of SHA-256 in front of each entry


@dataclass(frozen=True)
class Entry:
    """A finished step: a JSON record, and tensors by name."""

    record: dict[str, Any]
    tensors: dict[str, Tensor]


class Journal:
    """Finished steps of one audit, a file each, under `folder`.

    A file appears whole or not at all: it is written beside its place, flushed to the disk, then renamed. Its
    first 32 bytes are the SHA-256 of the rest; an entry that does not match is dropped with a warning, and
    its step runs again.

    **Arguments**
    - `folder`: made if it is missing.
    - `settings`: everything that decides the result (options, checkpoint hash, versions), JSON values only.
    - `resume`: go on with what is there, if anything. Without it, a folder that holds an audit is refused.

    **Raises** `UnusableInput` where the folder holds an audit already, or one begun with other settings.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: Mapping[str, Any], *, resume: bool = False):
        self.folder = Path(folder)
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        stored = read_settings(self.folder)
        if not resume and stored is not None:
            raise UnusableInput(
                f"{self.folder} already holds an audit; add --resume to go on, or give another --out"
            )
        if stored is not None:
            _refuse_other_settings(self.folder, stored, self.settings)
        self.folder.mkdir(parents=True, exist_ok=True)
        if stored is None:
            write_atomically(self.folder / SETTINGS, json.dumps(self.settings, indent=2).encode())

    def get(self, key: str) -> Entry | None:
        """The entry of that key, or None if it was never finished or is damaged."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        body = content[_DIGEST:]
        if hashlib.sha256(body).digest() != content[:_DIGEST]:
            warnings.warn(
                f"the journal's entry {key!r} in {path} is damaged; its step runs again", stacklevel=2
            )
            path.unlink(missing_ok=True)
            return None
        size = int.from_bytes(body[:8], "little")
        return Entry(json.loads(body[8 : 8 + size])["record"], parse_tensors(body[8 + size :]))

    def put(self, key: str, record: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
        """Keeps a finished step; returns once it is on the disk. A second `put` of a key replaces it."""
        text = json.dumps({"key": key, "record": record}).encode()
        plain = {name: t.detach().cpu().contiguous() for name, t in (tensors or {}).items()}
        body = len(text).to_bytes(8, "little") + text + serialize_tensors(plain)
        write_atomically(self._path(key), hashlib.sha256(body).digest() + body)

    def __contains__(self, key: str) -> bool:
        return self._path(key).exists()

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.entry"


def read_settings(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The settings with which the audit in `folder` was begun, or None if none was."""
    try:
        return json.loads(Path(folder, SETTINGS).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that is either the old one or the whole new one, whatever happens meanwhile."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself must reach the disk
    finally:
        os.close(folder)


def _refuse_other_settings(folder: Path, stored: dict[str, Any], given: dict[str, Any]) -> None:
    for name in sorted(stored.keys() | given.keys()):
        before, now = stored.get(name), given.get(name)
        if before != now:
            raise UnusableInput(
                f"{folder} was begun with {name} = {before}, not {now}; resume with the same settings, "
                "or give another --out"
            )
