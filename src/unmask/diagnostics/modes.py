"""Whether the network is set up as it is deployed: in float32, and not in train mode by accident."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..classifier import Classifier
from ..errors import ModelFailed, UnusableInput
from ..randomness import Streams


def sixteen_bits(network: object) -> str:
    """The first parameter that is kept in sixteen bits, in words; empty if there is none."""
    return _kept_as(network, torch.float16, torch.bfloat16)


def check_precision(network: object, error: ModelFailed) -> None:
    """No parameter in half or double precision, in a network that does not take float32 images.

    **Raises** `UnusableInput`.
    """
    found = sixteen_bits(network)
    way = "bfloat16" if found.endswith("bfloat16") else "half"
    # In double precision it may fail for another reason; torch speaks of types where that is the reason.
    if not found and re.search("double|dtype|scalar type", str(error)):
        found, way = _kept_as(network, torch.float64), "double"
    if found:
        raise UnusableInput(
            f"{found} and the network does not take float32 images; cast it with .float(), or its input inside "
            f"forward, as in self.net(x.{way}()).float()"
        ) from error


def _kept_as(network: object, *kinds: torch.dtype) -> str:
    for named in (nn.Module.named_parameters, nn.Module.named_buffers):
        for name, tensor in named(network) if isinstance(network, nn.Module) else ():
            if tensor.dtype in kinds:
                what = "parameter" if named is nn.Module.named_parameters else "buffer"
                return f"the {what} `{name}` is {str(tensor.dtype).removeprefix('torch.')}"
    return ""


def check_normalisation(network: object) -> None:
    """No layer that normalises by the batch at hand instead of by its running statistics.

    Runs nothing: one forward pass would already change those statistics.

    **Raises** `UnusableInput`.
    """
    if not isinstance(network, nn.Module):
        return
    for name, module in network.named_modules():
        # By the buffer, not by the class, so that other people's batch norms are seen too.
        if in_train_mode(module) and "running_mean" in dict(module.named_buffers(recurse=False)):
            raise UnusableInput(
                f"`{name or type(module).__name__}` ({type(module).__name__}) is in train mode, so "
                "predictions depend "
                "on the batch; call network.eval()"
            )


def check_train_mode(classifier: Classifier, x: Tensor, *, streams: Streams) -> None:
    """Not in train mode as a whole, as a network is that nobody has called `eval` on.

    Refuses only where every module is in train mode *and* that matters: there is a dropout layer, or outputs
    change under `eval`. Dropout left on in a network that is otherwise in eval mode is a defence, and a
    wrapper that was merely never switched is nothing.

    **Cost**: at most three forwards.
    **Raises** `UnusableInput`.
    """
    network = classifier.network
    if not isinstance(network, nn.Module) or not all(map(in_train_mode, network.modules())):
        return
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) or "dropout" in type(module).__name__.lower():
            raise UnusableInput(
                f"the network is in train mode and `{name or type(module).__name__}` "
                f"({type(module).__name__}) is active; call network.eval(), and if dropout is the "
                "defence, switch only that layer back "
                "with .train()"
            )

    def logits() -> Tensor:
        return classifier(x, generator=streams.fork("modes")).logits

    with torch.no_grad():
        as_given = logits()
        repeats = _close(as_given, logits())
        with in_eval_mode(network):
            in_eval = logits()
    # Randomness that nobody can seed changes everything, whatever the mode.
    if repeats and not _close(as_given, in_eval):
        raise UnusableInput(
            "the network is in train mode and predicts differently in eval mode; call network.eval()"
        )


def in_train_mode(module: nn.Module) -> bool:
    """Whether a module is in train mode; a frozen scripted one has no mode, which is evaluation's."""
    return getattr(module, "training", False)


def _close(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.allclose(first, second, rtol=1e-4, atol=1e-5, equal_nan=True)


@contextmanager
def in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Within the block every module is in evaluation mode; afterwards in the mode that it had."""
    # Flag by flag, not by `.eval()`: that runs the user's overrides of `train`, and could not be put back
    # exactly.
    flags = [(m, m.training) for m in network.modules() if hasattr(m, "training")]
    try:
        for module, _ in flags:
            module.training = False
        yield
    finally:
        for module, flag in flags:
            module.training = flag
