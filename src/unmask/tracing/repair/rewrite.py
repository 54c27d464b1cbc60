"""Runs a network as it is, with the backward pass of chosen operations rewritten.

The forward value of every operation stays exactly what it was; only what autograd sees behind it changes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...types import Outputs
from ..intercept.as_written import uncut
from ..intercept.graph_hooks import watching_saves, without_backward_hooks
from ..intercept.interceptor import Interceptor
from ..intercept.operations import COPIES, EXITS, WRITES, tensors_in
from ..intercept.sites import group_of, module_names, site, stack
from ..record.shadows import Shadows
from .arrays import arrived, bare, follow, following
from .by_rule import (
    REFUSALS,
    Inside,
    Surrogate,
    answering,
    detached,
    dimension,
    finite,
    first_float,
    following_shadows,
    probabilities,
    steps,
    surrogate_of,
    writes,
)
from .joints import Joints
from .logs import Logs
from .rules import Keep, LogShares, Probabilities, Rewrite, Rule, Smooth
from .spans import Spans
from .surrogate_gradient import SurrogateGradient
from .surrogates import Shadow, typical_width


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
        arrays = following() if self.rewrite.heal_cuts else nullcontext()
        with rewriter, watching_saves(left_out=True), arrays:
            returned = self.network(x)
            # Read inside: arrays come back to torch here, and whole numbers become floats.
            if not (isinstance(returned, Tensor) and returned.is_floating_point()):
                returned = Outputs.of(returned) or returned
            with torch.enable_grad():  # a network may switch it off and leave it so
                return rewriter.whole(returned)


class _Rewriter(Interceptor):
    def __init__(self, rewrite: Rewrite, names: dict[int, str], x: Tensor):
        super().__init__()
        self._rules = rewrite.rules
        self._uncut = rewrite.heal_cuts
        self._logs = Logs()
        self._soften = rewrite.soften
        self._names = names
        joints = self._joints = Joints(rewrite.relaxed)
        self._spans = Spans(rewrite.bridges, x, self._joints)
        self._hot = {g[0] for g in (*rewrite.rules, *self._spans.targets, *self._spans.sources)}

        # Nothing here leads back to this object: a circle would hold the pass's graph until garbage is collected.
        def carries(tensor: Tensor) -> bool:
            return tensor.requires_grad or joints.shadow_of(tensor) is not None

        # Where cuts are healed, the user's code runs as it is, and what is rewritten runs beside it.
        kinds = {"uncut": rewrite.heal_cuts, "unroll": rewrite.unroll, "relaxed": rewrite.relaxed}
        self._beside = Shadows(x, carries=carries, **kinds)

    def whole(self, outputs: Tensor | Outputs) -> Tensor | Outputs:
        """The network's outputs, with the graph that was kept beside them."""
        if isinstance(outputs, Tensor):
            beside = self._beside.of(outputs)
            return outputs if beside is outputs else SurrogateGradient.apply(outputs.detach(), beside)
        if not isinstance(outputs, Outputs) or outputs.detector_score is None:
            return Outputs(self.whole(outputs.logits)) if isinstance(outputs, Outputs) else outputs  # pyright: ignore
        return Outputs(self.whole(outputs.logits), self.whole(outputs.detector_score))  # pyright: ignore

    def led(self, tensor: Tensor) -> Tensor | Shadow:
        """What leads on for one of the user's tensors: the one beside it, or a shadow."""
        beside = self._beside.of(tensor)
        return self._joints.shadow_of(beside) or beside

    def trail(self, tensor: Tensor) -> Tensor | None:
        """The same for a tensor that leaves torch as an array."""
        led = self.led(tensor)
        led = led.value if isinstance(led, Shadow) else led
        return led if led.is_floating_point() and led.requires_grad else None

    def on_call(
        self, kind: str, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """As `Interceptor.on_call`."""
        if name == "_set_grad_enabled" or not self._uncut:
            return self._rewritten(kind, name, func, args, kwargs)
        if name in EXITS and name in self._hot:
            # A bridge may begin where a tensor leaves torch.
            group = group_of(name, site(stack(), self._names))
            self._spans.hold(group, self._spans.next(group), [self._beside.of(args[0])])

        def beside(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return self._rewritten(kind, name, func, args, kwargs)

        soft = self._soften is not None and steps(name, kwargs)
        wanted = soft or (name in self._hot and name not in EXITS)
        source = args[0] if args and (kind == "source" or name in COPIES) else None
        plain = args if source is None else (bare(source), *args[1:])
        made = self._beside.call(kind, name, func, plain, kwargs, beside=beside, wanted=wanted)
        made = answering(made, self._beside)
        if source is not None and isinstance(made, Tensor):
            self._beside.lead(made, arrived(made, source))
        return follow(made, self.trail(args[0])) if name in ("numpy", "__array__") else made

    def on_question(self, name: str, tensor: Tensor) -> None:
        """As `Interceptor.on_question`."""
        if name == "retain_grad":
            self._beside.retaining.append(tensor)

    def _rewritten(
        self, kind: str, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The operation's own result, with the backward pass that it is to have."""
        if name == "_set_grad_enabled":
            return func(*args, **kwargs)
        if name not in self._hot:
            return self._logs.follow(name, func, args, kwargs, self._unruled(name, func, args, kwargs))
        group = group_of(name, site(stack(), self._names))
        ordinal = self._spans.next(group)
        if name in EXITS:
            self._spans.hold(group, ordinal, [args[0]])
        bridge = self._spans.targets.get(group)
        if bridge is not None and bridge.argument is not None:
            args = self._spans.bridged_argument(bridge, ordinal, args)
            bridge = None
        rule = self._rules.get(group)
        run = self._unruled if rule is None else partial(self._ruled, rule)
        result = self._logs.follow(name, func, args, kwargs, run(name, func, args, kwargs))
        if bridge is not None:
            result = self._spans.bridged(bridge, ordinal, name, result, args)
        if name not in EXITS:
            self._spans.hold(group, ordinal, [args[0]] if name in WRITES else list(tensors_in(result)))
        return result

    def _unruled(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._joints.shadowed(tensors_in((args, kwargs))):
            surrogate = following_shadows(name, func, kwargs, self._joints)
            return self._with_surrogate(name, func, args, kwargs, surrogate)
        if self._soften is not None and steps(name, kwargs) and first_float(args) is not None:
            floats = [a for a in args if isinstance(a, Tensor) and a.is_floating_point()]
            rule = Smooth(self._soften * typical_width(name, floats))
            return self._ruled(rule, name, func, args, kwargs)
        return self._plain(name, func, args, kwargs)

    def call_hooked(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As `Interceptor.call_hooked`, without the hooks."""
        with without_backward_hooks(module):
            return super().call_hooked(module, args, kwargs)

    def _plain(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        made = uncut(name, func, args, kwargs) if self._uncut or name in EXITS else func(*args, **kwargs)
        return answering(made)

    # --- the operation's own value, and a surrogate for its derivative ----------------------------------------------

    def _ruled(
        self, rule: Rule, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if isinstance(rule, Keep):
            return func(*(finite(a) for a in args), **kwargs)
        if isinstance(rule, Probabilities):
            return probabilities(func, args, kwargs)
        if isinstance(rule, LogShares):
            made = self._plain(name, func, args, kwargs)
            return self._logs.begin(made, name, args[0] * rule.gain, dimension(args, kwargs))
        surrogate = surrogate_of(rule, name, func, kwargs, self._inner)
        if surrogate is None:
            return self._plain(name, func, args, kwargs)
        return self._with_surrogate(name, func, args, kwargs, surrogate)

    def _inner(self, start: Tensor, soften: float | None) -> Inside:
        """A rewriter for the inside of a custom function, and where a tensor leads in it."""
        inner = _Rewriter(Rewrite(heal_cuts=True, soften=soften, unroll=True), self._names, start)
        return inner, inner.led

    def _with_surrogate(
        self,
        name: str,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        surrogate: Surrogate,
    ) -> Any:
        in_place = writes(name)
        try:
            with torch.enable_grad():
                given = tuple(a.clone() if in_place and n == 0 else a for n, a in enumerate(args))
                for old, new in zip(args, given, strict=True):  # a clone answers to the same shadow
                    if old is not new and (shadow := self._joints.shadow_of(old)) is not None:
                        self._joints.lay(new, shadow)
                soft = surrogate(given)
        except REFUSALS:
            soft = None  # no surrogate for this form of the call: as it was
        if soft is None:
            return self._plain(name, func, args, kwargs)
        with torch.no_grad():
            if in_place:
                target = args[0].detach().clone()
                made: Any = func(target, *args[1:], **kwargs)
                made = target if made is None else made
            else:
                made = func(*(detached(a) for a in args), **{k: detached(v) for k, v in kwargs.items()})
        if isinstance(made, tuple | list) and not isinstance(soft, list):
            # Values and indices: the values keep their gradient, where they have one.
            made = self._plain(name, func, args, kwargs)
        result = self._joints.joined(made, soft)
        if not in_place or isinstance(soft, list):
            return result
        with torch.set_grad_enabled(isinstance(result, Tensor) and result.requires_grad):
            args[0].copy_(result)
        if isinstance(soft, Shadow) or not args[0].is_floating_point():
            self._joints.lay(args[0], soft)
        return None if name == "__setitem__" else args[0]
