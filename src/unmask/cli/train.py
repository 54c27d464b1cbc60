"""`unmask train RECIPE`: a network, its weights, and the command that made them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Diverged, NoSuchSplit, UnusableInput
from .architectures import ARCHITECTURES, architecture
from .device import choose_device
from .epochs import accuracies_of, describe, progress_bar, total_passes
from .folders import writable
from .options import BALLS, number
from .recipes import ONLY, RECIPES, add_recipe_options, build, check
from .trained import given_network, write_network

if TYPE_CHECKING:
    from ..training import History

ROBUST_EXAMPLES = 1000  # of the test split, for the short attack at the end


def add_parser(commands: Any) -> None:
    """Adds the subcommand."""
    listed = "; ".join(f"{name}: {what}" for name, what in RECIPES.items())
    command = commands.add_parser(
        "train",
        help="train a network, hardened or not",
        description="Trains a network and writes network.safetensors, network.py (a target for unmask audit), "
        "train.json and a checkpoint to DIR. If DIR holds a checkpoint, training goes on behind it. Recipes: "
        f"{listed}.",
    )
    add = command.add_argument
    add("recipe", choices=tuple(RECIPES), metavar="RECIPE", help=f"one of {', '.join(RECIPES)}")
    add(
        "target",
        nargs="?",
        metavar="TARGET",
        help="a network of your own, file.py:callable or package.module:callable, trained on from the weights that it "
        "has; without it, --arch is trained from scratch",
    )
    add("--data", default="digits", metavar="DATA", help="digits (default), mnist, cifar10, or as for audit")
    add("--arch", choices=ARCHITECTURES, help="architecture (default: cnn)")
    add(
        "--norm",
        choices=BALLS,
        default="linf",
        help="norm of the perturbation (default: linf)",
    )
    add("--epsilon", type=number, metavar="EPS", help="its radius, for instance 8/255")
    add("--epochs", type=int, metavar="N", help="passes over the data (default: 20)")
    add("--batch-size", type=int, metavar="N", help="examples per step (default: 128)")
    add("--learning-rate", type=float, metavar="RATE", help="at its peak (default: 0.2)")
    add("--examples", type=int, metavar="N", help="train on N, sampled as by `unmask audit` (default: all)")
    add("--pad", type=int, metavar="N", help="random shift in pixels (default: 4 in colour, else 1)")
    add("--average", type=float, metavar="A", help="decay of the weights' moving average (default: 0.995)")
    add(
        "--ramp",
        type=number,
        metavar="R",
        help="share of training in which epsilon rises from 0 (default: 0)",
    )
    add_recipe_options(command)
    add(
        "--validation",
        type=int,
        metavar="N",
        help="hold the last N training examples out, or N by lot where they come by class, and measure on them "
        "after every epoch; with an epsilon the best epoch's weights stay (default: 0)",
    )
    add("--patience", type=int, metavar="N", help="stop after N epochs without better robust accuracy")
    add("--tensorboard", action="store_true", help="write curves to DIR/tensorboard")
    add("--half", action="store_true", help="bfloat16 passes: faster where the processor has it")
    add("--compile", action="store_true", help="torch.compile: faster after a minute; needs a C++ compiler")
    add("--seed", type=int, default=0, metavar="N", help="seed of all randomness (default: 0)")
    add("--device", metavar="DEVICE", help="cpu, cuda, … (default: cuda if there is one)")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Trains, measures on the test split, writes."""
    check(arguments)
    if int(os.environ.get("RANK", "0")):
        return _run(arguments)
    with writable(arguments.out):
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    import torch

    from ..attacks import PGD
    from ..data import load
    from ..threat import norm_ball, threat_model
    from ..training import Processes, tensorboard
    from ..training.validation import accuracies
    from .terminal import console

    err = console(sys.stderr)
    device = choose_device(arguments.device)
    processes = Processes.join(device)
    if processes.fabric is not None:
        device = str(processes.fabric.device)
    threat = None
    if arguments.epsilon is not None:
        threat = norm_ball(threat_model(arguments.norm, arguments.epsilon), "`unmask train`")
    try:
        data = load(arguments.data, split="train", examples=arguments.examples, seed=arguments.seed)
        test = load(arguments.data, split="test")  # before hours of training, not after
    except NoSuchSplit as error:
        raise UnusableInput(
            f"{arguments.data} has no split to train on, beside the one to measure on in the end; put train_x, "
            "train_y, test_x and test_y into one .npz"
        ) from error
    if data.box is not None:
        raise UnusableInput(
            f"{arguments.data} is in units of a box that is no part of the network; train on data in [0, 1]"
        )
    if threat is not None:
        threat.check_radius(data.x.shape[1:])
    data, validation = split_off(data, arguments.validation)
    shape, classes = list(data.x.shape[1:]), int(data.y.max()) + 1
    trainer, seen = build(
        arguments, shared_fields(arguments, colour=shape[0] == 3) | {"processes": processes}, data
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(arguments.seed)
        if arguments.target is None:
            network = architecture(arguments.arch or "cnn", shape, classes)
        else:
            network = given_network(arguments.target, data)
    network.to(device=device)
    if not any(p.ndim == 5 for p in network.parameters()):  # channels last is a layout of four dimensions
        network.to(memory_format=torch.channels_last)  # pyright: ignore
    write_curves = (
        tensorboard(arguments.out / "tensorboard") if arguments.tensorboard and processes.first else None
    )
    total, told = total_passes(trainer), 0

    with progress_bar(err, total) as bar:

        def progress(history: History) -> None:
            nonlocal told
            for event in history.events[told:]:
                err.print(event)
            told = len(history.events)
            line = describe(history, total)
            bar.update(
                bar.task_ids[0],
                completed=len(history.epochs),
                description=", ".join(accuracies_of(history.epochs[-1])),
            )
            err.print(line)
            if write_curves is not None:
                write_curves(history)

        try:
            history = trainer.fit(
                network,
                seen,
                threat,
                generator=torch.Generator().manual_seed(arguments.seed),
                validation=validation,
                checkpoint=arguments.out / "checkpoint.safetensors",
                progress=progress,
            )
        except Diverged as error:
            if error.epochs and processes.first:
                write_network(arguments, network, shape, classes)
            raise
    if not processes.first:
        return 0
    target = write_network(arguments, network, shape, classes)
    clean, _ = accuracies(network, test, None, PGD(), 500, arguments.seed)
    few, _ = split_off(test, max(len(test) - ROBUST_EXAMPLES, 0))
    attack = PGD(steps=20, rel_step_size=0.125)
    robust = None if threat is None else accuracies(network, few, threat, attack, 500, arguments.seed)[1]
    record = {
        "command": command_line(arguments),
        "test_accuracy": clean,
        "test_examples": len(test),
        "threat": None if threat is None else {"norm": threat.norm, "epsilon": threat.epsilon},
        "robust_test_accuracy": robust,
        "robust_test_examples": None if robust is None else len(few),
        "robust_test_attack": None if robust is None else repr(attack),
        "parameters": sum(p.numel() for p in network.parameters()),
        "torch": torch.__version__,
        "device": device,
        "epochs": history.record(),
        "events": history.events,
    }
    (arguments.out / "train.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"clean accuracy {100 * clean:.2f} % of {len(test)} test images")
    if robust is not None and threat is not None:
        print(
            f"at most {100 * robust:.2f} % of {len(few)} withstand a short PGD; for a number to report: unmask audit "
            f"{target}:network --data {arguments.data} --norm {threat.norm} --epsilon {threat.epsilon:g}"
        )
    print(arguments.out / "network.safetensors")
    return 0


def shared_fields(arguments: argparse.Namespace, *, colour: bool) -> dict[str, Any]:
    """The fields that every recipe has, as far as they are given."""
    names = ("epochs", "batch_size", "learning_rate", "average", "ramp", "patience")
    fields = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    pad = (4 if colour else 1) if arguments.pad is None else arguments.pad
    return fields | {"pad": pad, "mirror": colour, "half": arguments.half, "compiled": arguments.compile}


def split_off(data: Any, count: int | None) -> tuple[Any, Any]:
    """All but the last `count` examples, and those, or by lot where data come by class; None where there are none."""
    from ..data.sample import mixed

    if not count:
        return data, None
    if not 0 < count < len(data):
        raise UnusableInput(f"--validation is {count} of {len(data)} examples; give fewer")
    rest, held = mixed(data.y).split([len(data) - count, count])
    return data[rest.sort().values], data[held.sort().values]


def command_line(arguments: argparse.Namespace) -> str:
    """The exact command, for whoever wants the same weights."""
    words = ["unmask train", arguments.recipe, *([] if arguments.target is None else [arguments.target])]
    names = [
        "data",
        "arch",
        "epochs",
        "batch_size",
        "learning_rate",
        "examples",
        "pad",
        "average",
        "ramp",
        *ONLY,
    ]
    if arguments.epsilon is not None:
        names += ["norm", "epsilon"]
    for name in (*names, "validation", "patience", "seed"):
        value = getattr(arguments, name)
        if value is not None:
            words.append(f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}"))
    words += [f"--{name}" for name in ("half", "compile") if getattr(arguments, name)]
    return " ".join([*words, "--out DIR"])
