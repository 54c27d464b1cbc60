"""Where in the user's source an operation stands."""

from __future__ import annotations

import functools
import inspect
import linecache
import os
import sys
import sysconfig
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

import torch
from torch import nn

from ...built_at import site_of, stands_for_another
from .graph_hooks import backward_hooks_of

_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_OWN = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep  # the package
_STDLIB = sysconfig.get_paths()["stdlib"] + os.sep
# Our own small networks and defences are somebody's model, not our machinery.
_MODEL_CODE = tuple(_OWN + folder + os.sep for folder in ("zoo", "defenses", "bounds"))
_PLUMBING = (
    "numpy scipy PIL beartype jaxtyping torchvision cv2 skimage datasets sklearn pandas joblib numba pywt einops "
    "kornia typing_extensions wrapt decorator tqdm"
).split()


@dataclass(frozen=True)
class Site:
    """A place in the source.

    **Fields**
    - `file`, `line`: innermost line of the user's own code that was executing; where the network is made of torch's or
      a library's modules alone, the line that constructed the module.
    - `module`: dotted name of the innermost `nn.Module`, or "".
    - `executing`: the executing line, where `line` names a construction instead.
    - `inside`: file and line inside a library in site-packages, where the operation stands there.
    """

    file: str
    line: int
    module: str = field(default="", compare=False)
    executing: tuple[str, int] | None = field(default=None, compare=False)
    inside: tuple[str, int] | None = field(default=None, compare=False)

    @property
    def code(self) -> str:
        """The source line, stripped; empty where the source is not at hand."""
        return linecache.getline(self.file, self.line).strip() if self.file else ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file else self.module or "?"


def _is_user(path: str) -> bool:
    if path.startswith("<"):
        return False
    if path.startswith(_OWN):
        return path.startswith(_MODEL_CODE)
    if path.startswith(_TORCH):
        return False
    for name in _PLUMBING:
        if f"{os.sep}site-packages{os.sep}{name}{os.sep}" in path or path.endswith(
            f"{os.sep}site-packages{os.sep}{name}.py"
        ):
            return False
    return not (path.startswith(_STDLIB) and "site-packages" not in path)


_known: dict[str, bool] = {}


def is_user_file(path: str) -> bool:
    """Whether a source file is the user's: not torch, not this package's machinery, not the standard library."""
    if path not in _known:
        _known[path] = _is_user(path)
    return _known[path]


_PACKAGES = tuple(f"{os.sep}{folder}{os.sep}" for folder in ("site-packages", "dist-packages"))
_homes: set[str] = set()


def _within(path: str) -> str:
    """The folder of the package, or the module's file, in site-packages that a file belongs to; "" for any other."""
    for packages in _PACKAGES:
        before, found, after = path.rpartition(packages)
        if found:
            return before + found + after.split(os.sep)[0]
    return ""


def at_home_in(path: str) -> None:
    """Says that the target lives here: where that is a package in site-packages, its lines are the user's."""
    if _within(path):
        _homes.add(_within(path))


def is_library(path: str) -> bool:
    """Whether a source file belongs to a library in site-packages: not torch, not this package, not the target's."""
    return not path.startswith((_OWN, _TORCH)) and bool(_within(path)) and _within(path) not in _homes


@dataclass(frozen=True)
class Frame:
    """One frame of the stack between the classifier's door and an operation."""

    file: str
    line: int
    owner: int  # id of `self`, so that two members of one ensemble differ
    module: nn.Module | None
    library: bool = False


def stack(doors: tuple[str, ...] = ("_checked", "run_network")) -> list[Frame]:
    """Frames from the innermost outwards, up to the classifier's door. Only user code, libraries and torch modules."""
    frames: list[Frame] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name in doors and code.co_filename.startswith(_OWN):
            break
        library = is_library(code.co_filename)
        if library or is_user_file(code.co_filename):
            owner = frame.f_locals.get("self")
            module = owner if isinstance(owner, nn.Module) else None
            frames.append(Frame(code.co_filename, frame.f_lineno, id(owner), module, library))
        elif code.co_name == "forward" and code.co_filename.startswith((_TORCH, _OWN)):
            owner = frame.f_locals.get("self")
            # Of ours, what stands for something that the user built.
            if isinstance(owner, nn.Module) and (
                code.co_filename.startswith(_TORCH) or stands_for_another(owner)
            ):
                frames.append(Frame("", 0, id(owner), owner))
        frame = frame.f_back
    return frames


def site(frames: list[Frame], names: dict[int, str]) -> Site:
    """The place that a reader should be shown for an operation with this stack.

    `names` maps `id(module)` to its dotted name.
    """
    inner: list[Frame] = []
    for frame in frames:
        if frame.file and not frame.library:
            executing = (frame.file, frame.line)
            break
        inner.append(frame)
    else:
        executing = None
    inside = next(((f.file, f.line) for f in inner if f.library), None)
    module = next((f.module for f in frames if f.module is not None), None)
    name = names.get(id(module), "") if module is not None else ""
    # Called directly by the user's line: that line. Called by a container: the line that built the module says more.
    if inner and (executing is None or any(not f.file for f in inner[1:])):
        built = next((s for f in inner if f.module is not None and (s := site_of(f.module))), None)
        if built is not None and (executing is None or not is_library(built[0])):
            return Site(*built, name, executing, inside)
    if executing is not None:
        return Site(*executing, name, inside=inside)
    return Site(*inside, name) if inside is not None else Site("", 0, name)


def site_of_hook(module: nn.Module) -> tuple[str, int] | None:
    """File and line where the function begins that changes a module's gradients; None if it is not the user's."""
    for hook in backward_hooks_of(module):
        while isinstance(hook, functools.partial):
            hook = hook.func
        function = hook if hasattr(hook, "__code__") or inspect.ismethod(hook) else type(hook).__call__
        code = getattr(inspect.unwrap(function), "__code__", None)
        if code is not None and is_user_file(code.co_filename):
            return code.co_filename, code.co_firstlineno
    return None


def hooked_at(where: Site, module: nn.Module) -> Site:
    """The place to show for a module with backward hooks: the user's hook, else the module, a library's hook inside."""
    hook = site_of_hook(module)
    if hook is None:
        return where
    if is_library(hook[0]) and where.file and not is_library(where.file):
        return replace(where, inside=hook)
    return replace(where, file=hook[0], line=hook[1])


def module_names(network: Any) -> dict[int, str]:
    """Dotted name of every submodule, by identity."""
    if not isinstance(network, nn.Module):
        return {}
    return {id(module): name or type(module).__name__ for name, module in network.named_modules()}


def group_of(name: str, where: Site) -> tuple[str, str, int]:
    """What an operation is called when it has to be found again in another pass."""
    place = where.file or where.module
    # Of a library's operations under one call of the user's, each is one of its own.
    return name, place if where.inside is None else "{} in {}:{}".format(place, *where.inside), where.line
