"""Progress that survives Ctrl-C, `kill -9` and a power cut, so that `--resume` ends in the same report."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialize_tensors
from torch import Tensor

from ...errors import UnusableInput

SETTINGS, LOCK, ELAPSED = "settings.json", ".lock", "seconds"
_DIGEST = 32  # bytes of SHA-256 in front of each entry
_HELD: set[int] = set()  # descriptors of the locks that this process holds


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

    While it is open nobody else can open it: the lock is the system's, and goes with the process that holds it.

    `before`: seconds that the audit had taken at the last step that was finished before this journal was opened.
    `began`: when the audit did, in seconds since 1970 (where nothing was finished before: when this was opened).

    **Raises** `UnusableInput` where the folder holds an audit already, one begun with other settings, entries without
    settings, or one that is being written.
    """

    _lock: int | None = None
    before: float = 0.0

    def __init__(self, folder: str | os.PathLike[str], settings: Mapping[str, Any], *, resume: bool = False):
        self.folder = Path(folder)
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        self._lock = _locked(self.folder)
        self._opened, self.began = time.perf_counter(), time.time()
        try:
            self._begin(resume)
            with contextlib.suppress(OSError, ValueError):
                before, began = map(float, (self.folder / ELAPSED).read_text().split())
                if before >= 0 and 0 <= began <= self.began:
                    self.before, self.began = before, began
        except BaseException:
            self.close()
            raise

    def _begin(self, resume: bool) -> None:
        stored = read_settings(self.folder)
        if not resume and stored is not None:
            raise UnusableInput(
                f"{self.folder} already holds an audit; add --resume to go on, or give another --out"
            )
        if stored is not None:
            _refuse_other_settings(self.folder, stored, self.settings)
        elif (self.folder / SETTINGS).exists() or holds_steps(self.folder):
            raise UnusableInput(
                f"{self.folder} holds steps of an audit, but its {SETTINGS} is missing or damaged, so that nobody can "
                "say of which; begin again with another --out"
            )
        else:
            write_atomically(self.folder / SETTINGS, json.dumps(self.settings, indent=2).encode())

    def close(self) -> None:
        """Lets others write."""
        if self._lock is not None:
            _unlock(self._lock)
            self._lock = None

    __del__ = close

    def get(self, key: str) -> Entry | None:
        """The entry of that key; None if it was never finished, is damaged, or belongs to another step or audit."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        body = content[_DIGEST:]
        if hashlib.sha256(body).digest() != content[:_DIGEST]:
            return self._dropped(key, path, "is damaged")
        size = int.from_bytes(body[:8], "little")
        found = json.loads(body[8 : 8 + size])
        if (found.get("key"), found.get("settings")) != (key, self.digest):
            return self._dropped(key, path, "is of another step or audit")
        return Entry(found["record"], parse_tensors(body[8 + size :]))

    @staticmethod
    def _dropped(key: str, path: Path, why: str) -> None:
        warnings.warn(f"the journal's entry {key!r} in {path} {why}; its step runs again", stacklevel=3)
        path.unlink(missing_ok=True)

    def put(self, key: str, record: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
        """Keeps a finished step; returns once it is on the disk. A second `put` of a key replaces it."""
        text = json.dumps({"key": key, "settings": self.digest, "record": record}).encode()
        plain = {name: t.detach().cpu().contiguous() for name, t in (tensors or {}).items()}
        body = len(text).to_bytes(8, "little") + text + serialize_tensors(plain)
        write_atomically(self._path(key), hashlib.sha256(body).digest() + body)
        taken = self.before + time.perf_counter() - self._opened
        (self.folder / ELAPSED).write_text(f"{taken:.3f} {int(self.began)}")

    def __contains__(self, key: str) -> bool:
        return self._path(key).exists()

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.entry"


def read_settings(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The settings with which the audit in `folder` was begun, or None if none was."""
    try:
        found = json.loads(Path(folder, SETTINGS).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def holds_steps(folder: Path) -> bool:
    """Whether an audit finished a step in this journal, so that there is something to lose."""
    return any(folder.glob("*.entry"))


def forget_unbegun(folder: Path) -> bool:
    """Removes a journal in which no step was finished, so that the folder is free for another command.

    Returns whether it did; a journal that holds a step stays.

    **Raises** `UnusableInput` where it is being written.
    """
    if not folder.exists():
        return True
    lock = _locked(folder)
    try:
        if holds_steps(folder):
            return False
        for path in (folder / SETTINGS, folder / LOCK):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody's own files lie there
            folder.rmdir()
        return True
    finally:
        if lock is not None:
            _unlock(lock)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that is either the old one or the whole new one, whatever happens meanwhile."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # on a full disk the half of it is in the way
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
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
                f"{folder} was begun with {name} = {_short(before)}, not {_short(now)}; resume with the same settings, "
                "or give another --out"
            )


def _short(value: Any) -> str:
    """A hash by its first digits, as people compare them."""
    text = str(value)
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{64}", text) else text


def _locked(folder: Path) -> int | None:
    """Holds `folder` for this process, until the descriptor is closed; None where the file system has no locks."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise UnusableInput(
            f"another audit is writing in {folder}; wait for it to end, or give another --out"
        ) from error
    except OSError:
        os.close(descriptor)
        return None
    if os.fstat(descriptor).st_nlink == 0:  # whoever held it has removed it
        os.close(descriptor)
        return _locked(folder)
    _let_go_in_copies()
    _HELD.add(descriptor)
    return descriptor


def _unlock(descriptor: int) -> None:
    if descriptor in _HELD:  # else this is a copy of the process that held it
        _HELD.remove(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # of copies that have not let go yet, too
        os.close(descriptor)


@cache
def _let_go_in_copies() -> None:
    """Processes that somebody's code splits off would keep the lock for as long as they run, though all else ended."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    while _HELD:
        os.close(_HELD.pop())
