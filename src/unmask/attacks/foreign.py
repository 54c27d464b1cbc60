"""Attacks of other toolboxes, and plain functions, as attacks: what they propose is judged like anything else."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from ..classifier import Classifier, seeded
from ..errors import UnusableInput
from ..randomness import Streams
from ..threat import NormBall, ThreatModel, one_radius
from .base import Attack, Images, Labels

WAYS = (
    "an unmask.attacks.Attack, an attack of torchattacks, Foolbox or ART, a function of (network, x, y) or "
    "(network, x, y, epsilon) that returns x_adv, or one of (network) that returns an attack"
)
# What toolboxes call the radius, and the network behind their own wrapper.
_RADIUS, _WRAPPED = ("eps", "epsilon"), ("estimator", "classifier")


class Answering(nn.Module):
    """The classifier as a network: logits, with gradient, each pass metered. Randomness is drawn anew at each call."""

    def __init__(self, classifier: Classifier, seed: int, like: Tensor):
        super().__init__()
        self.classifier = classifier
        self.generator = torch.Generator(like.device).manual_seed(seed)
        if isinstance(classifier.network, nn.Module):
            self.network = classifier.network  # for who asks a network's parameters where it lies
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(x, generator=self.generator).logits


@dataclass(frozen=True, kw_only=True, eq=False)
class Foreign(Attack):
    """Another toolbox's attack, or a function.

    One that is bound to a network already attacks that one; its passes are not metered. Under a targeted goal `y` holds
    the classes to reach, and the attack must have been told.

    **Fields**
    - `inner`: the attack, the function, or what makes an attack of a network.
    - `name`: for the report.

    **Cost**: what it asks; backward passes of its own are not metered.
    """

    inner: Any
    name: str

    def describe(self) -> str:
        return self.name

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        if not len(x):
            return x.clone()
        seed = Streams.of(generator, len(x)).fork("foreign").batch_seed()
        network = Answering(classifier, seed, x)
        with seeded(seed, x.device):  # toolboxes draw from the global generator
            return self._found(classifier, network, x.detach(), y, threat, generator)

    def _found(
        self,
        classifier: Classifier,
        network: nn.Module,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        generator: torch.Generator | Streams,
    ) -> Images:
        attack = self.inner
        if isinstance(threat, NormBall):
            one_radius(threat, f"`{self.name}`, an attack of another toolbox,")
        if _is_function(attack):
            needed = _needed(attack)
            if len(needed) >= 3:
                told = (network, x, y, threat.epsilon)[: len(needed)]
                return _tensor(attack(*told), x)
            attack = _bound(attack, needed[0], network, x, threat)
        if isinstance(attack, Attack):
            return attack.run(classifier, x, y, threat, generator=generator)
        return _tensor(_asked(attack, network, x, y, threat), x)


def as_attack(found: Any, name: str) -> Attack:
    """The attack that `found` is or can be wrapped as.

    **Raises** `UnusableInput` with what would do.

    >>> def shift(network, x, y, epsilon):
    ...     return x + epsilon
    >>> as_attack(shift, "shift").describe()
    'shift'
    """
    if isinstance(found, Attack):
        return found
    asked = hasattr(found, "generate") or (callable(found) and not isinstance(found, nn.Module))
    if len(_needed(found)) not in (1, 3, 4) if _is_function(found) else not asked:
        raise UnusableInput(f"{name} is a {type(found).__name__}; give {WAYS}")
    return Foreign(inner=found, name=name)


def makes_itself(found: Any) -> bool:
    """Whether a name stands for what makes the attack, from nothing: a class or a function without arguments."""
    return _is_function(found) and not _needed(found)


def _is_function(found: Any) -> bool:
    """Whether a call makes an attack or is one; what remains is an attack itself."""
    return inspect.isroutine(found) or inspect.isclass(found) or isinstance(found, partial)


def _parameters(attack: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(attack).parameters.values())
    except (TypeError, ValueError):  # made in C
        return []


def _needed(attack: Any) -> list[str]:
    """Names of the arguments that a call must give by place."""
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in _parameters(attack) if p.default is p.empty and p.kind in by_place]


def _bound(
    make: Callable[..., Any], argument: str, network: nn.Module, x: Images, threat: ThreatModel
) -> Any:
    """The attack that is made for this network, and with this radius where it can be told."""
    radius = {p.name: threat.epsilon for p in _parameters(make) if p.name in _RADIUS}
    return make(_estimator(network, x, threat) if argument in _WRAPPED else network, **radius)


def _asked(attack: Any, network: nn.Module, x: Images, y: Labels, threat: ThreatModel) -> Any:
    """What the attack proposes, in its toolbox's own manner of being asked."""
    if hasattr(attack, "generate"):  # ART, in NumPy
        return attack.generate(x=x.cpu().numpy(), y=y.cpu().numpy())
    if "epsilons" in {p.name for p in _parameters(attack)}:
        return _foolbox(attack, network, x, y, threat)
    if threat.goal == "targeted" and hasattr(attack, "set_mode_targeted_by_label"):  # torchattacks
        attack.set_mode_targeted_by_label(quiet=True)
    return attack(x, y)


def _foolbox(attack: Any, network: nn.Module, x: Images, y: Labels, threat: ThreatModel) -> Any:
    foolbox: Any = import_module("foolbox")
    model = foolbox.PyTorchModel(network, bounds=threat.box, device=x.device)
    kind = "TargetedMisclassification" if threat.goal == "targeted" else "Misclassification"
    _, clipped, _ = attack(model, x, getattr(foolbox.criteria, kind)(y), epsilons=threat.epsilon)
    return clipped


def _estimator(network: nn.Module, x: Images, threat: ThreatModel) -> Any:
    toolbox: Any = import_module("art.estimators.classification")
    with torch.no_grad():
        classes = network(x[:1]).shape[1]
    return toolbox.PyTorchClassifier(
        model=network,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=classes,
        clip_values=threat.box,
        device_type="gpu" if x.device.type == "cuda" else "cpu",
    )


def _tensor(found: Any, x: Images) -> Any:
    """What was proposed, in the type and place of `x`; anything but numbers as it is, for the caller to refuse."""
    try:
        tensor = torch.as_tensor(found).detach()
        return tensor if tensor.is_complex() else tensor.to(x)
    except (TypeError, ValueError, RuntimeError):
        return found
