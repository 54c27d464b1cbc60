"""The deployed prediction, as a stranger would ask for it: the mean over the claimed passes, and whether it answers.

Nothing of the audit's own door to the network, nor of its judge, is behind this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...errors import ModelFailed, UnmaskError
from ...foreign import failure, wants_to_stop
from ...state import State
from ...types import Outputs
from ..records import Control

Predict = Callable[[Tensor], tuple[Tensor, Tensor]]  # logits, and whether it answers at all


def module_of(target: Any) -> Any:
    """The user's network, which our own Classifier keeps in that field. A module's field is the module's own affair."""
    return target if isinstance(target, torch.nn.Module) else getattr(target, "network", target)


def deployed(
    network: Any,
    *,
    passes: int,
    batch_size: int,
    device: str,
    average: str | None = None,
    state: Sequence[str] = (),
) -> Predict:
    """What is averaged, summed over the passes, `[n, classes]`, and which examples are answered, `[n]`.

    `average` says what the answers of a pass become first: `probabilities` of logits, or `logits` of probabilities.
    What is named in `state` is put back before every pass: a network that remembers is judged as it is deployed, before
    anybody has asked it.
    """
    inner = module_of(network)
    if isinstance(inner, torch.nn.Module):
        inner.to(device)
    held = State(inner).only(state)

    def ask(batch: Tensor) -> tuple[Tensor, Tensor | None]:
        held.restore()
        logits, score = _asked(inner, batch, device)
        return (logits if passes == 1 else _averaged(logits, average)), score

    return partial(_predict, ask, passes, batch_size)


def between_calls(
    held: State, stated: Sequence[str], controls: Sequence[Control] = (), *, holds: bool
) -> str:
    """What the network keeps between calls, in words: what was put back, and, where something fails, what was not.

    Also which of the `controls` failed in the audit and stayed open: of a network that is no one function of the image,
    what was measured there need not show here, and nobody has forged anything.
    """
    put_back = ", ".join(f"`{name}`" for name in stated)
    others = [] if holds else [f"`{name}`" for name in held.changes() if name not in stated]
    said = [f"{put_back}: put back before every call"] if stated else []
    said += [f"{', '.join(others[:5])}: changed by calls, and not put back"] if others else []
    failed = [control.name for control in controls if control.passed is False and control.role == "open"]
    if failed and not holds:
        names = ", ".join(f"“{name}”" for name in failed)
        said.append(
            f"the report itself says that nothing follows from what survived, for {names} failed: what this "
            "network answers may depend on more than the image, so that it need not answer here as it did there"
        )
    return "; ".join(said)


def _averaged(logits: Tensor, average: str | None) -> Tensor:
    if average is None:
        return logits
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return logits.softmax(1) if average == "probabilities" else logits.clamp_min(1e-35).log()


def _predict(
    ask: Callable[[Tensor], tuple[Tensor, Tensor | None]], passes: int, batch_size: int, x: Tensor
) -> tuple[Tensor, Tensor]:
    said, answered = [], []
    for batch in x.split(batch_size) if len(x) else ():  # of nothing, torch makes one part
        logits, score = ask(batch)
        for _ in range(passes - 1):
            more, detected = ask(batch)
            logits = logits + more
            score = None if score is None or detected is None else score + detected
        accepted = torch.ones(len(batch), dtype=torch.bool) if score is None else (score <= 0).cpu()
        said.append(logits.cpu())
        # Minus infinity beside a finite logit is an answer: that class is impossible.
        possible = torch.isfinite(logits) | torch.isneginf(logits)
        answered.append(accepted & (possible.all(1) & torch.isfinite(logits).any(1)).cpu())
    if not said:
        return torch.zeros(0, 1), torch.zeros(0, dtype=torch.bool)
    return torch.cat(said), torch.cat(answered)


def _asked(inner: Any, batch: Tensor, device: str) -> tuple[Tensor, Tensor | None]:
    """One pass. What the user's code raises is told in one line with its place."""
    try:
        outputs = Outputs.of(inner(batch.clone().to(device)))
    except (UnmaskError, torch.OutOfMemoryError):
        raise
    except BaseException as error:
        if wants_to_stop(error):
            raise
        raise ModelFailed(f"the network raised {failure(error)}; make it run by itself first") from error
    if outputs is None or outputs.logits.ndim != 2 or len(outputs.logits) != len(batch):
        raise ModelFailed(
            "the network returned something else than logits [batch, classes]; it is not the audited one"
        )
    score = outputs.detector_score
    if score is not None and score.shape != (len(batch),):
        raise ModelFailed(
            f"the network returned detector scores of shape {list(score.shape)}; return [batch]"
        )
    return outputs.logits, score
