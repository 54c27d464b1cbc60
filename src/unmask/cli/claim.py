"""`unmask claim`: writes a claim file, and holds one against the evaluation checklist."""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..claim.checklist import Item, check
from ..claim.claim import parse_claim, read_claim
from ..claim.record import REQUIRED, SECTIONS, Claim
from ..claim.toml import to_toml, toml_value
from ..errors import UnusableInput, plural
from . import options as opt
from .pipes import readers_may_leave

# Defaults that a question starts from are the author's to confirm; these only steer the audit.
UNASKED = ("checkpoint_hash", "allow_pickle", *SECTIONS["The audit"])
STATED = ("box", "goal", "knowledge", "adaptive")
STYLES = {"stated": "green", "audited": "green", "open": "bold red", "yours": "yellow"}
LEGEND = {
    "stated": "in the file",
    "audited": "done by unmask audit",
    "open": "to be done in the file",
    "yours": "to be done where no file can see it",
}


def add_parser(commands: Any) -> None:
    """Adds the subcommand and its two actions."""
    command = commands.add_parser(
        "claim", help="write a claim file, or check one against the evaluation checklist"
    )
    actions = command.add_subparsers(metavar="ACTION", required=True)
    new = actions.add_parser(
        "new",
        help="write a commented claim file, by asking or from options",
        description="Writes a commented claim file from the options; without --target, --norm or --epsilon it asks "
        "for everything in a terminal. This runs the Python file that --target names, to hash the weights, unless "
        "--no-hash.",
    )
    for name, field in Claim.model_fields.items():
        text = (field.description or "").replace("%", "%%")
        action = "append" if name == "attack" else "store"
        new.add_argument(f"--{name.replace('_', '-')}", action=action, metavar="VALUE", help=text)
    new.add_argument("--no-hash", action="store_true", help="leave checkpoint_hash open")
    new.add_argument(
        "--out", type=Path, default=Path("claim.toml"), metavar="FILE", help="default: claim.toml"
    )
    new.set_defaults(run=run_new)
    lint = actions.add_parser(
        "check",
        help="which items of the evaluation checklist a claim leaves open, and the remedy of each",
        description="Holds a claim file against the checklist of Carlini et al. 2019 (arXiv:1902.06705). Exit status "
        "0: it leaves nothing open, 1: it does. Neither network nor data are loaded.",
    )
    lint.add_argument("file", type=Path, metavar="FILE", help="claim.toml")
    lint.add_argument("--json", action="store_true", help="print the items as JSON")
    lint.set_defaults(run=run_check)


def run_new(arguments: argparse.Namespace) -> int:
    """Writes the file; 0."""
    out: Path = arguments.out
    if out.exists():
        raise UnusableInput(f"{out} is already there; remove it, or give another --out")
    given = {name: getattr(arguments, name) for name in Claim.model_fields}
    values = {name: _value(name, text) for name, text in given.items() if text is not None}
    for name, value in values.items():
        _check_one(name, value)
    missing = [name for name in REQUIRED if name not in values]
    if missing and sys.stdin.isatty():
        values = ask(values)
    for name in missing:
        if name not in values:
            raise UnusableInput(f"there is no {name}; give --{name}, or answer in a terminal")
    # A claim file says its threat model in full: these are stated even where nobody chose otherwise.
    values |= {n: Claim.model_fields[n].default for n in STATED if n not in values}
    parse_claim(values, "the command line")
    if "checkpoint_hash" not in values and not arguments.no_hash:
        values |= _hash(values["target"])
    try:
        out.write_text(to_toml(values), encoding="utf-8")
    except OSError as error:
        raise UnusableInput(f"--out {out} cannot be written ({error.strerror}); give another file") from error
    print(f"{out} is written; see what it leaves open with: unmask claim check {out}")
    return 0


def ask(values: Mapping[str, Any]) -> dict[str, Any]:
    """Asks on the terminal for what is not given, again where an answer cannot be."""
    answers = dict(values)
    for name, field in Claim.model_fields.items():
        if name in answers or name in UNASKED:
            continue
        if name == "targets" and answers.get("goal") != "targeted":
            continue
        print(f"\n{field.description}")
        default = "" if name in REQUIRED or field.default is None else f" [{toml_value(field.default)}]"
        while name not in answers:
            try:
                text = input(f"{name}{default}: ").strip()
            except EOFError as error:
                raise UnusableInput(
                    f"the input ended before {name}; give --{name.replace('_', '-')}"
                ) from error
            if not text:
                if name in REQUIRED:
                    print("this one is needed")
                    continue
                if field.default is not None:
                    answers[name] = field.default
                break
            try:
                answers[name] = _value(name, text)
                _check_one(name, answers[name])
            except UnusableInput as error:
                answers.pop(name, None)
                print(error)
    return answers


def run_check(arguments: argparse.Namespace) -> int:
    """0 nothing is left open, 1 something is."""
    items = check(read_claim(arguments.file))
    left = [item for item in items if item.status == "open"]
    with readers_may_leave(sys.stdout):
        if arguments.json:
            print(json.dumps({"open": len(left), "items": [asdict(item) for item in items]}, indent=2))
        else:
            _show(items, len(left))
    return 1 if left else 0


def _show(items: list[Item], left: int) -> None:
    from rich.table import Table
    from rich.text import Text

    from .terminal import console, show_table

    out = console(sys.stdout)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column()
    table.add_column(overflow="fold", style="dim")
    for item in items:
        table.add_row(Text(item.status, style=STYLES[item.status]), item.item, item.remark)
    show_table(table, out)
    out.print("; ".join(f"{status}: {meaning}" for status, meaning in LEGEND.items()))
    out.print(
        f"{left} of {len(items)} items {plural(left, 'is', 'are')} open. A claim that leaves none open may still be "
        "false."
    )


def _value(name: str, text: str | list[str]) -> Any:
    """A value as TOML would read it; what is no TOML is a string, so that nobody has to quote."""
    if isinstance(text, list) or name in ("target", "data", "split", "device"):
        return text
    if (
        opt.whole(name) and not text.removeprefix("-").isdecimal()
    ):  # TOML's 0x10 and 1_000 are no options' numbers
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return [text] if name == "attack" else text


def _check_one(name: str, value: Any) -> None:
    """Refuses a value by itself, whatever the others will be."""
    placeholder = {"target": "file.py:name", "norm": "linf", "epsilon": 0.0}
    parse_claim({**placeholder, name: value}, "the command line")


def _hash(target: str) -> dict[str, str]:
    """The hash of the target's weights; nothing where it has none to see."""
    from ..target.target import load_target

    found = load_target(target).checkpoint_hash
    return {"checkpoint_hash": found} if found else {}
