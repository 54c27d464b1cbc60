"""A target behind defences of ours: they are part of the network under audit."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..classifier import Classifier
from ..defenses import Composed
from ..defenses.names import parse
from ..errors import UnusableInput


def defended(built: Any, spec: str, defences: list[str]) -> Classifier:
    """A classifier behind defences by name, such as `jpeg(quality=75)`; an image goes through the first one first.

    **Raises** `UnusableInput` where `built` is no network, or there is no such defence.
    """
    if not isinstance(built, nn.Module | Classifier):
        raise UnusableInput(
            f"{spec} returned a {type(built).__name__}; return a torch.nn.Module to put {defences[0]} in front of"
        )
    classifier = built if isinstance(built, Classifier) else Classifier(built)
    return Composed([parse(text) for text in defences]).wrap(classifier)
