"""The audit: from a network and a claim to a report.

The room itself can be called, for `unmask.audit(network, x, y, norm="linf", epsilon="8/255")` is what people write
first, and an import of any file in here puts the room under that very name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # torch takes seconds to load, and most of this room needs none of the others
    from torch import Tensor, nn

    from ..classifier import Classifier, Network
    from .records import Report
    from .runtime.progress import Progress

_SHOWN = 60  # characters of what is no network


def audit(
    network: nn.Module | Classifier | Network,
    x: Tensor,
    y: Tensor,
    *,
    norm: Literal["linf", "l2", "l1", "l0", "l0-elements", "patch"],
    epsilon: float | str | Sequence[float],
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    attacks: Any = (),
    box: Any = None,
    kind: str | None = None,
    **options: Any,
) -> Report:
    """Audits a network on labelled examples and returns the report.

    **Arguments**
    - `network`: input as `x`, output logits `[batch, classes]`.
    - `x`: images `[n, channels, height, width]` in [0, 1], or vectors `[n, features]`, signals `[n, channels, time]`,
      volumes `[n, channels, depth, height, width]` in any range; `y`: `[n]`, integers. NumPy arrays will do.
    - `norm`, `epsilon`: the ball; the radius in units of the box, as a number or a fraction, or a list of one for each
      channel or feature.
    - `box`: what 0 and 1 of these units are: `(low, high)`, numbers or one for each feature; by default [0, 1], and for
      what is no image the range of `x`, feature by feature (channel by channel).
    - `kind`: `"signals"`, `"images"` or `"volumes"` where the shape of `x` leaves it open.
    - `out`: folder for the journal and `evidence.safetensors`; nothing is written without it.
    - `resume`: go on with the audit in `out`.
    - `progress`: is told what goes on; `attacks`: one or several of your own or another toolbox's, run
      beside the audit's.
    - `options`: the other fields of `unmask.claim.claim.Claim`: `claim`, `budget`, `seed`, `passes`, ...

    **Raises** `UnusableInput` or `ModelFailed` with one line: name, value, way out.

    >>> import torch, unmask
    >>> sign = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    >>> x = torch.rand(8, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    >>> report = unmask.audit(sign, x, sign(x).argmax(1), norm="linf", epsilon="1/255", budget="quick")
    >>> report.verdict, report.clean_accuracy
    ('not_refuted', 1.0)
    """
    import torch

    from ..claim.claim import parse_claim
    from ..data import Data, check
    from .run import audit as run

    _check_network(network)
    attacks = attacks if isinstance(attacks, Sequence) else [attacks]
    claim = parse_claim({"norm": norm, "epsilon": _plain(epsilon), **options}, "the call")
    inputs, labels, notes, unit = check(x, y, name="the data", kind=kind, box=box)
    data = Data(inputs, labels, "tensors", "", torch.arange(len(inputs)), notes=notes, box=unit)
    return run(network, data, claim, out=out, resume=resume, progress=progress, attacks=attacks)


def _check_network(network: Any) -> None:
    """**Raises** `UnusableInput` for what only names, makes or holds a network."""
    if isinstance(network, str | os.PathLike):
        way = "unmask.audit takes the network itself; in a shell, unmask audit takes its name"
    elif isinstance(network, type):
        way = f"give one that is made, as {network.__name__}() makes it, with its weights"
    elif not callable(network):
        inner = ", as its `model` may be" if hasattr(network, "model") else ""
        way = f"give a torch.nn.Module or a function of inputs that returns logits{inner}"
    else:
        return
    from ..errors import UnusableInput

    shown = f"{network!r}"
    raise UnusableInput(f"the network is {shown[:_SHOWN] + ' …' * (len(shown) > _SHOWN)}; {way}")


def _plain(epsilon: Any) -> Any:
    """A number or a text as it is; tensors, arrays and tuples as lists."""
    if isinstance(epsilon, tuple):
        return list(epsilon)
    return epsilon.tolist() if hasattr(epsilon, "tolist") else epsilon


class _Room(ModuleType):
    __call__ = staticmethod(audit)


sys.modules[__name__].__class__ = _Room
