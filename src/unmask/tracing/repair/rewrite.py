"""Runs a network as it is, with the backward pass of chosen operations rewritten.

The forward value of every operation stays exactly what it was; only what autograd sees behind it changes.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...classifier import LEAST
from ...types import Outputs
from ..record.intercept import Interceptor
from ..record.operations import EXITS, WRITES, tensors_in
from ..record.recorder import group_of
from ..record.shadows import Shadows
from ..record.sites import module_names, site, stack
from ..record.uncut import uncut
from .rules import (
    INPUT,
    Bridge,
    Gain,
    Group,
    Keep,
    PassThrough,
    Probabilities,
    Redifferentiate,
    Rewrite,
    Rule,
    Smooth,
    fitted,
)
from .stand_ins import SATURATING, SMOOTH, Shadow, through
from .substitute import Finite, Substitute


class Rewritten:
    """A network under a `Rewrite`: equal outputs, repaired gradients."""

    def __init__(self, network: Callable[[Tensor], Tensor | Outputs], rewrite: Rewrite):
        self.network = network
        self.rewrite = rewrite
        self._names = module_names(network)

    def __call__(self, x: Tensor) -> Tensor | Outputs:
        """The network's own outputs; only their gradient is another."""
        if not torch.is_grad_enabled():
            return self.network(x)
        x = x.clone()  # not a leaf, so that a network may write into it
        rewriter = _Rewriter(self.rewrite, self._names, x)
        with rewriter:
            returned = self.network(x)
            if not isinstance(returned, Tensor | Outputs):  # read inside: arrays come back to torch here
                returned = Outputs.of(returned) or returned
            return rewriter.whole(returned)


class _Rewriter(Interceptor):
    def __init__(self, rewrite: Rewrite, names: dict[int, str], x: Tensor):
        super().__init__()
        self._rules = rewrite.rules
        self._uncut = rewrite.heal_cuts
        self._names = names
        self._bridges = {b.target: b for b in rewrite.bridges}
        self._sources = {b.source for b in rewrite.bridges}
        self._hot = {g[0] for g in (*rewrite.rules, *self._bridges, *self._sources)}
        self._held: dict[tuple[Group, int], list[Tensor]] = {(INPUT, 0): [x]}
        self._ordinals: dict[Group, int] = {}
        self._shadows: dict[int, tuple[Tensor, Shadow]] = {}
        # Where cuts are healed, the user's code runs as it is, and what is rewritten runs beside it.
        self._beside = Shadows(x, uncut=rewrite.heal_cuts, carries=self._carries)

    def _carries(self, tensor: Tensor) -> bool:
        return tensor.requires_grad or id(tensor) in self._shadows

    def whole(self, outputs: Tensor | Outputs) -> Tensor | Outputs:
        """The network's outputs, with the graph that was kept beside them."""
        if isinstance(outputs, Tensor):
            beside = self._beside.of(outputs)
            return outputs if beside is outputs else Substitute.apply(outputs.detach(), beside)
        if not isinstance(outputs, Outputs) or outputs.detector_score is None:
            return Outputs(self.whole(outputs.logits)) if isinstance(outputs, Outputs) else outputs  # pyright: ignore
        return Outputs(self.whole(outputs.logits), self.whole(outputs.detector_score))  # pyright: ignore

    def _shadow_of(self, item: Any) -> Shadow | None:
        found = self._shadows.get(id(item)) if isinstance(item, Tensor) else None
        return None if found is None else found[1]

    def on_call(
        self, kind: str, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """As `Interceptor.on_call`."""
        if name == "_set_grad_enabled" or not self._uncut:
            return self._rewritten(kind, name, func, args, kwargs)
        if name in EXITS and name in self._hot:
            self._hold_exit(name, self._beside.of(args[0]))

        def beside(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return self._rewritten(kind, name, func, args, kwargs)

        wanted = name in self._hot and name not in EXITS
        return self._beside.call(kind, name, func, args, kwargs, beside=beside, wanted=wanted)

    def _hold_exit(self, name: str, leaving: Any) -> None:
        """Keeps what leaves torch, for a bridge from there."""
        group = group_of(name, site(stack(), self._names))
        ordinal = self._ordinals[group] = self._ordinals.get(group, -1) + 1
        if group in self._sources:
            self._held[group, ordinal] = [leaving]

    def _rewritten(
        self, kind: str, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The operation's own result, with the backward pass that it is to have."""
        if name == "_set_grad_enabled":
            return func(*args, **kwargs)
        shadowed = bool(self._shadows) and any(id(t) in self._shadows for t in tensors_in((args, kwargs)))
        if name not in self._hot:
            return (
                self._follow(name, func, args, kwargs) if shadowed else self._plain(name, func, args, kwargs)
            )
        group = group_of(name, site(stack(), self._names))
        ordinal = self._ordinals[group] = self._ordinals.get(group, -1) + 1
        if group in self._sources and name in EXITS:
            self._held[group, ordinal] = [args[0]]
        bridge = self._bridges.get(group)
        if bridge is not None and bridge.argument is not None:
            args = self._bridged_argument(bridge, ordinal, args)
            bridge = None
        rule = self._rules.get(group)
        if rule is not None:
            result = self._ruled(rule, kind, name, func, args, kwargs)
        elif shadowed:
            result = self._follow(name, func, args, kwargs)
        else:
            result = self._plain(name, func, args, kwargs)
        if bridge is not None:
            result = self._bridged(bridge, ordinal, name, result, args)
        if group in self._sources and name not in EXITS:
            self._held[group, ordinal] = [args[0]] if name in WRITES else list(tensors_in(result))
        return result

    def call_hooked(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As `Interceptor.call_hooked`, without the hooks."""
        hooks = module._backward_hooks, module._backward_pre_hooks
        module._backward_hooks, module._backward_pre_hooks = OrderedDict(), OrderedDict()
        try:
            return super().call_hooked(module, args, kwargs)
        finally:
            module._backward_hooks, module._backward_pre_hooks = hooks

    def _plain(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return uncut(name, func, args, kwargs) if self._uncut or name in EXITS else func(*args, **kwargs)

    # --- the operation's own value, and a stand-in for its derivative ----------------------------------------------

    def _ruled(
        self,
        rule: Rule,
        kind: str,
        name: str,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        base = name if name.startswith("__") else name.rstrip("_")
        if isinstance(rule, Keep):
            return func(*(_finite(a) for a in args), **kwargs)
        if isinstance(rule, PassThrough):
            return self._with_surrogate(name, func, args, kwargs, lambda given: _first_float(given))
        if isinstance(rule, Redifferentiate):
            function = getattr(func, "function", None)
            if function is None:
                return self._with_surrogate(name, func, args, kwargs, lambda given: _first_float(given))
            return self._with_surrogate(
                name, func, args, kwargs, lambda given: self._forward_of(function, given)
            )
        if isinstance(rule, Probabilities):
            logits: Tensor = args[0]
            shares = func(*args, **kwargs).clamp_min(LEAST)
            dim: int = kwargs.get("dim", args[1] if len(args) > 1 else -1)
            return Substitute.apply(shares.detach(), _never_zero(logits, dim))
        if isinstance(rule, Gain):
            curve = SATURATING.get(base)
            if curve is None:
                return self._plain(name, func, args, kwargs)
            if base in ("softmax", "log_softmax"):
                dim = kwargs.get("dim", args[1] if len(args) > 1 else -1)
                soften = getattr(torch, base)
                return self._with_surrogate(
                    name, func, args, kwargs, lambda given: soften(given[0] * rule.gain, dim)
                )
            return self._with_surrogate(name, func, args, kwargs, lambda given: curve(given[0] * rule.gain))
        smooth = SMOOTH.get(base)
        if smooth is None:
            return self._with_surrogate(name, func, args, kwargs, lambda given: _first_float(given))
        return self._with_surrogate(name, func, args, kwargs, lambda given: smooth(rule.width, given, kwargs))

    def _forward_of(self, function: Any, args: tuple[Any, ...]) -> Tensor | None:
        """A custom function's forward, run with gradient and with smooth stand-ins for the steps inside it."""
        inner = _Rewriter(Rewrite(heal_cuts=True), self._names, args[0])
        inner._rules = _Everywhere()
        inner._hot = inner._rules.names
        new_style = function.setup_context is not torch.autograd.function._SingleLevelFunction.setup_context
        with inner:
            made = function.forward(*args) if new_style else function.forward(_Context(), *args)
        return made if isinstance(made, Tensor) else None

    def _follow(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        def surrogate(given: tuple[Any, ...]) -> Tensor | Shadow | list[Shadow] | None:
            return through(name, func, given, kwargs, self._shadow_of)

        return self._with_surrogate(name, func, args, kwargs, surrogate)

    def _with_surrogate(
        self,
        name: str,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        surrogate: Callable[[tuple[Any, ...]], Tensor | Shadow | list[Shadow] | None],
    ) -> Any:
        in_place = name in WRITES or (name.endswith("_") and not name.endswith("__")) or name in _AUGMENTED
        try:
            with torch.enable_grad():
                given = tuple(a.clone() if in_place and n == 0 else a for n, a in enumerate(args))
                for old, new in zip(args, given, strict=True):  # a clone answers to the same shadow
                    if old is not new and (shadow := self._shadow_of(old)) is not None:
                        self._shadows[id(new)] = (new, shadow)
                stand_in = surrogate(given)
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
            stand_in = None  # no stand-in for this form of the call: as it was
        if stand_in is None:
            return self._plain(name, func, args, kwargs)
        with torch.no_grad():
            if in_place:
                target = args[0].detach().clone()
                made: Any = func(target, *args[1:], **kwargs)
                made = target if made is None else made
            else:
                made = func(*(_detached(a) for a in args), **{k: _detached(v) for k, v in kwargs.items()})
        result = self._joined(made, stand_in)
        if not in_place or isinstance(stand_in, list):
            return result
        if isinstance(result, Tensor) and result.requires_grad:
            args[0].copy_(result)
        else:
            with torch.no_grad():
                args[0].copy_(result)
        if isinstance(stand_in, Shadow) or not args[0].is_floating_point():
            shadow = stand_in if isinstance(stand_in, Shadow) else Shadow(stand_in)
            self._shadows[id(args[0])] = (args[0], shadow)
        return None if name == "__setitem__" else args[0]

    def _joined(self, made: Any, stand_in: Tensor | Shadow | list[Shadow]) -> Any:
        if isinstance(stand_in, list):  # one for each of several integer tensors
            self._shadows |= {id(item): (item, shadow) for item, shadow in zip(made, stand_in, strict=True)}
            return made
        if isinstance(
            made, (tuple, list)
        ):  # values and indices: the values keep their gradient, the indices get a shadow
            for item in made:
                if isinstance(item, Tensor) and not item.is_floating_point() and isinstance(stand_in, Shadow):
                    self._shadows[id(item)] = (item, stand_in)
            return made
        if isinstance(stand_in, Shadow) and made.is_floating_point() and made.dtype == torch.float32:
            stand_in = stand_in.value
        if isinstance(stand_in, Shadow) or not made.is_floating_point():
            shadow = stand_in if isinstance(stand_in, Shadow) else Shadow(stand_in)
            self._shadows[id(made)] = (made, shadow)
            return made
        if stand_in.numel() != made.numel():
            return made
        return Substitute.apply(made, stand_in)

    def _source(self, bridge: Bridge, ordinal: int) -> Tensor | None:
        if bridge.pairing == "stack":
            held = [
                v[bridge.output] for (group, _), v in sorted(self._held.items()) if group == bridge.source
            ]
            return torch.stack(held) if held else None
        last = max((n for group, n in self._held if group == bridge.source), default=-1)
        found = self._held.get((bridge.source, min(ordinal, last) if bridge.pairing == "each" else 0))
        if found is None or bridge.output >= len(found):
            return None
        tensor = found[bridge.output]
        if bridge.pairing == "item":
            return tensor[ordinal] if ordinal < len(tensor) else None
        return tensor

    def _bridged_argument(self, bridge: Bridge, ordinal: int, args: tuple[Any, ...]) -> tuple[Any, ...]:
        seen = -1
        for n, item in enumerate(args):
            seen += isinstance(item, Tensor)
            if seen == bridge.argument and isinstance(item, Tensor):
                return (*args[:n], self._bridged(bridge, ordinal, "", item, ()), *args[n + 1 :])
        return args

    def _bridged(self, bridge: Bridge, ordinal: int, name: str, result: Any, args: tuple[Any, ...]) -> Any:
        source = _first_float(args) if bridge.alone else self._source(bridge, ordinal)
        target = args[0] if name in WRITES else result
        if isinstance(target, (tuple, list)):
            target = next((t for t in target if isinstance(t, Tensor)), None)
        if source is None or not isinstance(target, Tensor) or not source.requires_grad:
            return result
        with torch.enable_grad():
            try:
                if bridge.stand_in is not None:
                    stand_in = bridge.stand_in(source).reshape(target.shape)
                else:
                    stand_in = fitted(source, bridge.fit, target.shape) * bridge.slope
            except RuntimeError:
                return result  # shapes that change from pass to pass
            joined = Substitute.apply(target.detach(), stand_in)
            if name in WRITES or (args and result is args[0]):
                args[0].copy_(joined)
                return result
        return joined


_AUGMENTED = frozenset(
    "__iadd__ __isub__ __imul__ __itruediv__ __iand__ __ior__ __ixor__ __ifloordiv__".split()
)


class _Everywhere(dict):
    """Rules for every step function, wherever it stands: used inside a custom function's own forward."""

    names = frozenset(n for n in SMOOTH if n not in ("to", "clone", "max", "min", "div", "divide", "type"))

    def get(self, group: Any, default: Any = None) -> Any:
        return Smooth(0.1) if group[0] in self.names else default


class _Context:
    """Stands in for autograd's context while a forward is differentiated for what it is."""

    def save_for_backward(self, *tensors: Tensor) -> None:
        self.saved_tensors = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None: ...

    def mark_dirty(self, *tensors: Tensor) -> None: ...

    def set_materialize_grads(self, value: bool) -> None: ...


def _never_zero(logits: Tensor, dim: int) -> Tensor:
    """A soft-max whose log has the gradient of a log-soft-max, also where the soft-max itself underflows."""
    logs = torch.log_softmax(logits, dim)
    return (logs + (logs.clamp_min(math.log(LEAST)) - logs).detach()).exp()


def _finite(item: Any) -> Any:
    return Finite.apply(item) if isinstance(item, Tensor) and item.requires_grad else item


def _detached(item: Any) -> Any:
    if isinstance(item, Tensor):
        return item.detach()
    if isinstance(item, (list, tuple)) and any(isinstance(i, Tensor) for i in item):
        return type(item)(_detached(i) for i in item)
    return item


def _first_float(args: tuple[Any, ...]) -> Tensor | None:
    return next((a for a in tensors_in(args) if a.is_floating_point() and a.requires_grad), None)
