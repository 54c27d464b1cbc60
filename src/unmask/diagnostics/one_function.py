"""Whether modes of torch or of a part, frozen parameters, a copy or a place in memory give another function."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from ..classifier import Network
from ..errors import ModelFailed, UnusableInput
from ..types import Outputs
from .comparison import Comparison, Difference, asked
from .modes import in_eval_mode, in_train_mode


def modes(compare: Comparison) -> list[str]:
    """Whether autograd, inference or train mode, a freeze, a copy or a place in memory give another function.

    Returns a line for each that does and that has a sensible reading. Seeds are equal, so that random networks whose
    randomness can be seeded are compared, too.

    **Cost**: at most nine forwards of the points.
    **Raises** `UnusableInput` for those that have none.
    """
    classifier, points, network = compare.classifier, compare.points, compare.classifier.network
    every = torch.arange(len(points), device=points.x.device)

    def other(within: AbstractContextManager[object], answers: Callable[[], Tensor]) -> Difference | None:
        try:
            with within:
                found = answers()
        except ModelFailed:  # what a network cannot do under autograd, the gradient's own check says
            return None
        # Outside, where everything is as it was: the comparison may have to ask again.
        difference = compare.with_([(every, found)])
        return None if difference is None or difference.slight else difference

    def as_given() -> Tensor:
        return asked(classifier, points)

    def of_a_copy(within: AbstractContextManager[object]) -> Difference | None:
        twin = _copied(classifier.network)
        return (
            None if twin is None else other(within, lambda: asked(classifier.replace(network=twin), points))
        )

    def recorded(*, leaf: bool) -> Tensor:
        x = points.x.clone().requires_grad_(leaf)
        with torch.enable_grad():
            return classifier(x, generator=points.streams.fork("one function")).logits.detach()

    for leaf in (False, True):
        if found := other(nullcontext(), lambda leaf=leaf: recorded(leaf=leaf)):
            asks = "its input's gradient is asked for" if leaf else "autograd is on"
            raise UnusableInput(
                f"the network answers otherwise where {asks} ({found}): an attack sees one function and a user "
                f"another; {_way_to_one(network)}"
            )
    moved = classifier.replace(network=_Elsewhere(network))
    if found := other(nullcontext(), lambda: asked(moved, points)):
        raise UnusableInput(
            f"the network answers otherwise to an input that is part of a larger tensor ({found}): what it is "
            "given is sometimes one, as x[:1] is; take the question for the input's storage out of forward"
        )
    if not isinstance(network, nn.Module):
        return []
    said, trained = [], [name for name, module in network.named_modules() if in_train_mode(module)]
    if trained and classifier.deterministic and (found := other(in_eval_mode(network), as_given)):
        raise UnusableInput(
            f"`{trained[0]}` is in train mode, and the network answers otherwise in evaluation mode ({found}); call "
            "network.eval()"
        )
    for frozen in (True, False):
        if _others(network, frozen) and (found := other(_frozen(network, frozen), as_given)):
            state = "frozen" if frozen else "learning"
            said.append(
                f"the network answers otherwise with {state} parameters ({found}): they are judged as the target "
                "leaves them"
            )
    classifier.put_back()  # or a copy would have a memory of its own
    # One copy at a time: of a large network each takes as much memory as the network.
    if found := of_a_copy(nullcontext()):
        said.append(f"a deep copy of the network answers otherwise ({found}): the network itself is judged")
    # Of a copy, for what a network keeps of such a pass can take part in no other.
    elif found := of_a_copy(torch.inference_mode()):
        raise UnusableInput(
            f"the network answers otherwise in torch.inference_mode() ({found}): who deploys it there has another "
            "one than was attacked; take the question for it out of forward"
        )
    return said


def _way_to_one(network: Network) -> str:
    """What its owner does about a network whose answers depend on whether a gradient is asked for."""
    parts = network.modules() if isinstance(network, nn.Module) else ()
    if any(isinstance(p, nn.TransformerEncoder) or _scripted_name(p) == "TransformerEncoder" for p in parts):
        return (
            "torch's transformer encoder does so where tokens are padded, for its path without gradients fills "
            "them with zeros: build it with enable_nested_tensor=False, or, of one that is not scripted, call "
            "torch.backends.mha.set_fastpath_enabled(False) where the network is built, and deploy it so"
        )
    return "take the question for requires_grad or is_grad_enabled out of forward"


def _scripted_name(part: nn.Module) -> str:
    """What the class of a TorchScript module was called; empty for others."""
    return part.original_name if isinstance(part, torch.jit.ScriptModule) else ""


class _Elsewhere(nn.Module):
    """A network that is given its input as part of a larger tensor, at an odd place in memory."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor | Outputs:
        larger = x.new_zeros(x.numel() + 2)
        return self.network(larger[1:-1].view(x.shape).copy_(x))


def _others(network: nn.Module, frozen: bool) -> list[nn.Parameter]:
    """Parameters that are not in this state and can be."""
    own = network.parameters()
    return [p for p in own if p.requires_grad == frozen and p.is_leaf and p.is_floating_point()]


@contextmanager
def _frozen(network: nn.Module, frozen: bool) -> Iterator[None]:
    """Within the block all parameters are frozen, or none."""
    mine = _others(network, frozen)
    for p in mine:
        p.requires_grad_(not frozen)
    try:
        yield
    finally:
        for p in mine:
            p.requires_grad_(frozen)


def _copied(network: Network) -> Network | None:
    try:
        return copy.deepcopy(network)
    except Exception:  # a user's own way of copying may raise anything
        return None
