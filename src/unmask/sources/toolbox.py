"""`art:file.py:classifier`, `foolbox:file.py:model`: what other toolboxes wrap, with their preprocessing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..built_at import built_as, watched
from ..errors import UnusableInput
from .missing import optional
from .preprocessing import Preprocessing, SourceOptions, logits_of


def open_art(place: str, options: SourceOptions) -> tuple[nn.Module, Preprocessing]:
    """An ART `PyTorchClassifier`: its network behind its preprocessing, scaled to the range of its `clip_values`.

    Preprocessing defences that are torch modules differentiate; those in NumPy are run as ART runs them, which cuts
    the gradient: that is what an audit names.
    """
    base: Any = optional("art.defences.preprocessor.preprocessor", "peers", "an ART classifier")
    with watched(base.Preprocessor):
        found = _named(place)
    if not hasattr(found, "clip_values") or not isinstance(getattr(found, "_model", None), nn.Module):
        raise UnusableInput(
            f"art:{place} is a {type(found).__name__}; give an art.estimators.classification.PyTorchClassifier"
        )
    if getattr(found, "postprocessing_defences", None):
        raise UnusableInput(
            f"art:{place} has postprocessing defences, which answer in NumPy; wrap predict in a module of your own"
        )
    return ArtNetwork(found), Preprocessing()


class ArtStep(nn.Module):
    """One of ART's preprocessing operations. Its line is the one on which the operation was built."""

    def __init__(self, operation: Any):
        super().__init__()
        base: Any = optional("art.defences.preprocessor.preprocessor", "peers", "an ART classifier")
        self.operation, self.in_torch = operation, isinstance(operation, base.PreprocessorPyTorch)
        built_as(self, operation)

    def forward(self, x: Tensor) -> Tensor:
        if self.in_torch:
            return self.operation.forward(x, None)[0]
        answer, _ = self.operation(x.detach().cpu().numpy(), None)
        return torch.as_tensor(answer, device=x.device)


class ArtNetwork(nn.Module):
    """The network of an ART classifier behind the preprocessing that its `predict` applies.

    **Fields**: `scale`, `offset`: from [0, 1] to the classifier's own range.
    """

    def __init__(self, classifier: Any):
        super().__init__()
        low, high = (0.0, 1.0) if classifier.clip_values is None else classifier.clip_values
        self.offset, self.scale = float(_least(low)), float(_most(high)) - float(_least(low))
        self.network = classifier._model._model if hasattr(classifier._model, "_model") else classifier._model
        self.steps = nn.ModuleList(ArtStep(o) for o in classifier.preprocessing_operations if o.apply_predict)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.scale + self.offset
        for step in self.steps:
            x = step(x).to(torch.float32)  # as ART does: its statistics are float64
        return logits_of(self.network(x))


def open_foolbox(place: str, options: SourceOptions) -> tuple[nn.Module, Preprocessing]:
    """A Foolbox `PyTorchModel`: its network behind its preprocessing, scaled to its bounds."""
    found = _named(place)
    # Foolbox keeps the network in the closure of the function that it calls.
    cells = getattr(getattr(found, "_model", None), "__closure__", None) or ()
    networks = [c.cell_contents for c in cells if isinstance(c.cell_contents, nn.Module)]
    if not networks or not hasattr(found, "bounds"):
        raise UnusableInput(f"foolbox:{place} is a {type(found).__name__}; give a foolbox.PyTorchModel")
    return FoolboxNetwork(found, networks[0]), Preprocessing()


class FoolboxNetwork(nn.Module):
    """A Foolbox model as a module: bounds undone, preprocessing as Foolbox applies it."""

    def __init__(self, model: Any, network: nn.Module):
        super().__init__()
        self.network, self.model = network, model
        self.offset, self.scale = float(model.bounds[0]), float(model.bounds[1]) - float(model.bounds[0])
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return logits_of(self.model(x * self.scale + self.offset))


def _named(place: str) -> Any:
    from ..target.load import called  # here, for that file asks this room for sources

    return called(place, wanted=object)[0]


def _least(values: Any) -> float:
    return min(values.flat) if hasattr(values, "flat") else values


def _most(values: Any) -> float:
    return max(values.flat) if hasattr(values, "flat") else values
