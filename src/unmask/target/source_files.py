"""Which of the user's own source files are behind a target or an attack, by hash: what a resumed audit compares."""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from torch import nn


def files_behind(source: Path) -> dict[str, str]:
    """SHA-256 of a Python file and of every file that it imports from its folder or from the working directory.

    Read from the files themselves, at any depth and inside functions too, so that it does not matter what else was
    imported. Names are paths from the file's folder. What is imported by a name made up at run time is not seen.
    """
    source = source.resolve()
    roots = [source.parent, Path.cwd()]
    found: dict[Path, str] = {}
    waiting = [source]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        content = file.read_bytes()
        found[file] = hashlib.sha256(content).hexdigest()
        waiting += [path for path in _imported(file, content, roots) if path not in found]
    return {_from(source.parent, file): digest for file, digest in sorted(found.items())}


def what_runs(spec: str) -> str:
    """A target's name and the SHA-256 of the file behind it, before anything of it runs; a module is not looked up."""
    place = spec.partition(" + ")[0].rpartition(":")[0]
    path = Path(place or spec).expanduser()
    if not path.is_file():
        return spec
    return f"{spec} (SHA-256 of {path}: {hashlib.sha256(path.read_bytes()).hexdigest()})"


def told(file: str, folder: Path | None) -> str:
    r"""A source file's path as it may be handed out: without the folders that it lies in on this machine.

    From the working directory where it lies there, else from the target's `folder`, else from the library's; of any
    other the last two parts.

    >>> told("/usr/lib/python3/site-packages/timm/layers/drop.py", None), told("/home/someone/work/net.py", None)
    ('timm/layers/drop.py', 'work/net.py')
    """
    path = Path(file)
    if not path.is_absolute():
        return file
    for root in (Path.cwd(), folder):
        if root is not None and path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    parts = path.parts
    libraries = [n for n, part in enumerate(parts) if part in ("site-packages", "dist-packages")]
    return "/".join(parts[libraries[-1] + 1 :] if libraries else parts[-2:])


def _from(folder: Path, file: Path) -> str:
    return str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)


def _imported(file: Path, content: bytes, roots: list[Path]) -> Iterator[Path]:
    """Files on disk that the imports of a file stand for."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _on_disk(alias.name, roots)
        elif isinstance(node, ast.ImportFrom):
            places = [file.parents[node.level - 1]] if node.level else roots
            module = node.module or ""
            for alias in node.names:
                yield from _on_disk(f"{module}.{alias.name}".strip("."), places)


def _on_disk(name: str, roots: list[Path]) -> Iterator[Path]:
    """The files of a dotted name and of the packages around it; of a name inside a module, that module's."""
    parts = name.split(".")
    for root in roots:
        for n in range(1, len(parts) + 1):
            place = root.joinpath(*parts[:n])
            for path in (place.with_suffix(".py"), place / "__init__.py"):
                if path.is_file() and "site-packages" not in path.parts:
                    yield path.resolve()


def classes_of(network: object) -> str:
    """SHA-256 of the source of the classes that a network is made of, torch's aside; of a function its own source."""
    parts = {type(m) for m in network.modules()} if isinstance(network, nn.Module) else {network}
    own = [
        part
        for part in parts
        if not (getattr(part, "__module__", "") or "").startswith(("torch.", "unmask."))
    ]
    return hashlib.sha256("\n".join(sorted(_source(part) for part in own)).encode()).hexdigest()


def description(thing: object) -> str:
    """SHA-256 of an object's class and of what it says about itself, without addresses in memory.

    Of a function or a class, its own source.
    """
    said = re.sub(r" at 0x[0-9a-f]+", "", repr(thing))
    written = thing if inspect.isroutine(thing) or inspect.isclass(thing) else type(thing)
    return hashlib.sha256(f"{_source(written)}\n{said}".encode()).hexdigest()


def _source(thing: object) -> str:
    try:
        return inspect.getsource(thing)  # pyright: ignore[reportArgumentType]
    except (OSError, TypeError):  # made at run time, or in C
        return getattr(thing, "__qualname__", type(thing).__qualname__)
