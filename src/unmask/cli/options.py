"""The options of `unmask audit`: from a claim file, an interrupted run, and the command line, which wins."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..claim.claim import Claim, parse_number, read_claim
from ..errors import UnusableInput

COMMAND = "command.json"
NORMS = ("linf", "l2", "l1")
BUDGETS = ("quick", "standard", "thorough")
RULES = ("random", "least-likely")
# What stands only in a claim file: nobody overrides what an author has promised.
PROMISES = (
    "checkpoint_hash",
    "false_positive_rate",
    "box",
    "adaptive",
    "clean_accuracy",
)
DEFAULTS: dict[str, Any] = {
    name: None if field.is_required() else field.default
    for name, field in Claim.model_fields.items()
    if name not in PROMISES
}


def number(text: str) -> float:
    """A finite number, plain or as a fraction.

    >>> number("0.3"), number("8/255") == 8 / 255
    (0.3, True)
    """
    try:
        return parse_number(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def rule(text: str) -> str | int:
    """How targets are chosen: by a rule, or all the same class.

    >>> rule("random"), rule("3")
    ('random', 3)
    """
    if text not in RULES and not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"{text!r} is no rule; give {', '.join(RULES)}, or a class such as 3"
        )
    return text if text in RULES else int(text)


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds every option that decides what is audited. Absent ones are None, for other sources to fill."""
    add_loading_options(command)
    add = command.add_argument
    add("--claim", type=number, metavar="ACC", help="the claimed accuracy under attack, for instance 0.83")
    add("--goal", choices=("untargeted", "targeted"), help="the adversary's (default: untargeted)")
    add("--targets", type=rule, metavar="RULE", help="of a targeted goal: random, least-likely, or a class")
    add(
        "--knowledge",
        choices=("white-box", "scores", "labels"),
        help="what the adversary knows: everything (default), or the answers to queries",
    )
    add("--queries", type=int, metavar="N", help="how often such an adversary may ask about one image")
    add("--passes", type=int, metavar="K", help="the defence predicts by the mean over K passes (default: 1)")
    add("--budget", choices=BUDGETS, help="how much to try (default: standard)")
    add("--exhaustive", action="store_true", default=None, help="go on when the claim is already decided")
    add(
        "--defense",
        action="append",
        metavar="NAME(…)",
        help='put a defence in front of TARGET, for instance "jpeg(quality=75)"; may be given several times',
    )
    add(
        "--attack",
        action="append",
        metavar="FILE:NAME",
        help="an attack of your own; may be given several times",
    )


def add_loading_options(command: argparse.ArgumentParser, *, examples: str = "all") -> None:
    """Adds those that say which examples, in which ball, with which seed and where. Absent ones are None.

    `examples` says in the help how many are taken by default.
    """
    add = command.add_argument
    add(
        "--data",
        metavar="DATA",
        help="digits (default), mnist, cifar10, a Hugging Face data set, .npz, .safetensors",
    )
    add("--norm", choices=NORMS, help="norm of the perturbation")
    add(
        "--epsilon",
        type=number,
        metavar="EPS",
        help="its radius in units of the image range, for instance 8/255",
    )
    add("--examples", type=int, metavar="N", help=f"the first N examples (default: {examples})")
    add("--split", metavar="NAME", help="split of the data set (default: test)")
    add(
        "--batch-size",
        type=int,
        metavar="N",
        help="examples per batch (default: 256); halved if memory runs out",
    )
    add("--seed", type=int, metavar="N", help="seed of all randomness (default: 0)")
    add("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, … (default: cuda if there is one)")
    add(
        "--allow-pickle",
        action="store_true",
        default=None,
        help="read pickled data, which runs the code inside",
    )


def gather(arguments: argparse.Namespace, resumed: Path | None) -> dict[str, Any]:
    """All options with their values. **Raises** `UnusableInput` for those that cannot be."""
    options = dict(DEFAULTS)
    if resumed is not None:
        options |= _stored(resumed)
    target = arguments.target
    if target is not None and target.endswith(".toml"):
        options |= claim_file(Path(target))
        target = None
    given = {name: getattr(arguments, name, None) for name in DEFAULTS} | {"target": target}
    options |= {name: value for name, value in given.items() if value is not None}
    for defence in getattr(arguments, "defense", None) or ():
        options["target"] = f"{options['target']} + {defence.strip()}"
    _refuse_nonsense(options)
    return options


def store(folder: Path, options: dict[str, Any]) -> None:
    """Keeps the options beside the journal, so that `--resume DIR` needs no others."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / COMMAND).write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")


def claim_file(path: Path) -> dict[str, Any]:
    """What a claim file states."""
    claim = read_claim(path)
    return {name: getattr(claim, name) for name in claim.model_fields_set}


def as_claim(options: dict[str, Any]) -> Claim:
    """Checked options, promises among them, as one record."""
    return Claim.model_validate({name: value for name, value in options.items() if value is not None})


def _stored(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / COMMAND).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnusableInput(f"{folder} holds no interrupted audit; give the folder named by --out") from error
    except ValueError as error:
        raise UnusableInput(
            f"{folder / COMMAND} is damaged; give all options again beside --resume"
        ) from error


def _refuse_nonsense(options: dict[str, Any]) -> None:
    if options["target"] is None:
        raise UnusableInput(
            "there is no target; give path/to/file.py:callable, package.module:callable or a claim.toml"
        )
    for name, example in (("norm", "linf"), ("epsilon", "8/255")):
        if options[name] is None:
            raise UnusableInput(
                f"--{name} is missing; state the threat model, for instance --{name} {example}"
            )
    if options["norm"] not in NORMS:
        raise UnusableInput(f"--norm is {options['norm']!r}; give one of {', '.join(NORMS)}")
    if options["budget"] not in BUDGETS:
        raise UnusableInput(f"--budget is {options['budget']!r}; give one of {', '.join(BUDGETS)}")
    if not options["epsilon"] >= 0:
        raise UnusableInput(f"--epsilon is {options['epsilon']:g}; give a number that is zero or larger")
    claim = options["claim"]
    if claim is not None and not 0 <= claim <= 1:
        raise UnusableInput(
            f"--claim is {claim:g}; give an accuracy between 0 and 1, for instance {claim / 100:g}"
        )
    for name in ("examples", "batch_size", "passes", "queries"):
        value = options[name]
        if value is not None and value < 1:
            raise UnusableInput(f"--{name.replace('_', '-')} is {value}; give at least 1")
