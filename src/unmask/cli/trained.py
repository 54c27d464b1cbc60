"""Networks that `unmask train` is given, instead of building one of its own, and what it writes of either."""

from __future__ import annotations

import argparse
import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UnusableInput
from ..foreign import failure
from .architectures import target_file

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data import Data


def given_network(spec: str, data: Data) -> nn.Module:
    """The module that a Python callable returns, with the weights that it has: training goes on from these.

    **Raises** `UnusableInput` where it is no module, has nothing to train, fails on two images of `data`, or does
    not return one logit for each class.
    """
    import torch
    from torch import nn

    from ..sources import is_source
    from ..target.target import load_target

    if is_source(spec) or " + " in spec:
        raise UnusableInput(
            f"{spec} cannot be trained as it stands; give file.py:callable or package.module:callable that returns it"
        )
    network = load_target(spec).network
    if not isinstance(network, nn.Module):
        raise UnusableInput(f"{spec} returned a {type(network).__name__}; training needs a torch.nn.Module")
    if not any(p.requires_grad for p in network.parameters()):
        raise UnusableInput(f"{spec} has no parameter that asks for a gradient; there is nothing to train")
    images, needed = data.x[:2], int(data.y.max()) + 1
    with torch.no_grad():
        logits = _logits(network.eval(), images, needed, spec)
    if bool(((logits >= 0) & (logits <= 1)).all()) and torch.allclose(
        logits.sum(1), torch.ones(2), atol=1e-4
    ):
        raise UnusableInput(f"{spec} returns probabilities; return logits, without the soft-max, to train it")
    # Of a copy, for this pass moves what batch normalisation has counted. Some networks return more while they train.
    with torch.enable_grad():
        trained = _logits(copy.deepcopy(network).train(), images, needed, f"{spec} in training mode")
    if not trained.requires_grad:
        raise UnusableInput(
            f"{spec} returns logits without a gradient (detached?); there is nothing to train by"
        )
    return network


def _logits(network: nn.Module, images: Tensor, needed: int, spec: str) -> Tensor:
    """What the network says of two images. **Raises** `UnusableInput` where these are not their logits."""
    import torch

    try:
        logits = network(images.clone())
    except Exception as error:
        raise UnusableInput(
            f"{spec} fails on images of shape {list(images.shape[1:])}: {failure(error)}"
        ) from error
    shape = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if not isinstance(shape, list) or len(shape) != 2 or shape[0] != len(images):
        raise UnusableInput(f"{spec} returns {shape} for two images; return logits, [batch, classes]")
    if shape[1] < needed:
        raise UnusableInput(f"{spec} returns {shape[1]} logits, and the labels name {needed} classes")
    return logits


def write_network(arguments: argparse.Namespace, network: Any, shape: list[int], classes: int) -> Path:
    """Writes the weights, and beside them a target for `unmask audit`, whose path is returned."""
    from safetensors.torch import save

    # Copies: two names may share their memory, and safetensors refuses that.
    weights = {name: t.cpu().contiguous().clone() for name, t in network.state_dict().items()}
    (arguments.out / "network.safetensors").write_bytes(save(weights))
    target = arguments.out / "network.py"
    if arguments.target is None:
        content = target_file(arguments.arch or "cnn", shape, classes)
    else:
        content = target_of_given(arguments.target, arguments.out)
    target.write_text(content, encoding="utf-8")
    return target


def target_of_given(spec: str, folder: Path) -> str:
    """A Python file whose `network` builds the given network anew and loads the weights beside it.

    >>> print(target_of_given("nets.mine:build", Path("out")).splitlines()[-3])
        built = load_target('nets.mine:build').network
    """
    place, _, name = spec.rpartition(":")
    named = repr(spec)
    if place.endswith(".py") or "/" in place:
        beside = os.path.relpath(Path(place).expanduser().resolve(), folder.resolve())
        named = f"str(HERE / {beside!r}) + {f':{name}'!r}"
    return f'''"""The network that `unmask train` wrote beside this file; the code that builds it stays where it was."""

from pathlib import Path

from safetensors.torch import load_file

from unmask.target.target import load_target

HERE = Path(__file__).resolve().parent


def network():
    """In eval mode."""
    built = load_target({named}).network
    built.load_state_dict(load_file(HERE / "network.safetensors"))
    return built.eval()
'''
