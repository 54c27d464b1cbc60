"""`unmask train RECIPE`: a network, its weights, and the command that made them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UnusableInput

if TYPE_CHECKING:
    from torch import nn

ARCHITECTURES = ("mlp", "cnn", "resnet20", "preact_resnet18")
RECIPES = ("standard",)


def add_parser(commands: Any) -> None:
    """Adds the subcommand."""
    command = commands.add_parser(
        "train",
        help="train a network",
        description="Trains a network and writes network.safetensors, train.json and a checkpoint to DIR. If "
        "DIR holds a checkpoint, training goes on behind it.",
    )
    add = command.add_argument
    add("recipe", choices=RECIPES, metavar="RECIPE", help=f"one of {', '.join(RECIPES)}")
    add("--data", default="digits", metavar="DATA", help="digits (default), mnist, cifar10, or as for audit")
    add("--arch", default="cnn", choices=ARCHITECTURES, help="architecture (default: cnn)")
    add("--epochs", type=int, default=20, metavar="N", help="passes over the data (default: 20)")
    add("--batch-size", type=int, default=128, metavar="N", help="examples per step (default: 128)")
    add("--learning-rate", type=float, default=0.2, metavar="RATE", help="at its peak (default: 0.2)")
    add("--examples", type=int, metavar="N", help="train on the first N examples (default: all)")
    add(
        "--pad",
        type=int,
        default=None,
        metavar="N",
        help="random shift in pixels (default: 4 in colour, else 1)",
    )
    add("--half", action="store_true", help="bfloat16 passes: faster where the processor has it")
    add("--compile", action="store_true", help="torch.compile: faster after a minute; needs a C++ compiler")
    add("--seed", type=int, default=0, metavar="N", help="seed of all randomness (default: 0)")
    add("--device", default=None, metavar="DEVICE", help="cpu, cuda, … (default: cuda if there is one)")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Trains, measures on the test split, writes."""
    import torch
    from safetensors.torch import save_file

    from ..data import load
    from ..training import Standard
    from .terminal import console

    err = console(sys.stderr)
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    data = load(arguments.data, split="train", examples=arguments.examples)
    classes, channels = int(data.y.max()) + 1, data.x.shape[1]
    colour = channels == 3
    trainer = Standard(
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        pad=(4 if colour else 1) if arguments.pad is None else arguments.pad,
        mirror=colour,
        half=arguments.half,
        compiled=arguments.compile,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(arguments.seed)
        network = architecture(arguments.arch, data.x.shape[1:], classes)
    network.to(device=device).to(memory_format=torch.channels_last)  # pyright: ignore

    def progress(history: Any) -> None:
        last = history.epochs[-1]
        err.print(
            f"epoch {len(history.epochs)} of {trainer.epochs}: loss {last.loss:.4f}, training accuracy "
            f"{100 * last.accuracy:.2f} %, {last.seconds:.0f} s"
        )

    history = trainer.fit(
        network,
        data,
        None,
        generator=torch.Generator().manual_seed(arguments.seed),
        checkpoint=arguments.out / "checkpoint.safetensors",
        progress=progress,
    )
    save_file(
        {name: t.cpu().contiguous() for name, t in network.state_dict().items()},
        arguments.out / "network.safetensors",
    )
    test = load(arguments.data, split="test")
    with torch.no_grad():
        right = sum(
            int((network(x.to(device)).argmax(1).cpu() == y).sum())
            for x, y in zip(test.x.split(500), test.y.split(500), strict=True)
        )
    record = {
        "command": command_line(arguments),
        "test_accuracy": right / len(test),
        "test_examples": len(test),
        "parameters": sum(p.numel() for p in network.parameters()),
        "torch": torch.__version__,
        "device": device,
        "epochs": history.record(),
    }
    (arguments.out / "train.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"clean accuracy {100 * right / len(test):.2f} % of {len(test)} test images")
    print(arguments.out / "network.safetensors")
    return 0


def architecture(name: str, shape: Sequence[int], classes: int) -> nn.Module:
    """One of the zoo's networks, untrained, for images of `shape` `[channels, height, width]`."""
    from ..zoo import CNN, MLP, PreActResNet18, ResNet20

    channels, height, width = shape
    if name == "mlp":
        return MLP([channels * height * width, 200, 200, classes])
    if name == "cnn":
        return CNN(height, channels=channels, classes=classes)
    return {"resnet20": ResNet20, "preact_resnet18": PreActResNet18}[name](channels=channels, classes=classes)


def command_line(arguments: argparse.Namespace) -> str:
    """The exact command, for whoever wants the same weights."""
    if arguments.recipe not in RECIPES:
        raise UnusableInput(f"the recipe is {arguments.recipe!r}; choose one of {', '.join(RECIPES)}")
    words = ["unmask train", arguments.recipe]
    for name in ("data", "arch", "epochs", "batch_size", "learning_rate", "examples", "pad", "seed"):
        value = getattr(arguments, name)
        if value is not None:
            words.append(f"--{name.replace('_', '-')} {value}")
    words += [f"--{name}" for name in ("half", "compile") if getattr(arguments, name)]
    return " ".join([*words, "--out DIR"])
