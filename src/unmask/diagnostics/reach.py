"""Whether autograd reaches a network's input."""

from __future__ import annotations

import torch
from torch import Tensor

from ..classifier import Classifier
from ..errors import ModelFailed, first_line
from ..gradients import Exact
from ..objectives import margin_loss
from ..randomness import Streams
from .base import Images, Labels


def gradient_error(classifier: Classifier, x: Images, y: Labels, streams: Streams) -> str | None:
    """Why autograd does not reach the input, or None if it does."""
    leaf = x.detach().clone().requires_grad_()
    try:
        if not _reached(classifier, leaf, streams):
            return "the network cuts the graph (detach, no_grad, or a trip through another library)"
        Exact().estimate(classifier, margin_loss, x, y, generator=streams.fork("gradient"))
    except torch.OutOfMemoryError:
        raise
    except ModelFailed as error:
        return str(error)
    except Exception as error:  # a user's own backward may raise anything
        return f"the backward pass raised {type(error).__name__}: {first_line(error)}"
    return None


def within_reach(classifier: Classifier, x: Images, y: Labels, streams: Streams) -> tuple[Classifier, str]:
    """The classifier that autograd goes through, and what it says of the network as it is if that is another.

    It refuses where the network changes in place what the way back needs, or one of several views.

    **Cost**: a gradient; two where it raises.
    """
    refused = _refusal(classifier, x, y, streams)
    if refused and not _refusal(other := classifier.replace(undisturbed=True), x, y, streams):
        return other, refused
    return classifier, ""


def _refusal(classifier: Classifier, x: Images, y: Labels, streams: Streams) -> str:
    """How taking a gradient fails; empty where it does not."""
    try:
        Exact().estimate(classifier, margin_loss, x, y, generator=streams.fork("within reach"))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a user's own backward may raise anything
        return first_line(error)
    return ""


def _reached(classifier: Classifier, leaf: Tensor, streams: Streams) -> bool:
    """Whether the graph of the logits ends in `leaf`. It is gone when this returns: two would be the audit's peak."""
    with torch.enable_grad():
        return _reaches(classifier(leaf, generator=streams.fork("gradient")).logits, leaf)


def _reaches(output: Tensor, leaf: Tensor) -> bool:
    """Whether the graph of `output` ends in `leaf`. A gradient of zero would not tell."""
    open_nodes, seen = [output.grad_fn], set()
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        if getattr(node, "variable", None) is leaf:
            return True
        seen.add(node)
        open_nodes += [following for following, _ in node.next_functions]
    return False
