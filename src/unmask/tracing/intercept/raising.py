"""A network that rejects an input by raising an exception, followed past the comparison that made it raise."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...classifier import Network, seeded
from ...errors import Unsupported
from ...types import Outputs
from .operations import op_name
from .sites import is_user_file

Images = Float[Tensor, "batch *dims"]
Place = tuple[str, int, int]  # of a question: file, line, and how many were asked in that line before
PROBES = 8  # images of noise that show the guards before the first image is asked about; ours
# Which sign of left minus right makes the comparison true.
_COMPARED = {
    "gt": 1,
    "ge": 1,
    "greater": 1,
    "greater_equal": 1,
    "lt": -1,
    "le": -1,
    "less": -1,
    "less_equal": -1,
}
_MOVED = frozenset(
    "getitem squeeze unsqueeze reshape view flatten clone detach cpu to select contiguous".split()
)


class Raising(nn.Module):
    """A network that rejects by raising, as one that returns `Outputs`: the score is above zero where it raises.

    Such a network decides by comparisons, as in `if score > threshold: raise Rejected`. Each image is asked about by
    itself. Where the network raises, it runs again with the comparison before the raise answered the other way, until
    it returns logits. The score is the difference of the two sides compared, with its gradient; the largest, where
    several may raise. Until the network has raised once, on noise or on an image, it is -1.

    **Arguments**
    - `network`: returns logits, or raises.
    - `rejects_with`: the exception by which it rejects; any other one is a failure, as ever.

    **Cost**: a forward of each image by itself, another for each comparison that rejects it, and once 8 of noise.
    A classifier counts the first alone.
    **Raises** `Unsupported` where what the network asked before it raised is no comparison of tensors.
    **Source**: ours.

    >>> class Rejected(Exception): pass
    >>> def network(x):
    ...     if x.mean() > 0.5:
    ...         raise Rejected
    ...     return x.flatten(1)
    >>> Raising(network, Rejected)(torch.tensor([[[[0.0, 0.5]]], [[[1.0, 0.5]]]])).detector_score
    tensor([-0.2500,  0.2500])
    """

    def __init__(self, network: Network, rejects_with: type[Exception]):
        super().__init__()
        self.network, self.rejects_with = network, rejects_with
        self._guards: dict[Place, bool] = {}  # which questions led to a raise so far, and by which answer
        self._probed = False

    def forward(self, x: Images) -> Outputs:
        """Logits, and by how much the comparisons that reject are met."""
        if not self._probed:
            self._probed = True
            with seeded(0, x.device), torch.no_grad():
                for noise in torch.rand_like(x[:1].expand(PROBES, *x.shape[1:])).split(1):
                    self._one(noise)
        answers = [self._one(image) for image in x.split(1)]
        return Outputs(
            torch.cat([logits for logits, _ in answers]), torch.cat([score for _, score in answers])
        )

    def _one(self, x: Images) -> tuple[Tensor, Tensor]:
        """Logits `[1, classes]` and score `[1]` of one image."""
        state, turned = _random_state(x), set[Place]()
        while True:
            seen = _Questions(self._guards, turned)
            try:
                with seen:
                    logits = self.network(x.clone())  # asked again, it must see the same
                break
            except self.rejects_with as error:
                guard, answer = seen.last
                if guard in turned or answer is None:
                    raise Unsupported(
                        f"the network raised {type(error).__name__}, and what it asked before that is no comparison "
                        "of tensors, such as `if score > threshold`; return unmask.Outputs(logits, score) instead"
                    ) from error
                turned.add(guard)
                self._guards[guard] = answer
                _set_random_state(x, state)  # the same draws again
        assert isinstance(logits, Tensor)
        if not seen.excess:
            return logits, logits.new_full((1,), -1.0)
        score = reduce(torch.maximum, seen.excess).to(logits)
        # `>=` raises at zero, where a score does not reject yet.
        return logits, score + torch.finfo(score.dtype).tiny if turned else score


class _Questions(TorchFunctionMode):
    """Notes where Python asks whether a comparison holds, and answers some of these questions the other way.

    **Arguments**
    - `guards`: questions to watch, and the answer that leads to a raise.
    - `turned`: those to be answered the other way.

    **Fields**
    - `last`: the last question, and its true answer; None where it is about no comparison of tensors.
    - `excess`: of each guard, by how much its comparison leads to the raise.
    """

    def __init__(self, guards: dict[Place, bool], turned: set[Place]):
        super().__init__()
        self.guards, self.turned = guards, turned
        self.last: tuple[Place, bool | None] = ("", 0, 0), None
        self._asked: Counter[tuple[str, int]] = Counter()
        self.excess: list[Tensor] = []
        # A truth, kept alive, and what is positive where it holds.
        self._known: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name, kwargs = op_name(func).strip("_"), kwargs or {}
        result = func(*args, **kwargs)
        if name == "bool" or (name == "item" and isinstance(result, bool)):
            known = self._known.get(id(args[0]))
            return self.ask(None if known is None else known[1], bool(result))
        if name == "item" and isinstance(result, float):
            return _Number(args[0], self)
        if isinstance(result, Tensor):
            held = self._held(name, func, args, kwargs)
            if held is not None:
                self._known[id(result)] = result, held
        return result

    def ask(self, held: Tensor | None, answer: bool) -> bool:
        """The answer to one question, whose comparison is true where `held` is positive."""
        line = _line()
        place = (*line, self._asked[line])
        self._asked[line] += 1
        self.last = place, None if held is None else answer
        if held is not None and place in self.guards:
            self.excess.append(_largest(held) if self.guards[place] else -_least(held))
        return answer != (place in self.turned)

    def _held(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor | None:
        """What is positive where the result is true; None for anything but comparisons and what is made of them."""
        if name in _COMPARED and len(args) == 2:
            return _COMPARED[name] * (args[0] - args[1])
        parts = [self._known[id(a)][1] for a in args if id(a) in self._known]
        if not parts:
            return None
        if name in _MOVED:
            return func(parts[0], *args[1:], **kwargs)
        if name == "any":
            return _largest(parts[0])
        if name == "all":
            return _least(parts[0])
        if name in ("logical_not", "bitwise_not", "invert"):
            return -parts[0]
        if len(parts) == 2 and name in ("logical_or", "bitwise_or", "or"):
            return torch.maximum(*parts)
        if len(parts) == 2 and name in ("logical_and", "bitwise_and", "and"):
            return torch.minimum(*parts)
        return None


def _line() -> tuple[str, int]:
    """File and line of the user's code that is being executed."""
    frame = sys._getframe(1)
    while frame is not None and not is_user_file(frame.f_code.co_filename):
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("", 0)


def _largest(held: Tensor) -> Float[Tensor, " 1"]:
    return held.reshape(1, -1).amax(1)


def _least(held: Tensor) -> Float[Tensor, " 1"]:
    return held.reshape(1, -1).amin(1)


class _Number(float):
    """What `item()` hands out: a float whose comparisons are questions too."""

    def __new__(cls, tensor: Tensor, questions: _Questions) -> _Number:
        made = super().__new__(cls, tensor.detach())
        made.tensor, made.questions = tensor, questions  # type: ignore[attr-defined]
        return made

    def _ask(self, other: Any, sign: int, answer: bool) -> bool:
        return self.questions.ask(sign * (self.tensor - other), answer)  # type: ignore[attr-defined]

    def __gt__(self, other: Any) -> bool:
        return self._ask(other, 1, float(self) > other)

    def __ge__(self, other: Any) -> bool:
        return self._ask(other, 1, float(self) >= other)

    def __lt__(self, other: Any) -> bool:
        return self._ask(other, -1, float(self) < other)

    def __le__(self, other: Any) -> bool:
        return self._ask(other, -1, float(self) <= other)


def _random_state(x: Tensor) -> tuple[Any, ...]:
    device = torch.cuda.get_rng_state(x.device) if x.is_cuda else None
    return torch.get_rng_state(), device, np.random.get_state(), random.getstate()


def _set_random_state(x: Tensor, state: tuple[Any, ...]) -> None:
    torch.set_rng_state(state[0])
    if x.is_cuda:
        torch.cuda.set_rng_state(state[1], x.device)
    np.random.set_state(state[2])
    random.setstate(state[3])
