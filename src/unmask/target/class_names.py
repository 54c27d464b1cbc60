"""What a network calls its classes, and whether the data call them the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from ..data import Data

_NUMBERED = re.compile(r"(label|class)?[ _-]?\d+", re.IGNORECASE)


def classes_of_network(network: object) -> tuple[str, ...]:
    """The names in the configuration of a Hugging Face classifier, wherever it stands in the network.

    Empty where there are none, or only numbers: `LABEL_0` names nothing.
    """
    for module in network.modules() if isinstance(network, nn.Module) else ():
        names = getattr(getattr(module, "config", None), "id2label", None)
        if not isinstance(names, Mapping) or not names:
            continue
        by_place = {int(k): str(v) for k, v in names.items() if str(k).isdecimal()}
        ordered = tuple(by_place.get(k, "") for k in range(len(names)))
        if all(ordered) and not all(_NUMBERED.fullmatch(name) for name in ordered):
            return ordered
    return ()


def in_order_of(network: object, data: Data) -> Data:
    """The data with labels by the network's names, where it knows all names of theirs and counts them otherwise.

    So a folder of three of ImageNet's classes, or one in the order of the alphabet, needs no renumbering. A note says
    what was done. Other data are returned as they are.

    **Arguments**
    - `network`: or a classifier, or any object that is none.
    """
    if not isinstance(network, nn.Module):
        # A classifier of ours, of which `verify` knows nothing.
        network = getattr(network, "network", network)
    known = [_plain(name) for name in classes_of_network(network)]
    own = [_plain(name) for name in data.class_names]
    places = [known.index(name) for name in own if known.count(name) == 1]
    unambiguous = len(places) == len(own) == len(set(own)) > 0
    if not unambiguous or places == list(range(len(own))) or bool((data.y >= len(own)).any()):
        return data
    moved = next(k for k, place in enumerate(places) if k != place)
    note = (
        f"labels follow the network's names for its classes: {data.class_names[moved]!r} is {places[moved]}, which the "
        f"data call {moved}; where these names are wrong, correct id2label in its configuration"
    )
    y = torch.tensor(places, device=data.y.device)[data.y]
    return replace(data, y=y, class_names=classes_of_network(network), notes=(*data.notes, note))


def otherwise_called(network: tuple[str, ...], data: tuple[str, ...]) -> str | None:
    """One line where network and data have the same names for other classes, or None.

    Names that only one of the two knows are no contradiction: "tabby" and "n02123045" may be one class.

    >>> otherwise_called(("Cat", "dog"), ("dog", "cat"))[:67]
    "2 of the data's 2 classes stand in other places of the network's: i"
    >>> otherwise_called(("cat", "dog"), ("Cat", "puppy"))
    """
    places = {_plain(name): place for place, name in enumerate(network)}
    moved = [(k, places[_plain(name)]) for k, name in enumerate(data) if places.get(_plain(name), k) != k]
    if not moved:
        return None
    label, place = moved[0]
    return (
        f"{len(moved)} of the data's {len(data)} classes stand in other places of the network's: its class {place} is "
        f"{network[place]!r}, which the data call {label}; right answers may count as wrong: bring the labels, or the "
        "outputs, into the other's order"
    )


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.split(",")[0]).strip().casefold()
