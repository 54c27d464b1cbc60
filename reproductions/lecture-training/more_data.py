"""More data: few labels beside another data set, and beside images without labels."""

from __future__ import annotations

from dataclasses import replace

from schedules import Scale

from unmask.data import Data
from unmask.training import Loop, Pretraining, SelfTraining, Trainer


def with_another_task(
    recipes: dict[str, Loop], scale: Scale, data: Data, *, pretrained: bool
) -> tuple[Trainer, Data]:
    """Few labels of classes 5 to 9, with and without robust pretraining on classes 0 to 4, all of it labelled."""
    target = moved(data[data.y >= 5])
    target = target[: scale.labels]
    loop = recipes["pgd"]
    # As many passes over the few images as cost what the whole data set costs.
    alone = replace(loop, batch_size=min(32, len(target)), epochs=3 * scale.small_epochs)
    if not pretrained:
        return alone, target
    # Epsilon from 0 on would undo what was learnt.
    tuned = replace(alone, learning_rate=scale.tuned_rate, ramp=0.0)
    return Pretraining(source=data[data.y < 5], before=loop, after=tuned), target


def with_unlabelled(
    recipes: dict[str, Loop], scale: Scale, data: Data, *, unlabelled: bool, pseudo_rate: float | None = None
) -> tuple[Trainer, Data]:
    """TRADES on the first labels, with and without the images behind them under a teacher's labels.

    With a `pseudo_rate`, minibatches of both kinds take turns; else each minibatch mixes them.
    """
    known = data[: scale.labels]
    others = data.x[len(known) :]
    student = replace(recipes["trades"], learning_rate=scale.few_rate)
    if unlabelled:
        teacher = replace(recipes["standard"], batch_size=min(32, len(known)), epochs=40)
        recipe = SelfTraining(unlabelled=others, teacher=teacher, student=student, pseudo_rate=pseudo_rate)
        return recipe, known
    # As many steps, of as many images, as the other row's student.
    steps = 2 * len(others) // scale.batch_size * scale.small_epochs
    return replace(student, epochs=max(steps // (len(known) // scale.batch_size), 1)), known


def moved(data: Data) -> Data:
    """Classes 5 to 9 as 0 to 4."""
    return replace(data, y=data.y - 5)
