"""What a call into somebody's code may leave changed behind it: seen by comparison, and put back."""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as everywhere

from ...classifier import Classifier
from ...state.functions import Functions
from ...state.limits import limits
from ...state.process import Settings
from ...state.settings import arithmetic, random_numbers, surroundings
from ...types import plain

# Attributes that are part of how a module answers and that no forward pass of its own counts up.
_PLAIN = (bool, str, type(None), FunctionType, MethodType)
_HOOKS = [name for name, value in vars(nn.Module()).items() if name.endswith("_hooks") and value is not None]
_GLOBAL_HOOKS = [n for n, v in vars(everywhere).items() if n.endswith("_hooks") and isinstance(v, dict)]


class Snapshot:
    """A network's state and the global one, as they were when this was made.

    Modules: mode, parameters, buffers, `requires_grad`, hooks, submodules, and attributes that switch (booleans, texts,
    functions such as a replaced `forward`). Counters and caches are the network's own affair. Methods of its
    classes and functions of torch and of this package that somebody replaced are put back, too (`Functions`).

    **Cost**: a copy of all parameters and buffers.
    """

    def __init__(self, network: object, device: torch.device):
        named = [pair for root in _roots(network) for pair in root.named_modules()]
        self.functions = Functions(module for _, module in named)
        self.modules = [_ModuleState(name, module) for name, module in named]
        self.settings = Settings(limits() + arithmetic(device.type) + surroundings() + random_numbers(device))
        self.hooks = [(n, dict(getattr(everywhere, n))) for n in _GLOBAL_HOOKS]

    def put_back(self) -> list[str]:
        """Puts everything back; returns what had changed, in words, sorted."""
        changed = set(self.functions.put_back())  # first: what follows computes with them
        changed |= set(self.settings.put_back())
        for name, before in self.hooks:
            now = getattr(everywhere, name)
            if now != before:
                changed.add("hooks of all modules")
                now.clear()
                now.update(before)
        with torch.no_grad():
            for state in self.modules:
                changed |= set(state.put_back())
        return sorted(changed)


class _ModuleState:
    def __init__(self, name: str, module: nn.Module):
        self.module, self.kind, self.training = module, type(module), module.training
        self.where = f"`{name}`" if name else "the network"
        scripted = isinstance(module, torch.jit.ScriptModule)
        self.tables = (
            {}
            if scripted
            else {
                n: dict(vars(module)[n])
                for n in ("_parameters", "_buffers", "_modules", *_HOOKS)
                if isinstance(vars(module).get(n), dict)
            }
        )
        self.switches = {} if scripted else _switches(module)
        own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        self.tensors = [_TensorState(n, t) for n, t in own if not isinstance(t, nn.UninitializedParameter)]

    def put_back(self) -> Iterator[str]:
        """Puts the module back and says what had changed."""
        module = self.module
        if type(module) is not self.kind:
            module.__class__ = self.kind
            yield f"the class of {self.where}"
        if module.training != self.training:
            module.training = self.training
            yield f"the mode of {self.where}"
        for name, before in self.tables.items():
            table = vars(module)[name]
            if (
                list(table.items()) != list(before.items())
                if name.endswith("_hooks")
                else _moved(table, before)
            ):
                table.clear()
                table.update(before)
                yield f"{name.strip('_').replace('_', ' ')} of {self.where}"
        now = _switches(module) if self.switches or self.tables else {}
        for name in sorted(now.keys() | self.switches.keys()):
            if name not in self.switches:
                delattr(module, name)
                yield f"{name} of {self.where}"
            elif name not in now or now[name] != self.switches[name]:
                setattr(module, name, self.switches[name])
                yield f"{name} of {self.where}"
        for tensor in self.tensors:
            if (what := tensor.put_back()) is not None:
                yield f"{what} of {self.where}"


class _TensorState:
    def __init__(self, name: str, tensor: Tensor):
        self.name, self.tensor, self.copy = name, tensor, tensor.detach().clone()
        self.requires_grad, self.grad = tensor.requires_grad, tensor.grad
        self.hooks = dict(tensor._backward_hooks or {})

    def put_back(self) -> str | None:
        tensor, what = self.tensor, None
        tensor.grad = self.grad  # left by `loss.backward()`, which changes nothing for anybody
        if dict(tensor._backward_hooks or {}) != self.hooks:
            tensor._backward_hooks = self.hooks or None
            what = f"hooks on `{self.name}`"
        if tensor.requires_grad != self.requires_grad:
            tensor.requires_grad_(self.requires_grad)
            what = f"requires_grad of `{self.name}`"
        if not _same(tensor.detach(), self.copy):
            tensor.data = self.copy
            what = f"`{self.name}`"
        return what


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device or a.layout != b.layout:
        return False
    a, b = plain(a), plain(b)
    return bool(((a == b) | ((a != a) & (b != b))).all())  # NaN is unlike itself


def _moved(table: dict[str, Any], before: dict[str, Any]) -> bool:
    return table.keys() != before.keys() or any(table[n] is not before[n] for n in before)


def _switches(module: nn.Module) -> dict[str, Any]:
    return {
        n: v
        for n, v in vars(module).items()
        if isinstance(v, _PLAIN) and n not in ("training", *_HOOKS) and not n.startswith("__")
    }


def _roots(network: object, depth: int = 3) -> list[nn.Module]:
    """The modules of a network that may be a function or an object around them."""
    if isinstance(network, nn.Module):
        return [network]
    if isinstance(network, Classifier):
        return _roots(network.network, depth) + _roots(network.surrogate, depth)
    if not depth or network is None or isinstance(network, Tensor | str | bytes | int | float):
        return []
    inside = [c.cell_contents for c in getattr(network, "__closure__", None) or () if _filled(c)]
    inside += [getattr(network, "__self__", None), *getattr(network, "__dict__", {}).values()]
    found = [root for part in inside for root in _roots(part, depth - 1)]
    return list({id(root): root for root in found}.values())


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # a name that is not bound yet
        return False
