"""What a network returns: refused where it is no logits, and told what kind of answer it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import binomtest
from torch import Tensor

from ..classifier import Classifier
from ..errors import ModelFailed, UnusableInput
from ..randomness import Streams
from ..types import Outputs
from .base import Images
from .memory import FIRST
from .modes import check_precision
from .readings import runs_with, runs_with_channels

# Most members of an ensemble whose votes are told from probabilities. Ours.
BALLOTS = 128


def predicted(classifier: Classifier, x: Images, parts: Sequence[Tensor], streams: Streams) -> Outputs:
    """The deployed predictions of all examples."""
    found = [classifier.predict(x[part], generator=streams[part].fork("clean")) for part in parts]
    scores = [o.detector_score for o in found if o.detector_score is not None]
    return Outputs(torch.cat([o.logits for o in found]), torch.cat(scores) if scores else None)


def unread(classifier: Classifier, x: Images, streams: Streams) -> tuple[str, ...]:
    """Names of what a network returns beside its logits, a number for each image, and nobody reads.

    **Cost**: one forward of `x`.
    """
    found: list[str] = []

    def watched(images: Tensor) -> Tensor | Outputs:
        returned = classifier.network(images)
        found.extend(str(name) for name, value in _parts(returned) if _one_each(name, value, len(images)))
        return returned

    _forward(classifier.replace(network=watched, alone=False), x, streams.fork("unread"))
    return tuple(found)


def _parts(returned: object) -> Iterable[tuple[object, object]]:
    """What a mapping, a record or a named tuple holds, by name."""
    if isinstance(returned, Mapping):
        return returned.items()
    if isinstance(returned, tuple):
        return zip(getattr(returned, "_fields", ()), returned, strict=False)
    return () if isinstance(returned, Tensor | np.ndarray) else getattr(returned, "__dict__", {}).items()


def _one_each(name: object, value: object, examples: int) -> bool:
    """Whether it may be a detector's score that is called otherwise."""
    mine = name in ("logits", "detector_score") or "loss" in str(name)
    return (
        not mine
        and isinstance(value, Tensor | np.ndarray)
        and tuple(value.shape) in ((examples,), (examples, 1))
    )


def _forward(classifier: Classifier, x: Tensor, streams: Streams) -> Outputs:
    with torch.no_grad():
        return classifier(x, generator=streams)


def check_shape(classifier: Classifier, x: Images, streams: Streams) -> Tensor:
    """Refuses what is no logits; returns those of `x`."""
    try:
        logits = _forward(classifier, x, streams.fork(FIRST)).logits
    except ModelFailed as error:
        if x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
            raise UnusableInput(
                f"`x` has shape {list(x.shape)}, channels last, and {error}; give channels first: "
                "x.permute(0, 3, 1, 2)"
            ) from error
        check_precision(classifier.network, error)
        _refuse_one_size(error)
        if found := runs_with(classifier, x[:2], streams[:2]):
            raise UnusableInput(
                f"{error}; it runs with {found}: give that, or do the same inside the network"
            ) from error
        if channels := runs_with_channels(classifier, x[:2], streams[:2]):
            raise UnusableInput(
                f"{error}; it runs with images of {channels} channel{'s' * (channels > 1)}: write "
                f"(channels={channels}) behind the name of pictures, --data 'NAME(channels={channels})', or convert "
                "inside the network"
            ) from error
        raise
    shape = list(logits.shape)
    if logits.ndim != 2 or len(logits) != len(x) or shape[1] < 1:
        raise UnusableInput(
            f"the network returned shape {shape} for {len(x)} images; return logits [{len(x)}, classes]"
        )
    if shape[1] == 1:
        raise UnusableInput(
            "the network returns 1 class; return one logit per class: torch.cat([-z / 2, z / 2], 1) for a "
            "sigmoid's z"
        )
    if not logits.is_floating_point():
        raise UnusableInput(f"the network returned {logits.dtype} outputs; return logits as float32")
    try:
        single = list(_forward(classifier, x[:1], streams[:1].fork("shape")).logits.shape)
    except ModelFailed as error:
        _refuse_one_size(error)
        raise UnusableInput(
            f"the network takes {len(x)} images but not one alone: {error}; predictions must not depend "
            "on the batch"
        ) from error
    if single != [1, shape[1]]:
        raise UnusableInput(
            f"the network returned shape {single} for one image; return [1, {shape[1]}] (a bare "
            ".squeeze() drops it)"
        )
    return logits


def _refuse_one_size(error: ModelFailed) -> None:
    """**Raises** `UnusableInput` for a program of `torch.export` whose guard on the number of images did not hold."""
    if "Guard failed" in str(error):
        raise UnusableInput(
            f"the network was exported for one batch size; export it with a dynamic batch dimension ({error})"
        ) from error


def check_logits(logits: Float[Tensor, "batch classes"]) -> tuple[bool, bool]:
    """Refuses what is no logit. Whether all rows are one-hot, or shares of a few ballots; whether they sum to one."""
    nan = int(torch.isnan(logits).any(1).sum())
    infinite = int(torch.isinf(logits).any(1).sum())
    if nan or infinite:
        raise UnusableInput(
            f"the network returns NaN for {nan} and infinite logits for {infinite} of {len(logits)} clean "
            "images: a "
            "defect of the model, which no attack may count as success; repair it (a log of 0, a division "
            "by 0?)"
        )
    inside = (logits >= 0).all() & (logits <= 1).all()
    sums = logits.double().sum(1)
    if not inside or not torch.allclose(sums, torch.ones_like(sums), atol=1e-2):
        return False, False
    return any(_shares(logits, ballots) for ballots in range(1, BALLOTS + 1)), True


def _shares(logits: Float[Tensor, "batch classes"], ballots: int) -> bool:
    """Whether every entry is a whole number of `ballots`-ths: an ensemble's votes, which are labels and no scores."""
    return bool(((logits * ballots).round() / ballots).sub(logits).abs().le(1e-6 * logits).all())


def check_claim(accuracy: float, examples: int, claim: float, meant: str = "") -> None:
    """**Raises** `UnusableInput` for a clean accuracy that is surely below what is claimed under attack.

    `meant`: what `readings.meant` says of it.
    """
    right = round(accuracy * examples)
    highest = float(binomtest(right, examples).proportion_ci(0.95).high)
    if highest < claim:
        raise UnusableInput(
            f"clean accuracy is {accuracy:.1%} ({right} of {examples}, at most {highest:.1%} with 95 % "
            "confidence), below "
            f"the claim of {claim:.1%} under attack; {meant or 'check preprocessing, label order and weights'}, or "
            "lower the claim"
        )
