"""How much is trained, by which recipes, at which rates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from unmask.attacks import FGSM
from unmask.training import (
    TRADES,
    YOPO,
    AdversarialTraining,
    FastTraining,
    FreeTraining,
    Loop,
    Standard,
)

GUARD_EVERY = 100  # steps between two checks of fast training's guard
TURNS = (1.0, 0.3)  # learning rates of pseudo-labelled minibatches, as shares of the labelled ones
SHAPES = ((3, 5), (2, 5))  # m and n of YOPO-m-n beside its own, 5 and 3


@dataclass(frozen=True)
class Scale:
    """How much is trained.

    **Fields**
    - `examples`: of the training split, for the recipes' accuracies; `small`: for everything else.
    - `attacked`: of the test split; `audited`: of these, by the audit.
    - `epochs`, `small_epochs`: passes over either; free in its own count, so that it makes as many passes here.
    - `ramp`: share of the steps in which epsilon rises.
    - `rate`: learning rate; `free_rate`: of Free, which steps `replays` times on each minibatch; `trades_rate`: of
      TRADES; `few_rate`: of TRADES on few labels, alone and with self-training; `tuned_rate`: after pretraining, from
      epsilon's full size on.
    - `half`: bfloat16 passes for the recipes' accuracies.
    - `labels`: known to fine-tuning and to self-training; `rounds`: of the timing.
    """

    data: str
    epsilon: float
    examples: int | None
    small: int | None
    attacked: int
    audited: int
    epochs: int
    small_epochs: int
    batch_size: int
    replays: int
    ramp: float
    rate: float
    free_rate: float
    trades_rate: float
    few_rate: float
    tuned_rate: float
    half: bool
    labels: int
    rounds: int


FULL = Scale(
    data="mnist",
    epsilon=0.3,
    examples=None,
    small=6000,
    attacked=1000,
    audited=100,
    epochs=4,
    small_epochs=10,
    batch_size=64,
    replays=4,
    ramp=0.4,
    rate=0.05,
    free_rate=0.03,
    trades_rate=0.03,
    few_rate=0.02,
    tuned_rate=0.02,
    half=True,
    labels=500,
    rounds=3,
)
QUICK = Scale(
    data="digits",
    epsilon=0.15,
    examples=None,
    small=None,
    attacked=500,
    audited=50,
    epochs=12,
    small_epochs=12,
    batch_size=64,
    replays=4,
    ramp=0.0,
    rate=0.1,
    free_rate=0.1,
    trades_rate=0.1,
    few_rate=0.1,
    tuned_rate=0.1,
    half=False,
    labels=80,
    rounds=5,
)


def recipes(scale: Scale, epochs: int, *, half: bool) -> dict[str, Loop]:
    """Every recipe, for as many passes over the data."""
    plain: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": scale.batch_size,
        "learning_rate": scale.rate,
        "pad": 0,
        "mirror": False,
        "average": 0.98,
        "ramp": scale.ramp,
        "half": half,
    }
    edge = FGSM(edge_start=True, rel_step_size=2.0)
    free: dict[str, Any] = {"epochs": epochs * scale.replays, "learning_rate": scale.free_rate}
    longer: dict[str, Any] = {"epochs": 3 * epochs // 2}
    return {
        "standard": Standard(**plain),
        "pgd": AdversarialTraining(**plain),
        "fgsm": FastTraining(**plain, guard_every=GUARD_EVERY),
        "fgsm-edge": FastTraining(**plain, guard_every=GUARD_EVERY, attack=edge),
        "fgsm-edge-long": FastTraining(**plain | longer, guard_every=GUARD_EVERY, attack=edge),
        "free": FreeTraining(**plain | free, replays=scale.replays),
        "yopo-5-3": YOPO(**plain),
        **{f"yopo-{m}-{n}": replace(YOPO(**plain), full=m, inner=n) for m, n in SHAPES},
        "trades": replace(TRADES(**plain), learning_rate=scale.trades_rate),
    }
