"""Finds and calls the user's own callable. Imports nothing of the attacks: `verify` uses this too."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ..errors import UnmaskError, UnusableInput
from ..foreign import failure, wants_to_stop
from ..types import plain


def find(spec: str) -> tuple[Any, Path | None]:
    """The object that `path/to/file.py:name` or `package.module:name` names, and the source file it is in.

    Runs the user's own file, on purpose. Its folder (for a module: the working directory) is put on
    `sys.path`, as for a script.

    **Raises** `UnusableInput` where there is no such file, module or name, or where the import raises.
    """
    place, separator, name = spec.rpartition(":")
    if not separator or not place or not name:
        raise UnusableInput(
            f"{spec!r} names no callable; give path/to/file.py:callable or package.module:callable"
        )
    is_file = place.endswith(".py") or "/" in place
    module = _import_file(Path(place).expanduser(), spec) if is_file else _import_module(place, spec)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise UnusableInput(f"{place} has no {name!r}{_near(module)}")
        found = getattr(found, part)
    return found, Path(module.__file__) if module.__file__ else None


def build(spec: str) -> tuple[Any, Path | None]:
    """Calls what `spec` names, without arguments; an `nn.Module` instance is taken as it is.

    Behind the name, defences of ours may be put in front of the network: `file.py:callable + jpeg(quality=75)`. An
    image goes through the first one first.

    **Raises** `UnusableInput` where it is not callable, needs arguments, or raises; or there is no such defence.
    """
    bare, *defences = spec.split(" + ")
    built, source = opened(bare)
    if defences:
        # Only here: then our code is part of the network, and else none of it is.
        from .defended import defended

        built = defended(built, bare, defences)
    return built, source


def opened(spec: str) -> tuple[Any, Path | None]:
    """A network from a Python callable, or from a file, hub or toolbox (`unmask.sources`)."""
    # Here, for a state dict's class is found by this file.
    from ..sources import is_source, open_source, split_steps
    from ..sources.preprocessing import Preprocessed

    if is_source(spec):
        return open_source(spec)
    place, steps = split_steps(spec)
    built, source = called(place)
    if steps is None:
        return built, source
    if not isinstance(built, nn.Module):
        raise UnusableInput(
            f"{place} returned a {type(built).__name__}; options stand before a torch.nn.Module"
        )
    # What it returns is read by whoever asks: it may hold a detector's score.
    return Preprocessed(built, steps, read=lambda outputs: outputs), source


def called(spec: str, wanted: type = nn.Module) -> tuple[Any, Path | None]:
    """What `find` finds, called without arguments unless it is a `wanted` already."""
    found, source = find(spec)
    if isinstance(found, wanted) and not inspect.isroutine(found) and not inspect.isclass(found):
        return found, source
    if not callable(found):
        raise UnusableInput(
            f"{spec} is a {type(found).__name__}; give a callable that returns a torch.nn.Module"
        )
    needed = _required(found)
    if needed:
        raise UnusableInput(
            f"{spec} needs the argument{'s' * (len(needed) > 1)} {', '.join(needed)}; "
            "wrap it in a function that takes none"
        )
    return _guarded(found, f"{spec} raised"), source


def checkpoint_hash(network: object) -> str:
    """SHA-256 over names, types, shapes and bytes of what a checkpoint holds; empty for other callables.

    That is parameters and buffers without those that the network declares not to be part of its state: scratch space
    that a forward pass fills is no difference between two networks.

    **Raises** `UnusableInput` for a network without numbers, on the meta device.
    """
    if not isinstance(network, nn.Module):
        return ""
    empty = [n for n, t in (*network.named_parameters(), *network.named_buffers()) if t.is_meta]
    if empty:
        raise UnusableInput(
            f"`{empty[0]}`, on the meta device, holds no numbers, as {len(empty)} of the network's tensors; build it "
            "on a real device, or give it numbers by to_empty(device='cpu') and load_state_dict, or by "
            "load_state_dict(..., assign=True)"
        )
    digest = hashlib.sha256()
    scratch = {
        f"{prefix}.{name}".removeprefix(".")
        for prefix, module in network.named_modules()
        for name in getattr(module, "_non_persistent_buffers_set", ())
    }
    kept = {name: buffer for name, buffer in network.named_buffers() if name not in scratch}
    tensors = {**dict(network.named_parameters()), **kept}
    for name, tensor in sorted(tensors.items()):
        if isinstance(tensor, nn.UninitializedParameter | nn.UninitializedBuffer):
            digest.update(f"{name} uninitialized\n".encode())
            continue
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        values = plain(tensor).cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _import_file(path: Path, spec: str) -> ModuleType:
    if not path.is_file():
        raise UnusableInput(f"there is no file {path}; give path/to/file.py:callable")
    if path.suffix != ".py":
        raise UnusableInput(f"{path} is no Python file; give path/to/file.py:callable")
    path = path.resolve()
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    # Under its own name, as an import from a neighbouring file would have it, unless another module has that.
    known = sys.modules.get(path.stem)
    same = getattr(known, "__file__", None) == str(path)
    free = same or (known is None and path.stem not in sys.stdlib_module_names)
    name = path.stem if free else f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        _guarded(partial(module_spec.loader.exec_module, module), f"importing {path} for {spec} raised")
    except BaseException:
        sys.modules.pop(name, None)
        if before is not None:
            sys.modules[name] = before
        raise
    return module


def _import_module(name: str, spec: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return _guarded(lambda: importlib.import_module(name), f"importing {name} for {spec} raised")
    except UnusableInput as error:
        cause = error.__cause__
        missing = cause.name if isinstance(cause, ModuleNotFoundError) else None
        if missing and f"{name}.".startswith(f"{missing}."):
            raise UnusableInput(
                f"there is no module {name!r}; give package.module:callable that can be imported from here, "
                "or path/to/file.py:callable"
            ) from cause
        raise


def _guarded(call: Callable[[], Any], what: str) -> Any:
    """Runs the user's code, whose exceptions become one line that names the user's own line."""
    try:
        return call()
    except (UnmaskError, torch.OutOfMemoryError):
        raise
    except BaseException as error:
        if wants_to_stop(error):
            raise
        raise UnusableInput(f"{what} {failure(error)}; make it run by itself first") from error


def _required(found: Callable[..., Any]) -> list[str]:
    """Parameters without a default."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):  # some builtins have no signature; calling them will tell
        return []
    catch_all = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.kind not in catch_all and p.default is p.empty]


def _near(module: ModuleType) -> str:
    own = [
        name
        for name, value in vars(module).items()
        if callable(value)
        and not name.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
    ]
    return f"; it has {', '.join(own[:8])}" if own else "; it defines no callable"
