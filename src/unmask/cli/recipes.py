"""From the options of `unmask train` to a recipe."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import UnusableInput
from .options import number

if TYPE_CHECKING:
    from ..data import Data
    from ..training import Trainer

RECIPES = {
    "standard": "no adversary",
    "saturated": "hidden units driven to where they are flat, Nayebi & Ganguli 2017",
    "penalty": "the same by the papers' penalty alone",
    "pgd": "adversarial training, Madry et al. 2018",
    "fgsm": "one step from a random start and a guard, Wong et al. 2020",
    "free": "the same pass moves weights and images, Shafahi et al. 2019",
    "yopo": "most steps through the first layer only, Zhang D. et al. 2019",
    "trades": "clean loss plus beta times instability, Zhang H. et al. 2019",
    "pretraining": "adversarially on --source, then on the data, Hendrycks et al. 2019",
    "selftraining": "a teacher names the images behind --labels, or --unlabelled, Carmon et al. 2019",
}
# Options that only some recipes know, and what these call them.
ONLY = {
    "steps": ("pgd", "trades", "pretraining", "selftraining"),
    "step_size": ("pgd", "fgsm", "free", "yopo", "trades", "pretraining", "selftraining"),
    "replays": ("free",),
    "edge_start": ("fgsm",),
    "guard_every": ("fgsm",),
    "full": ("yopo",),
    "inner": ("yopo",),
    "beta": ("trades", "selftraining"),
    "strength": ("saturated",),
    "first_strength": ("saturated",),
    "reach": ("saturated",),
    "sharpening": ("saturated",),
    "gain": ("saturated", "penalty"),
    "pull": ("penalty",),
    "alone": ("penalty",),
    "source": ("pretraining",),
    "source_epochs": ("pretraining",),
    "labels": ("selftraining",),
    "unlabelled": ("selftraining",),
    "pseudo_rate": ("selftraining",),
    "teacher_epochs": ("selftraining",),
}

# Numbers that make sense, least and most; what is not here is held to its range by the recipe itself.
RANGES = {
    "seed": (0, 2**63 - 1),
    "steps": (1, math.inf),
    "step_size": (1e-6, math.inf),
    "full": (1, math.inf),
    "inner": (0, math.inf),
    "beta": (0, math.inf),
    "strength": (0, math.inf),
    "first_strength": (0, math.inf),
    "reach": (0, math.inf),
    "sharpening": (1e-6, math.inf),
    "gain": (1e-6, math.inf),
    "pull": (0, math.inf),
    "alone": (0, 1),
}


def add_recipe_options(command: argparse.ArgumentParser) -> None:
    """Adds what some recipes know and others do not. Absent ones are None: the recipe's own default."""
    add = command.add_argument
    add("--steps", type=int, metavar="N", help="of the inner attack (default: 10)")
    add("--step-size", type=number, metavar="S", help="of the attack, as a fraction of epsilon")
    add(
        "--edge-start",
        action="store_const",
        const=True,
        help="fgsm: start at a random corner of the ball, not inside; takes --step-size 2 unless one is given",
    )
    add("--replays", type=int, metavar="M", help="free: steps on each minibatch (default: 8)")
    add(
        "--guard-every",
        type=int,
        metavar="N",
        help="fgsm: steps between two checks; 0 for none (default: 50)",
    )
    add("--full", type=int, metavar="M", help="yopo: whole passes per minibatch (default: 5)")
    add("--inner", type=int, metavar="N", help="yopo: steps through the first layer per pass (default: 3)")
    add("--beta", type=number, metavar="B", help="trades, selftraining: weight of robustness (default: 6)")
    add("--strength", type=number, metavar="L", help="saturated: last weight of the penalty (default: 1)")
    add("--first-strength", type=number, metavar="L", help="saturated: its first weight (default: 1e-4)")
    add("--reach", type=number, metavar="R", help="saturated: how far units are driven (default: 16)")
    add("--sharpening", type=number, metavar="K", help="saturated: last steepness of sigmoids (default: 1)")
    add(
        "--gain",
        type=number,
        metavar="G",
        help="saturated: size of the first weights (default: 4; penalty: 1)",
    )
    add(
        "--pull",
        type=number,
        metavar="P",
        help="penalty: its gradient as a multiple of the loss's, tensor by tensor (default: 0.5)",
    )
    add("--alone", type=number, metavar="S", help="penalty: share of steps before it begins (default: 0.25)")
    add("--source", metavar="DATA", help="pretraining: what to pretrain on")
    add("--source-epochs", type=int, metavar="N", help="pretraining: passes over it (default: 20)")
    add(
        "--labels",
        type=int,
        metavar="N",
        help="selftraining: only N labels are known, the first ones or, where data come by class, any",
    )
    add(
        "--unlabelled",
        metavar="DATA",
        help="selftraining: images for the teacher to name: a folder of pictures, a .npy, or as --data, labels unread",
    )
    add(
        "--pseudo-rate",
        type=number,
        metavar="R",
        help="selftraining: minibatches of labelled and pseudo-labelled images take turns, the latter at R times the "
        "learning rate (default: both kinds mixed in each minibatch)",
    )
    add("--teacher-epochs", type=int, metavar="N", help="selftraining: passes of the teacher (default: 20)")


def check(arguments: argparse.Namespace) -> None:
    """**Raises** `UnusableInput` for what is missing, or of no use to the recipe."""
    recipe = arguments.recipe
    for name, (least, most) in RANGES.items():
        value = getattr(arguments, name)
        if value is not None and not least <= value <= most:
            within = f"at least {least:g}" if most == math.inf else f"{least:g} to {most:g}"
            raise UnusableInput(f"--{name.replace('_', '-')} is {value:g}; give {within}")
    for name, recipes in ONLY.items():
        value, option = getattr(arguments, name), f"--{name.replace('_', '-')}"
        if value is not None and recipe not in recipes:
            raise UnusableInput(f"{option} is {value}, but {recipe} has none; it is for {', '.join(recipes)}")
    if arguments.epsilon is None and recipe not in ("standard", "saturated", "penalty"):
        raise UnusableInput(
            f"--epsilon is missing; {recipe} hardens against one, for instance --epsilon 8/255"
        )
    if recipe == "pretraining" and arguments.source is None:
        raise UnusableInput("--source is missing; pretraining cannot do without")
    if recipe == "selftraining" and (arguments.labels is None) == (arguments.unlabelled is None):
        raise UnusableInput(
            "selftraining needs images without labels: give --unlabelled DATA, or --labels N to hide the labels behind "
            "the first N of --data, and not both"
        )
    if arguments.target is not None and arguments.arch is not None:
        raise UnusableInput(
            f"--arch {arguments.arch} and {arguments.target} are two networks; give one of them"
        )


def build(arguments: argparse.Namespace, shared: dict[str, Any], data: Data) -> tuple[Trainer, Data]:
    """The recipe, and the part of `data` that it sees labels of.

    **Arguments**
    - `shared`: fields of every `Loop`: batch size, augmentation and the like.
    """
    from .. import training

    if arguments.recipe == "standard":
        return training.Standard(**shared), data
    if arguments.recipe == "saturated":
        fields = {
            n: getattr(arguments, n) for n in ("strength", "first_strength", "reach", "sharpening", "gain")
        }
        shared = shared | _given(fields) | {"pad": arguments.pad or 0}
        return training.Saturated(**shared), data
    if arguments.recipe == "penalty":
        named: dict[str, Any] = {n: getattr(arguments, n) for n in ("pull", "alone", "gain")}
        named = _without(shared, "half") | _given(named) | {"pad": arguments.pad or 0}
        return training.Penalised(**named), data
    if arguments.recipe == "fgsm":
        attack: Any = training.FastTraining().attack
        if arguments.edge_start:
            attack = replace(attack, edge_start=True, rel_step_size=2.0)
        attack = _stepped(attack, arguments)
        guard = _given({"guard_every": arguments.guard_every})
        return training.FastTraining(**shared, **guard, attack=attack), data
    if arguments.recipe in ("free", "yopo"):
        fields = {"replays": arguments.replays, "full": arguments.full, "inner": arguments.inner}
        fields = _given(fields | {"rel_step_size": arguments.step_size})
        recipe = training.FreeTraining if arguments.recipe == "free" else training.YOPO
        return recipe(**shared, **fields), data
    attack = _stepped(training.AdversarialTraining().attack, arguments)
    if arguments.recipe == "pgd":
        return training.AdversarialTraining(**shared, attack=attack), data
    if arguments.recipe == "trades":
        return training.TRADES(**shared, **_given({"beta": arguments.beta}), attack=attack), data
    if arguments.recipe == "pretraining":
        from ..data import load_training

        source = load_training(arguments.source)
        tuned = {"epochs": 5, "learning_rate": 0.02} | shared
        before = _without(shared, "epochs", "learning_rate") | _given({"epochs": arguments.source_epochs})
        recipe = training.Pretraining(
            source=source,
            before=training.AdversarialTraining(**before, attack=attack),
            after=training.AdversarialTraining(**tuned, attack=attack),
        )
        return recipe, data
    known, unlabelled = _without_labels(arguments, data)
    teacher = _without(shared, "epochs") | _given({"epochs": arguments.teacher_epochs})
    recipe = training.SelfTraining(
        unlabelled=unlabelled,
        teacher=training.Standard(**teacher),
        student=training.TRADES(**shared, **_given({"beta": arguments.beta}), attack=attack),
        labelled_share=0.5,
        pseudo_rate=arguments.pseudo_rate,
    )
    return recipe, known


def _without_labels(arguments: argparse.Namespace, data: Data) -> tuple[Data, Any]:
    """What the labels are known of, and the images `[n, channels, height, width]` for the teacher."""
    if arguments.unlabelled is not None:
        from ..data.unlabelled import load_unlabelled

        return data, load_unlabelled(arguments.unlabelled)
    from ..data.sample import mixed

    if not 0 < arguments.labels < len(data):
        raise UnusableInput(f"--labels is {arguments.labels}; give a number below the {len(data)} examples")
    order = mixed(data.y)  # or the labels that are known would be of the first classes alone
    return data[order[: arguments.labels]], data.x[order[arguments.labels :]]


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def _stepped(attack: Any, arguments: argparse.Namespace) -> Any:
    fields = {"rel_step_size": arguments.step_size}
    if hasattr(attack, "steps"):
        fields["steps"] = arguments.steps
    return replace(attack, **_given(fields))
