"""`.pt`, `.pth`, `.pth.tar`, `.safetensors`, …: TorchScript archives, and state dicts for a class that `arch` names."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnusableInput, first_line
from .batches import FixedBatch
from .preprocessing import Preprocessing, SourceOptions, logits_of

# Where training scripts put the weights inside what they save.
_CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "network", "ema", "module", "weights")
# What wrappers put in front of each name.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "classifier.")


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
    fill(network, _weights(path), str(path))
    return network.eval(), Preprocessing()


def fill(network: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Loads weights under whatever prefix a wrapper gave their names. All keys must match, buffers of counts aside."""
    wanted = network.state_dict()
    best = max(_spellings(weights), key=lambda each: len(each.keys() & wanted.keys()))
    missing = [k for k in wanted if k not in best and not k.endswith("num_batches_tracked")]
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


def _spellings(weights: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """The names as they are, and with each prefix that all of them share taken off, again and again."""
    found, names = [dict(weights)], dict(weights)
    while True:
        prefix = next((p for p in _PREFIXES if names and all(k.startswith(p) for k in names)), None)
        if prefix is None:
            break
        names = {k.removeprefix(prefix): v for k, v in names.items()}
        found.append(names)
    for prefix in _PREFIXES:  # a checkpoint of several parts, of which this is one
        part = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        if part and len(part) < len(weights):
            found.append(part)
    return found


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
    while isinstance(content, Mapping) and not _tensors(content):
        inner = next((content[k] for k in _CONTAINERS if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not _tensors(content):
        found = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise UnusableInput(f"{path} holds {found}; it must hold a state dict: names and tensors")
    return {str(k): v for k, v in content.items() if isinstance(v, Tensor)}


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


def _tensors(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in content.values())


def _is_script(path: Path) -> bool:
    """A TorchScript archive has code beside its constants; a saved state dict is pickled data alone."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())
