"""YOPO: most steps of the attack go through the first layer only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ..errors import UnusableInput
from ..threat import norm_ball
from .loop import Loop, Seen
from .run import Images, Labels, Run


class _Reached(Exception):
    """Ends a forward pass at a layer; carries nothing, the layer's output is already kept."""


def first_layer(network: nn.Module, x: Images) -> nn.Module:
    """The module with parameters of its own that a forward pass comes to first."""
    found: list[nn.Module] = []

    def stop(module: nn.Module, _: tuple[Tensor, ...]) -> None:
        found.append(module)
        raise _Reached

    candidates = [m for m in network.modules() if any(True for _ in m.parameters(recurse=False))]
    hooks = [m.register_forward_pre_hook(stop) for m in candidates]
    try:
        with torch.no_grad():
            network(x.clone())
    except _Reached:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise UnusableInput(
            "`YOPO` found no layer with parameters in this network; use `AdversarialTraining`"
        )
    return found[0]


def up_to(
    network: nn.Module, layer: nn.Module, forward: Callable[[Images], Tensor]
) -> Callable[[Images], Tensor]:
    """The function from the image to the output of `layer`, at the cost of that part of the network."""

    def front(x: Images) -> Tensor:
        kept: list[Tensor] = []

        def stop(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
            kept.append(output)
            raise _Reached

        hook = layer.register_forward_hook(stop)
        try:
            forward(x)
        except _Reached:
            pass
        finally:
            hook.remove()
        return kept[0]

    return front


def _note(handed: list[Tensor], _: nn.Module, given: tuple[Tensor, ...]) -> None:
    handed.append(given[0])


def _same_memory(given: Tensor, handed: Tensor, x: Images) -> bool:
    """Whether a layer sees the images themselves: the memory that the network was handed, not written into since."""
    return given.data_ptr() == handed.data_ptr() and torch.equal(given.flatten(1), x.flatten(1))


@dataclass(frozen=True, kw_only=True)
class YOPO(Loop):
    """`full` passes give the loss's slope behind the first layer; with each, the image takes `inner` cheap steps.

    The slope p with respect to the first layer's output is held fixed while the perturbation climbs the product
    of p and that output. The weights step once per minibatch, by the mean gradient over the full passes. Where
    everything up to the first layer is affine, as a convolution is, the inner steps share one direction; where that
    layer sees the image itself, it is computed once.

    **Fields**
    - `full`, `inner`: m and n of YOPO-m-n.
    - `rel_step_size`: of one inner step, as a fraction of epsilon.

    **Cost**: `full` forwards and backwards per example and epoch, and up to `full * (inner - 1)` through the first
    layer.
    **Source**: Zhang et al. 2019, arXiv:1905.00877; YOPO-5-3 with steps of 2/255 at 8/255 in their CIFAR-10
    experiments.
    **Differs**: their code adds up the gradients where we average (they divide the learning rate by m / 2), and
    adds one more of the first layer's at the moved image; learning rate as in `Loop`.
    """

    full: int = 5
    inner: int = 3
    rel_step_size: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("full", "inner"):
            self.at_least(name, 1)
        if self.compiled:
            raise UnusableInput(
                "`YOPO` stops a forward pass behind the first layer, which torch.compile cannot; "
                "set compiled=False"
            )

    def learn(self, run: Run, x: Images, y: Labels) -> Seen:
        threat = norm_ball(run.threat, "`YOPO`")
        layer = first_layer(run.network, x[:1])
        front = up_to(run.network, layer, run.logits)
        x_adv = threat.random_start(x, generator=run.streams(len(x)))
        project = threat.projection(x)
        total, logits = x.new_zeros(()), x
        for _ in range(self.full):
            kept: list[tuple[Tensor, Tensor]] = []
            handed: list[Tensor] = []
            hooks = (
                run.network.register_forward_pre_hook(partial(_note, handed)),
                layer.register_forward_hook(lambda _, given, out, to=kept: to.append((given[0], out))),
            )
            x_adv = x_adv.detach().requires_grad_()
            logits = run.logits(x_adv)
            for hook in hooks:
                hook.remove()
            ((given, out),) = kept
            out.retain_grad()
            loss = nn.functional.cross_entropy(logits, y)
            run.backward(loss / self.full)
            slope, grad = out.grad, x_adv.grad  # the first inner step's gradient comes with the full pass
            assert slope is not None
            assert grad is not None
            affine = isinstance(layer, nn.Conv2d | nn.Linear) and _same_memory(given, handed[0], x_adv)
            ascent = threat.steepest_ascent(grad).mul_(self.rel_step_size * threat.epsilon)
            for step in range(self.inner):
                if step and not affine:
                    x_adv = x_adv.detach().requires_grad_()
                    (grad,) = torch.autograd.grad((slope * front(x_adv)).sum(), x_adv)
                    ascent = threat.steepest_ascent(grad).mul_(self.rel_step_size * threat.epsilon)
                x_adv = project(x_adv.detach().add_(ascent))
            total += loss.detach() / self.full
        run.update()
        return Seen(total, logits.detach())
