"""Words that every room of the house shares: a forward pass's outputs and the shapes of things."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

# What a prediction over several passes is a mean of.
Average = Literal["logits", "probabilities"]


@dataclass(frozen=True)
class Outputs:
    """What a classifier says about a batch.

    A network may return one of these instead of a bare logits tensor when it also has a detector.

    **Fields**
    - `logits`: `[batch, classes]`, unnormalised.
    - `detector_score`: `[batch]` or None. An input is **rejected where the score is above zero**; shift your
      detector by its threshold. A rejected input is never a success of the attack. A network with a class for it
      says so by `with_reject_class`, one that raises an exception by `unmask.Raising`.
    """

    logits: Float[Tensor, "batch classes"]
    detector_score: Float[Tensor, " batch"] | None = None

    @classmethod
    def of(cls, returned: Any) -> Outputs | None:
        """What a network returned, read as logits: None where there is nothing to read.

        Read are tensors and NumPy arrays, anything with a tensor or array `logits`, and mappings that have one; what
        lies sparse or quantised in memory as the numbers it stands for; whole numbers, such as votes for each class, as
        floats. Scores may be `[batch, 1]`, as a linear layer
        gives them.

        >>> import torch
        >>> Outputs.of({"loss": None, "logits": torch.zeros(1, 2)}).logits
        tensor([[0., 0.]])
        """
        if isinstance(returned, Outputs):
            logits, score = _floats(strided(returned.logits)), returned.detector_score
            return cls(logits, _one_each(score if score is None else strided(score), logits))
        score = None
        if not isinstance(returned, Tensor | np.ndarray):
            kept = returned if isinstance(returned, Mapping) else getattr(returned, "__dict__", {})
            logits = kept.get("logits", getattr(returned, "logits", None))
            score = kept.get("detector_score", getattr(returned, "detector_score", None))
            returned = logits
        if isinstance(returned, np.ndarray):
            returned = torch.from_numpy(returned.astype(np.float32, copy=False))
        if not isinstance(returned, Tensor):
            return None
        returned = _floats(strided(returned))
        return cls(returned, _one_each(strided(score), returned) if isinstance(score, Tensor) else None)

    @classmethod
    def with_reject_class(cls, logits: Float[Tensor, "batch outputs"], reject: int) -> Outputs:
        """For a network that rejects by a class of its own: an input is rejected where that logit is the largest.

        **Arguments**
        - `reject`: the column of the class that means "rejected"; the other columns are the classes, in their order.

        >>> import torch
        >>> outputs = Outputs.with_reject_class(torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 4.0]]), reject=2)
        >>> outputs.logits.argmax(1).tolist(), (outputs.detector_score > 0).tolist()
        ([1, 1], [False, True])
        """
        column = reject % logits.shape[1]
        kept = logits[:, [k for k in range(logits.shape[1]) if k != column]]
        return cls(kept, logits[:, column] - kept.amax(1))

    def __getitem__(self, index: Tensor) -> Outputs:
        score = self.detector_score
        return Outputs(self.logits[index], None if score is None else score[index])

    def detach(self) -> Outputs:
        score = self.detector_score
        return Outputs(self.logits.detach(), None if score is None else score.detach())


@dataclass(frozen=True)
class SelfCertificate:
    """What a defence can prove about its own deployed predictions, whatever attacks it.

    **Fields**
    - `rate`: `[batch]`, in [0, 1]: lower bounds of the probability, over the draws of one deployed prediction, that
      an example is right at every allowed input; 0 where nothing is proved.
    - `alpha`: probability that any of these bounds is wrong; 0 for a proof without sampling.
    - `words`: what was proved and by whom, in one sentence.
    """

    rate: Float[Tensor, " batch"]
    alpha: float
    words: str


def _floats(logits: Tensor) -> Tensor:
    """Whole numbers `[batch, classes]` as floats of the least width that holds them; all else as it is."""
    if logits.ndim != 2 or logits.is_floating_point() or logits.is_complex():
        return logits
    return logits.to(torch.float64 if logits.dtype in (torch.int32, torch.int64) else torch.float32)


def _one_each(score: Any, logits: Tensor) -> Any:
    """Scores as `[batch]` where there is one for each image, in whatever shape; else as they are."""
    if isinstance(score, Tensor) and logits.ndim > 0 and score.ndim > 1 and score.numel() == len(logits):
        return score.flatten()
    return score


def per_example(values: Tensor, like: Tensor) -> Tensor:
    """Views `[batch]` as `[batch, 1, …]` so that it broadcasts over `like`.

    >>> import torch
    >>> per_example(torch.ones(2), torch.zeros(2, 3, 4, 4)).shape
    torch.Size([2, 1, 1, 1])
    """
    return values.reshape(-1, *[1] * (like.ndim - 1))


def strided(tensor: Tensor) -> Tensor:
    """The same values in ordinary memory, with their graph; rows of different lengths filled up with NaN.

    >>> import torch
    >>> strided(torch.eye(2, requires_grad=True).to_sparse()).layout
    torch.strided
    """
    if tensor.is_nested:
        return torch.nested.to_padded_tensor(tensor, torch.nan)
    if tensor.is_quantized:
        return tensor.dequantize()
    return tensor if tensor.layout == torch.strided else tensor.to_dense()


def plain(tensor: Tensor) -> Tensor:
    """A tensor's values in ordinary memory, without its graph: sparse ones filled up, quantised ones as numbers.

    Of a subclass that wraps other tensors (a library's quantised weight), which need not know a single operation on
    its values: the values of all that it wraps, one after the other, as float64 `[n]`.

    >>> import torch
    >>> plain(torch.eye(2).to_sparse()).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    if is_traceable_wrapper_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()
        values = [plain(getattr(tensor, name)).double().flatten() for name in names]
        return torch.cat(values) if values else torch.zeros(0, dtype=torch.float64)
    return strided(tensor.detach())
