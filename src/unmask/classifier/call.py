"""One call into somebody's network: what it is lent, what it may return, and whose failure an exception is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..errors import ModelFailed, UnmaskError, out_of_memory, said
from ..foreign import failure, wants_to_stop
from ..state.checkpointing import differentiable_checkpoints
from ..state.process import back_afterwards
from ..state.settings import modes
from ..types import Outputs

Network = Callable[[Tensor], "Tensor | Outputs"]


def called(network: Network, x: Tensor) -> Outputs:
    """Copies of what the network returns for a copy of `x`, read as logits.

    **Raises** `ModelFailed` with one line where it raises, or returns something else.
    """
    try:
        with back_afterwards(modes()), differentiable_checkpoints():
            outputs = network(lent(x))
    except (UnmaskError, torch.OutOfMemoryError):
        raise
    except BaseException as error:
        refuse_to_stop(error)
        raise ModelFailed(
            f"the network raised {failure(error)} (input of shape {list(x.shape)}); "
            "run it once on such an input yourself to see the whole traceback"
        ) from error
    read = Outputs.of(outputs)
    if read is None:
        raise ModelFailed(
            f"the network returned a {type(outputs).__name__}; return a tensor of logits [batch, classes], "
            "something that has one as `logits`, or unmask.Outputs(logits, detector_score)"
        )
    score = read.detector_score
    if score is not None and score.shape != (len(x),):
        raise ModelFailed(
            f"the network returned detector scores of shape {list(score.shape)} for {len(x)} images; return one "
            f"for each, [{len(x)}]"
        )
    return Outputs(_values(read.logits), None if score is None else _values(score))


def _values(found: Tensor) -> Tensor:
    """A plain copy: a subclass answers for itself when it is asked for its largest, whatever it holds.

    **Raises** `ModelFailed` for one that wraps other tensors, and so holds nothing itself.
    """
    if type(found) is Tensor:
        return found.clone()
    if is_traceable_wrapper_subclass(found):
        raise ModelFailed(
            f"the network returned a {type(found).__name__}, which wraps other tensors and answers for them; return a "
            "plain tensor, for instance its dequantize() or full_tensor()"
        )
    with torch._C.DisableTorchFunctionSubclass():
        return found.as_subclass(Tensor).clone()


def lent(x: Tensor) -> Tensor:
    """A copy for the network to do with as it likes; under autograd no leaf, but one that gets its `.grad`."""
    x = x.clone()
    if x.requires_grad and not x.is_leaf:
        x.retain_grad()  # for defences that take a gradient step of their own and read `x.grad`
    return x


def refuse_to_stop(error: BaseException) -> None:
    """Raises what is not the network's failure again: a person's wish to stop, and want of memory."""
    if wants_to_stop(error):
        raise error
    if isinstance(error, torch.OutOfMemoryError):
        raise error
    if out_of_memory(error):
        raise torch.OutOfMemoryError(said(error)) from error
