"""`.pt`, `.pth`, `.pth.tar`, `.safetensors`, …: TorchScript archives, and state dicts for a class that `arch` names."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnusableInput, first_line
from .batches import FixedBatch
from .preprocessing import Preprocessing, SourceOptions, logits_of


def open_file(place: str, options: SourceOptions) -> tuple[nn.Module, Preprocessing]:
    """A TorchScript network, or the class `arch` with the weights of the file. Nothing pickled is run.

    **Raises** `UnusableInput` where the file is missing, needs `arch`, or names do not match: all are shown.
    """
    path = Path(place).expanduser()
    if not path.is_file():
        raise UnusableInput(f"there is no file {path}; give weights or a TorchScript network")
    if options.arch is None:
        if not _is_script(path):
            raise UnusableInput(
                f"{path} holds weights without a network; name its class, for instance --arch net.py:Net"
            )
        return _scripted(path), Preprocessing()
    from ..target.load import called  # here, for that file asks this room for sources

    network, _ = called(options.arch)
    if not isinstance(network, nn.Module):
        raise UnusableInput(
            f"--arch {options.arch} returned a {type(network).__name__}; return a torch.nn.Module"
        )
    fill(network, _weights(path), str(path), options.part)
    return network.eval(), Preprocessing()


def fill(network: nn.Module, weights: Mapping[str, Tensor], name: str, part: str | None = None) -> None:
    """Loads weights under whatever prefix a wrapper gave their names. All keys must match, buffers of counts aside.

    **Arguments**
    - `part`: prefix of the weights to load, of a file that holds several, such as a moving average beside the last.
    """
    wanted = network.state_dict()
    found = _whole(weights, wanted)
    if part is not None:
        stem = part.rstrip(".") + "."
        found = {p: w for p, w in found.items() if p.startswith(stem)}
        weights = {k.removeprefix(stem): v for k, v in weights.items() if k.startswith(stem)}
        if not weights:
            raise UnusableInput(f"{name} has no weights whose names begin with {stem}; give another part")
    if len(found) > 1 and not _same(list(found.values())):
        parts = [p.rstrip(".") or "its own names" for p in found]
        choice = next(p for p in reversed(parts) if p != "its own names")
        raise UnusableInput(
            f"{name} holds {len(found)} sets of weights that fit the network: {', '.join(parts)}; say which one is "
            f"meant, as in \"{name}(part='{choice}')\""
        )
    best = next(iter(found.values()), None) or _nearest(weights, wanted)
    missing = [k for k in _needed(wanted) if k not in best]
    beyond = [k for k in best if k not in wanted]
    odd = [
        f"{k} {list(best[k].shape)} instead of {list(v.shape)}"
        for k, v in wanted.items()
        if k in best and best[k].shape != v.shape
    ]
    if missing or beyond or odd:
        said = [
            f"{what}: {', '.join(keys)}"
            for what, keys in (("missing", missing), ("unknown", beyond), ("other shapes", odd))
            if keys
        ]
        raise UnusableInput(
            f"the weights of {name} do not fit the network ({'; '.join(said)}); give its own class"
        )
    network.load_state_dict(best, strict=False)


def _needed(wanted: Mapping[str, Tensor]) -> list[str]:
    return [k for k in wanted if not k.endswith("num_batches_tracked")]


def _whole(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Each prefix under which all names of the network stand in the file, with what stands under it."""
    needed = _needed(wanted)
    prefixes = [k.removesuffix(needed[0]) for k in weights if k.endswith(needed[0])] if needed else []
    return {
        prefix: {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        for prefix in prefixes
        if (not prefix or prefix.endswith("."))
        and all(prefix + k in weights and weights[prefix + k].shape == wanted[k].shape for k in needed)
    }


def _same(sets: Sequence[Mapping[str, Tensor]]) -> bool:
    first, *others = sets
    return all(
        first.keys() == other.keys() and all(torch.equal(first[k], other[k]) for k in first)
        for other in others
    )


def _nearest(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Of names that do not fit, those to show: without what holds and wraps the part that has most of them."""
    needed = _needed(wanted)
    found = [weights]
    for name in weights:
        for key in needed:
            if name.endswith("." + key):
                prefix = name.removesuffix(key)
                found.append({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
                break
    return max(found, key=lambda each: sum(k in each for k in needed))


def _weights(path: Path) -> Mapping[str, Tensor]:
    if path.suffix.lower() == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise UnusableInput(f"{path} is no safetensors file ({first_line(error)})") from error
    if _is_script(path):
        return torch.jit.load(path, map_location="cpu").state_dict()
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnusableInput(
            f"{path} holds more than tensors, and reading it would run the code inside; save "
            "network.state_dict() by itself, best as safetensors"
        ) from error
    except (RuntimeError, EOFError, ValueError) as error:
        raise UnusableInput(
            f"{path} cannot be read ({first_line(error)}); save the state dict again"
        ) from error
    named = dict(_named(content)) if isinstance(content, Mapping) else {}
    if not named:
        found = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise UnusableInput(f"{path} holds {found}; it must hold a state dict: names and tensors")
    return named


def _named(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor of nested dicts by its whole name: `state_dict`, where scripts save it, is a prefix like any."""
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from _named(value, f"{prefix}{key}.")


def _scripted(path: Path) -> nn.Module:
    """A TorchScript network; one that was traced with a batch whose size it keeps is asked in batches of that size."""
    network = torch.jit.load(path, map_location="cpu").eval()
    shape = _traced_with(path)
    if shape is None or len(shape) < 2:
        return network
    x = torch.zeros(shape)
    with torch.no_grad():
        fixed = _answers(network, x) and not _answers(network, torch.cat([x, x]))
    return FixedBatch(network, shape[0]) if fixed else network


def _traced_with(path: Path) -> list[int] | None:
    """Shape of the images that a network was traced with; None where it was scripted, or takes more than images."""
    with zipfile.ZipFile(path) as archive:
        if not any("/traced_inputs" in name for name in archive.namelist()):
            return None
    try:
        # Traced once more with what the archive remembers of its inputs, which is their shape.
        again = torch.jit.load(path, map_location="cpu", _restore_shapes=True)
        _, *inputs = again.graph.inputs()
        return inputs[0].type().sizes() if len(inputs) == 1 else None
    except RuntimeError:  # of another version of torch, say; then it is asked as it is
        return None


def _answers(network: nn.Module, x: Tensor) -> bool:
    """Whether a network says something of every image."""
    try:
        said = logits_of(network(x))
    except RuntimeError:
        return False
    return isinstance(said, Tensor) and len(said) == len(x)


def _is_script(path: Path) -> bool:
    """A TorchScript archive has code beside its constants; a saved state dict is pickled data alone."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())
