"""Where a network's activations are, read off one pass.

An activation is where a chain of element-wise operations on one layer's output, not all of them affine, ends. So
`nn.ReLU()`, `x.clamp(min=0)`, `torch.where(x > 0, x, 0)`, `x * (x > 0)`, `x / (1 + x.abs())` and `x.relu_()` are one
activation each, at the last operation of the chain.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..classifier import Network
from ..tracing.intercept.operations import NEW_LIKE, SHAPED_LIKE, tensors_in

# Element-wise, and affine where their other operands are constants.
PRODUCTS = frozenset("mul rmul imul multiply div truediv itruediv divide true_divide".split())
RECIPROCALS = frozenset(("rdiv", "rtruediv"))
AFFINE = (
    PRODUCTS | RECIPROCALS | frozenset("add radd iadd sub rsub isub subtract neg negative positive".split())
)
# Element-wise, the values as they are.
PASSING = frozenset(
    "clone contiguous to type type_as float double half bfloat16 alias identity dropout".split()
)
# Element-wise and not affine, whatever the operands.
CURVED = frozenset(
    "relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish softplus hardtanh hardswish hardsigmoid sigmoid "
    "tanh softsign logsigmoid log_sigmoid hardshrink softshrink tanhshrink threshold clamp clamp_min clamp_max clip "
    "maximum minimum max min fmax fmin where masked_fill abs absolute fabs exp exp2 expm1 log log2 log10 log1p sqrt "
    "rsqrt square pow rpow ipow float_power reciprocal sign sgn erf erfc sin cos tan atan arctan asinh sinh cosh "
    "sinc expit logit gt lt ge le eq ne greater less greater_equal less_equal heaviside logaddexp round floor ceil "
    "trunc frac remainder fmod bool logical_not logical_and logical_or setitem hypot copysign bitwise_and".split()
)  # fmt: skip
# Make a tensor of what is no tensor: what they give may come from the input by way of NumPy.
ENTRIES = frozenset(
    ("from_numpy", "as_tensor", "tensor", "asarray", "from_dlpack", "frombuffer", "new_tensor")
)

OURS = (__file__, str(Path(__file__).with_name("activations.py")))
# Who stands between a network's code and its layers: torch's way to call a module, and ours while a pass is traced.
_CALLING = (str(nn.modules.module.__file__), str(Path(__file__).parents[1] / "tracing"))
Place = tuple[str, tuple[tuple[int, int], ...]]


def activations_of(network: Network, x: Tensor) -> tuple[frozenset[Place], frozenset[Place]]:
    """The places of the activations in a pass on `x` `[batch, …]`, and of all operations that could be one.

    A place is an operation's name and where in the code it was called. The pass runs without gradients, and the
    global random numbers stay as they were.
    """
    planning = _Planning(x)
    with _samerandomness(), torch.no_grad(), planning:
        made = network(x.detach().clone())
    planning.leave(made)
    return frozenset(planning.ends), frozenset(planning.seen)


@dataclass(frozen=True)
class _Origin:
    """Where a tensor of the recorded pass comes from: the layer's output, and whether it was bent since."""

    root: int
    bent: bool
    place: Place | None  # of the operation that bent it last, or carried it on since


class _Planning(TorchFunctionMode):
    """Follows each layer's output through element-wise operations until another layer takes it."""

    def __init__(self, x: Tensor):
        super().__init__()
        self.batch = len(x)
        self.origins: dict[int, _Origin] = {}
        self.kept: list[Any] = []  # so that no identity is used twice
        self.roots = 0
        self.ends: set[Place] = set()
        self.seen: set[Place] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = plain_name(func)
        lent = () if name in NEW_LIKE else args[:1] if name in SHAPED_LIKE else (args, kwargs)
        given = [(t, self._origin(t)) for t in tensors_in(lent)]
        made = func(*args, **kwargs)
        known = [(t, o) for t, o in given if o is not None]
        if isinstance(made, Tensor) or name == "setitem":
            written = args[0] if name == "setitem" else made
            if isinstance(written, Tensor):
                self._one(name, written, known, [t for t, o in given if o is None])
        else:
            for tensor in tensors_in(made):
                self._new_layer(tensor, known)
        return made

    def leave(self, made: Any) -> None:
        """The network has returned."""
        outputs = made if isinstance(made, Tensor | tuple | list | dict) else getattr(made, "logits", None)
        for tensor in tensors_in(outputs):
            self._take(self._origin(tensor))

    def _origin(self, tensor: Tensor) -> _Origin | None:
        found = self.origins.get(id(tensor))
        images = tensor.ndim > 1 and len(tensor) == self.batch and not isinstance(tensor, nn.Parameter)
        if found is None and not self.roots and images:
            found = self._keep(tensor, _Origin(0, False, None))  # the input itself
            self.roots = 1
        return found

    def _one(
        self, name: str, made: Tensor, known: list[tuple[Tensor, _Origin]], others: list[Tensor]
    ) -> None:
        if name in ENTRIES:
            if made.ndim > 1 and len(made) == self.batch and made.is_floating_point():
                self._new_layer(made, [(made, _Origin(-1, False, None))])
            return
        if not known:
            return
        roots = {o.root for _, o in known}
        wide = [o for t, o in known if t.shape == made.shape]
        weighted = name in AFFINE and any(t.numel() > 1 for t in others)
        if len(roots) > 1 or len(wide) < len(known) or weighted or name not in AFFINE | PASSING | CURVED:
            self._new_layer(made, known)
            return
        place = place_of(name)
        self.seen.add(place)
        curves = name in CURVED or (name in PRODUCTS and len(wide) > 1) or name in RECIPROCALS
        bent = curves or any(o.bent for o in wide)
        at = place if name not in PASSING else next((o.place for o in wide if o.place), None)
        self._keep(made, _Origin(wide[0].root, bent, at if bent else None))

    def _new_layer(self, made: Tensor, known: list[tuple[Tensor, _Origin]]) -> None:
        """What takes several layers' outputs, or mixes one's elements, ends the chains that it takes."""
        for _, origin in known:
            self._take(origin)
        if known:
            self.roots += 1
            self._keep(made, _Origin(self.roots, False, None))

    def _take(self, origin: _Origin | None) -> None:
        if origin is not None and origin.bent and origin.place is not None:
            self.ends.add(origin.place)

    def _keep(self, tensor: Tensor, origin: _Origin) -> _Origin:
        self.kept.append(tensor)
        self.origins[id(tensor)] = origin
        return origin


def plain_name(func: Any) -> str:
    """`add` for `torch.add`, `Tensor.__add__`, `Tensor.add_` and `aten.add.Tensor`."""
    return getattr(func, "__name__", "").partition(".")[0].strip("_").removeprefix("special_")


def place_of(name: str) -> Place:
    """The operation's name with the code that called it, from the innermost frame to the network's caller.

    The same in a traced pass: or every activation would be new there, and the pass be made twice.
    """
    frame, steps = sys._getframe(1), []
    while frame is not None and frame.f_code.co_filename in OURS:
        frame = frame.f_back
    while frame is not None and frame.f_code.co_filename not in OURS:
        if not frame.f_code.co_filename.startswith(_CALLING):
            steps.append((id(frame.f_code), frame.f_lasti))
        frame = frame.f_back
    return name, tuple(steps)


@contextmanager
def _samerandomness() -> Iterator[None]:
    before = randomness()
    try:
        yield
    finally:
        put_back(before)


def randomness() -> tuple[Any, ...]:
    """The states of the global generators of torch, Python and NumPy."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return torch.get_rng_state(), random.getstate(), np.random.get_state(), cuda


def put_back(state: tuple[Any, ...]) -> None:
    """Sets the global generators to what `randomness` gave."""
    torch.set_rng_state(state[0])
    random.setstate(state[1])
    np.random.set_state(state[2])
    if state[3] is not None:
        torch.cuda.set_rng_state_all(state[3])
