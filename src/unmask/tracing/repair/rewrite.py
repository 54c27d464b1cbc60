"""Runs a network as it is, with the backward pass of chosen operations rewritten.

The forward value of every operation stays exactly what it was; only what autograd sees behind it changes.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ...classifier import LEAST
from ...types import Outputs
from ..record.freeze import exchange
from ..record.graph_hooks import watching_saves
from ..record.intercept import Interceptor
from ..record.operations import COPIES, EXITS, WRITES, tensors_in
from ..record.recorder import group_of
from ..record.shadows import Shadows
from ..record.sites import module_names, site, stack
from ..record.uncut import uncut
from .arrays import arrived, bare, follow, following
from .measured import linear_map, secant
from .own_forward import own_forward
from .rules import (
    INPUT,
    Bridge,
    Gain,
    Group,
    Keep,
    Measure,
    PassThrough,
    Probabilities,
    Redifferentiate,
    Rewrite,
    Rule,
    Smooth,
    fitted,
)
from .stand_ins import CURVES, SMOOTH, Made, Shadow, base_name, through, typical_width
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
        with (
            rewriter,
            watching_saves(left_out=True),
            following() if self.rewrite.heal_cuts else nullcontext(),
        ):
            returned = self.network(x)
            if not isinstance(returned, Tensor | Outputs):  # read inside: arrays come back to torch here
                returned = Outputs.of(returned) or returned
            return rewriter.whole(returned)


class _Rewriter(Interceptor):
    def __init__(self, rewrite: Rewrite, names: dict[int, str], x: Tensor):
        super().__init__()
        self._rules = rewrite.rules
        self._uncut = rewrite.heal_cuts
        self._soften = rewrite.soften
        self._names = names
        self._bridges = {b.target: b for b in rewrite.bridges}
        self._sources = {b.source for b in rewrite.bridges}
        self._hot = {g[0] for g in (*rewrite.rules, *self._bridges, *self._sources)}
        self._held: dict[tuple[Group, int], list[Tensor]] = {(INPUT, 0): [x]}
        self._ordinals: dict[Group, int] = {}
        self._shadows: dict[int, tuple[Tensor, Shadow]] = {}

        # Where cuts are healed, the user's code runs as it is, and what is rewritten runs beside it.
        self._beside = Shadows(x, uncut=rewrite.heal_cuts, unroll=rewrite.unroll, carries=self._carries)

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

    def led(self, tensor: Tensor) -> Tensor | Shadow:
        """What leads on for one of the user's tensors: the one beside it, or a shadow."""
        beside = self._beside.of(tensor)
        return self.shadow_of(beside) or beside

    def trail(self, tensor: Tensor) -> Tensor | None:
        """The same for a tensor that leaves torch as an array."""
        led = self.led(tensor)
        led = led.value if isinstance(led, Shadow) else led
        return led if led.is_floating_point() and led.requires_grad else None

    def shadow_of(self, item: Any) -> Shadow | None:
        """What travels beside an integer or boolean tensor."""
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

        softened = self._soften is not None and _steps(name, kwargs)
        wanted = softened or (name in self._hot and name not in EXITS)
        source = args[0] if args and (kind == "source" or name in COPIES) else None
        plain = args if source is None else (bare(source), *args[1:])
        made = self._beside.call(kind, name, func, plain, kwargs, beside=beside, wanted=wanted)
        if source is not None and isinstance(made, Tensor):
            self._beside.lead(made, arrived(made, source))
        return follow(made, self.trail(args[0])) if name in ("numpy", "__array__") else made

    def on_question(self, name: str, tensor: Tensor) -> None:
        """As `Interceptor.on_question`."""
        if name == "retain_grad":
            self._beside.retaining.append(tensor)

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
        if name not in self._hot:
            return self._unruled(name, func, args, kwargs)
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
        else:
            result = self._unruled(name, func, args, kwargs)
        if bridge is not None:
            result = self._bridged(bridge, ordinal, name, result, args)
        if group in self._sources and name not in EXITS:
            self._held[group, ordinal] = [args[0]] if name in WRITES else list(tensors_in(result))
        return result

    def _unruled(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._shadows and any(id(t) in self._shadows for t in tensors_in((args, kwargs))):
            return self._follow(name, func, args, kwargs)
        if self._soften is not None and _steps(name, kwargs) and _first_float(args) is not None:
            floats = [a for a in args if isinstance(a, Tensor) and a.is_floating_point()]
            rule = Smooth(self._soften * typical_width(name, floats))
            return self._ruled(rule, "torch", name, func, args, kwargs)
        return self._plain(name, func, args, kwargs)

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
        made = uncut(name, func, args, kwargs) if self._uncut or name in EXITS else func(*args, **kwargs)
        refusing = {id(t): t.detach() for t in tensors_in(made) if _refuses(t)}
        return exchange(made, refusing) if refusing else made

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
        base = base_name(name)
        if isinstance(rule, Keep):
            return func(*(_finite(a) for a in args), **kwargs)
        if isinstance(rule, PassThrough):
            return self._with_surrogate(name, func, args, kwargs, lambda given: _first_float(given))
        if isinstance(rule, Measure):
            return self._with_surrogate(
                name, func, args, kwargs, lambda given: self._measured(rule, func, given, kwargs)
            )
        if isinstance(rule, Redifferentiate):
            return self._with_surrogate(
                name, func, args, kwargs, lambda given: self._own(rule, func, given, kwargs)
            )
        if isinstance(rule, Probabilities):
            logits: Tensor = args[0]
            shares = func(*args, **kwargs).clamp_min(LEAST)
            dim: int = kwargs.get("dim", args[1] if len(args) > 1 else -1)
            return Substitute.apply(shares.detach(), _never_zero(logits, dim))
        if isinstance(rule, Gain):
            curve = CURVES.get(base)
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

    def _own(
        self, rule: Redifferentiate, func: Callable[..., Any], given: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Made:
        """A custom function's forward, with its steps softened; its slope measured, where autograd does not follow."""
        function = getattr(func, "function", None)
        if function is not None:
            start = _first_float(given)
            assert start is not None, "a suspect has a gradient to lose"
            healed = Rewrite(heal_cuts=True, soften=rule.soften, unroll=True)
            inner = _Rewriter(healed, self._names, start)
            try:
                made = own_forward(function, given, kwargs, inner)
            except _REFUSALS:
                made = None
            several = list(made) if isinstance(made, tuple | list) else [made]
            seen = [inner.led(t) if isinstance(t, Tensor) else None for t in several]
            if any(t is not None and (isinstance(t, Shadow) or t.requires_grad) for t in seen):
                return seen if isinstance(made, tuple | list) else seen[0]
        return self._measured(Measure(), func, given, kwargs)

    def _measured(
        self, rule: Measure, func: Callable[..., Any], given: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor | None:
        x = _first_float(given)
        if x is None:
            return None

        def run(point: Tensor) -> Tensor:
            with torch.random.fork_rng(devices=[]):
                made = func(*(point if a is x else _detached(a) for a in given), **kwargs)
            return made if isinstance(made, Tensor) else next(tensors_in(made))

        with torch.no_grad():
            value = run(x)
        value = value if value.is_floating_point() else value.to(x)
        width = typical_width("", [x])
        shapes = (x.shape[1:], value.shape[1:])
        if shapes not in rule.learned:
            rule.learned[shapes] = linear_map(run, x, value, width)
        weight = rule.learned[shapes]
        if weight is None:
            return secant(run, x, value, width)
        return (x.flatten(1) @ weight).reshape(value.shape)

    def _follow(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        def surrogate(given: tuple[Any, ...]) -> Made:
            try:
                made = through(name, func, given, kwargs, self.shadow_of)
            except _REFUSALS:
                made = None
            return self._asked_in_integers(name, func, given, kwargs) if made is None else made

        return self._with_surrogate(name, func, args, kwargs, surrogate)

    def _asked_in_integers(
        self, name: str, func: Callable[..., Any], given: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor | None:
        """An operation on shadowed integers for which there is no rule: measured, from one whole number to others."""
        found = next(((a, s) for a in given if (s := self.shadow_of(a)) is not None), None)
        if found is None or name in WRITES or name in EXITS or not found[1].value.requires_grad:
            return None
        tensor, shadow = found

        def run(point: Tensor) -> Tensor:
            whole = point > 0.5 if tensor.dtype == torch.bool else point.round().to(tensor.dtype)
            made = func(*(whole if a is tensor else _detached(a) for a in given), **kwargs)
            return made.to(point) if isinstance(made, Tensor) else point[:0]

        with torch.no_grad():
            value = run(tensor.to(shadow.value))
        return secant(run, shadow.value, value, 1.0) if value.numel() else None

    def _with_surrogate(
        self,
        name: str,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        surrogate: Callable[[tuple[Any, ...]], Made],
    ) -> Any:
        in_place = name in WRITES or (name.endswith("_") and not name.endswith("__")) or name in _AUGMENTED
        try:
            with torch.enable_grad():
                given = tuple(a.clone() if in_place and n == 0 else a for n, a in enumerate(args))
                for old, new in zip(args, given, strict=True):  # a clone answers to the same shadow
                    if old is not new and (shadow := self.shadow_of(old)) is not None:
                        self._shadows[id(new)] = (new, shadow)
                stand_in = surrogate(given)
        except _REFUSALS:
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
        if isinstance(made, tuple | list) and not isinstance(stand_in, list):
            # Values and indices: the values keep their gradient, where they have one.
            made = self._plain(name, func, args, kwargs)
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

    def _joined(self, made: Any, stand_in: Made) -> Any:
        if stand_in is None:
            return made
        if not isinstance(made, tuple | list):
            return made if isinstance(stand_in, list) else self._joined_one(made, stand_in)
        # Values and indices: the values keep their gradient.
        alone = [None if m.is_floating_point() and m.requires_grad else stand_in for m in made]
        each = stand_in if isinstance(stand_in, list) else alone
        items = [self._joined(m, s) for m, s in zip(made, each, strict=True)]
        return made if all(a is b for a, b in zip(items, made, strict=True)) else type(made)(items)

    def _joined_one(self, made: Tensor, stand_in: Tensor | Shadow) -> Tensor:
        if not made.is_floating_point():
            shadow = stand_in if isinstance(stand_in, Shadow) else Shadow(stand_in)
            self._shadows[id(made)] = (made, shadow)
            return made
        stand_in = stand_in.value if isinstance(stand_in, Shadow) else stand_in
        return Substitute.apply(made, stand_in) if stand_in.numel() == made.numel() else made

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
        given = list(tensors_in(args))
        assert bridge.argument is not None
        if bridge.argument >= len(given):
            return args
        old = given[bridge.argument]
        new = self._bridged(bridge, ordinal, "", old, ())
        return args if new is old else exchange(args, {id(old): new})

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
            if not target.is_floating_point():
                self._shadows[id(target)] = target, Shadow(stand_in)
                return result
            joined = Substitute.apply(target.detach(), stand_in)
            if name in WRITES or (args and result is args[0]):
                args[0].copy_(joined)
                return result
        return exchange(result, {id(target): joined})


_AUGMENTED = frozenset(
    "__iadd__ __isub__ __imul__ __itruediv__ __iand__ __ior__ __ixor__ __ifloordiv__".split()
)


# What a stand-in raises where it does not fit this form of the call.
_REFUSALS = (
    RuntimeError,
    TypeError,
    ValueError,
    IndexError,
    AttributeError,
    NotImplementedError,
    AssertionError,
)
# Steps only in one of their forms, or none at all.
_OTHERWISE = frozenset(
    "clone detach data tensor as_tensor half bfloat16 fake_quantize_per_tensor_affine".split()
)


def _steps(name: str, kwargs: dict[str, Any]) -> bool:
    """Whether an operation is a step, wherever it stands."""
    base = base_name(name)
    if base in ("div", "divide"):
        return kwargs.get("rounding_mode") is not None
    return base in SMOOTH and base not in _OTHERWISE


def _never_zero(logits: Tensor, dim: int) -> Tensor:
    """A soft-max whose log has the gradient of a log-soft-max, also where the soft-max itself underflows."""
    logs = torch.log_softmax(logits, dim)
    return (logs + (logs.clamp_min(math.log(LEAST)) - logs).detach()).exp()


def _refuses(tensor: Tensor) -> bool:
    """Whether torch has no derivative for what made it: a gradient that raises would lose the whole attempt."""
    return tensor.grad_fn is not None and tensor.grad_fn.name().endswith("NotImplemented")


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
