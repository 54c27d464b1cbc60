"""PGD without BPDA, one draw a step: one run that is looked at on its way, and goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from unmask.classifier import Classifier
from unmask.gradients import Exact
from unmask.objectives import Objective, cross_entropy, margin_loss
from unmask.randomness import Streams
from unmask.threat import Linf

SAVE_EVERY = 100  # steps between two saved states, some seconds apart


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the run goes.

    **Fields**
    - `goal`: of the attack; `objective`: what its steps increase.
    - `step_size`: of a sign step, in units of the image range.
    - `random_start`: whether it begins at a random point of the ball, not at the image.
    """

    tag: str
    goal: Literal["targeted", "untargeted"]
    objective: Objective
    step_size: float
    random_start: bool


def ours(epsilon: float) -> Settings:
    """Cross-entropy, steps that cross the ball in 32 (PGD's default), a random start."""
    return Settings(
        tag="long run",
        goal="targeted",
        objective=cross_entropy,
        step_size=0.0625 * epsilon,
        random_start=True,
    )


def published(goal: Literal["targeted", "untargeted"]) -> Settings:
    """Those of the attack's public code: the margin's gradient, steps of 0.1/255, from the image itself."""
    return Settings(
        tag=f"published {goal}", goal=goal, objective=margin_loss, step_size=0.1 / 255, random_start=False
    )


class LongRun:
    """Follows the gradient of the pruned pass itself, and keeps beside the last iterate the best one.

    The best is the iterate whose single pass had the largest objective. The state is saved every `SAVE_EVERY` steps.

    **Arguments**
    - `file`: where the state is kept; None for nowhere. A state of other images or another seed is left alone.
    - `streams`: the randomness of each image; `report`: told how many steps of how many are done.

    **Fields**
    - `left`: the images that are still attacked.
    """

    def __init__(
        self,
        classifier: Classifier,
        x: Tensor,
        y: Tensor,
        epsilon: float,
        settings: Settings,
        streams: Streams,
        file: Path | None,
        report: Callable[[int, int], None] = lambda done, total: None,
    ):
        self.classifier, self.x, self.y, self.settings = classifier, x, y, settings
        self.file, self.report = file, report
        self.threat = Linf(epsilon=epsilon, goal=settings.goal)
        self.objective = settings.objective.for_goal(settings.goal)
        self.streams, self.seeds = streams, streams.seeds
        self.done, self.left = 0, torch.arange(len(x), device=x.device)
        start = self.threat.random_start(x, generator=streams) if settings.random_start else x
        self.x_adv = start.clone()
        self.x_best = self.x_adv.clone()
        self.value_best = torch.full((len(x),), -torch.inf, device=x.device)
        if file is not None and file.exists():
            self._load(file)

    def advance(self, steps: int) -> None:
        """Goes on until so many updates are done."""
        step_size = self.settings.step_size
        while self.done < steps and len(self.left):
            left = self.left
            x, y, x_adv = self.x[left], self.y[left], self.x_adv[left]
            est = Exact().estimate(self.classifier, self.objective, x_adv, y, generator=self.streams)
            better = left[est.value > self.value_best[left]]
            self.x_best[better] = self.x_adv[better]
            self.value_best[left] = torch.maximum(self.value_best[left], est.value)
            self.x_adv[left] = self.threat.project(
                x_adv + step_size * self.threat.steepest_ascent(est.grad), x
            )
            self.done += 1
            if self.done % SAVE_EVERY == 0:
                self.report(self.done, steps)
                self._save()

    def leave(self, hit: Tensor) -> None:
        """Takes images out of the run; `hit` says which of those left."""
        self.left, self.streams = self.left[~hit], self.streams[~hit]
        self._save()

    def _save(self) -> None:
        if self.file is None:
            return
        state: dict[str, Tensor] = {
            "x_adv": self.x_adv,
            "x_best": self.x_best,
            "value_best": self.value_best,
            "left": self.left,
            "seeds": self.seeds,
        }
        part = self.file.with_suffix(".part")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, part, {"done": str(self.done), "counter": str(self.streams.counter)})
        part.replace(self.file)

    def _load(self, file: Path) -> None:
        with safe_open(file, "pt") as saved:
            state, told = {name: saved.get_tensor(name) for name in saved.keys()}, saved.metadata()  # noqa: SIM118
        state = {name: tensor.to(self.x.device) for name, tensor in state.items()}
        if not torch.equal(state["seeds"], self.seeds):
            return  # another seed's or another scale's run
        self.x_adv, self.x_best, self.value_best = state["x_adv"], state["x_best"], state["value_best"]
        self.done, self.left = int(told["done"]), state["left"]
        self.streams = Streams(self.seeds[self.left], int(told["counter"]))
