"""`unmask export`: an audit's results in the formats of other tools."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..audit.records import Report
from ..errors import UnusableInput

FORMATS = ("csv", "markdown", "junit", "sarif", "plots")


def add_parser(commands: Any) -> None:
    """Adds the subcommand."""
    command = commands.add_parser(
        "export",
        help="write an audit's results for other tools",
        description="Writes tables, Markdown, JUnit, SARIF, plots or the adversarial examples of an audit.",
    )
    add = command.add_argument
    add("folder", type=Path, metavar="DIR", help="folder that unmask audit wrote")
    add("--csv", action="store_true", help="attacks.csv, controls.csv, findings.csv and the two curves")
    add("--markdown", action="store_true", help="report.md, for a pull request")
    add("--junit", action="store_true", help="junit.xml, for continuous integration")
    add("--sarif", action="store_true", help="findings.sarif, which code review shows at the line")
    add("--plots", action="store_true", help="the report's plots as SVG")
    add(
        "--adversarial",
        type=Path,
        metavar="FILE",
        help="adversarial examples, labels and places, as .npz, .safetensors or .pt",
    )
    add(
        "--script",
        type=Path,
        metavar="FILE",
        help="the break as a script of its own (torch only, without unmask), its data beside it as .pt",
    )
    add("--out", type=Path, metavar="DIR", help="where to write (default: DIR itself)")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Writes what was asked for and prints the files' names."""
    chosen = [name for name in FORMATS if getattr(arguments, name)]
    if not chosen and arguments.adversarial is None and arguments.script is None:
        raise UnusableInput(
            f"there is nothing to write; give one of --{', --'.join(FORMATS)}, --adversarial FILE or --script FILE"
        )
    report = read_report(arguments.folder)
    out: Path = arguments.out or arguments.folder
    out.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        for file, content in WRITERS[name](report).items():
            (out / file).write_text(content, encoding="utf-8")
            print(out / file)
    if arguments.adversarial is not None:
        _adversarial(arguments.folder, arguments.adversarial)
        print(arguments.adversarial)
    if arguments.script is not None:
        from .export_script import write

        print(*write(arguments.folder, report, arguments.script), sep="\n")
    return 0


def read_report(folder: Path) -> Report:
    """The report in a folder. **Raises** `UnusableInput` where it is missing or damaged."""
    from pydantic import ValidationError

    file = folder / "report.json"
    if not file.is_file():
        raise UnusableInput(f"there is no {file}; give the folder that unmask audit wrote")
    try:
        return Report.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise UnusableInput(
            f"{file} is no report of this version ({where}: {first['msg']}); audit again"
        ) from error


def _csv(report: Report) -> dict[str, str]:
    from ..report.export import tables

    return tables(report)


def _markdown(report: Report) -> dict[str, str]:
    from ..report.export import markdown

    return {"report.md": markdown(report)}


def _junit(report: Report) -> dict[str, str]:
    from ..report.export import junit

    return {"junit.xml": junit(report)}


def _sarif(report: Report) -> dict[str, str]:
    from ..report.export import sarif

    return {"findings.sarif": sarif(report)}


def _plots(report: Report) -> dict[str, str]:
    from ..report import plots

    drawn = {}
    if report.accuracy_against_epsilon:
        points = report.accuracy_against_epsilon
        drawn["accuracy_against_epsilon.svg"] = plots.accuracy_against_epsilon(
            points, report.threat.epsilon, report.claim
        )
    if report.accuracy_against_cost:
        drawn["accuracy_against_cost.svg"] = plots.accuracy_against_cost(
            report.accuracy_against_cost, report.examples, report.claim
        )
    if report.gradient_histogram is not None:
        drawn["gradient_histogram.svg"] = plots.gradient_histogram(report.gradient_histogram)
    return {name: str(figure) for name, figure in drawn.items()}


WRITERS: dict[str, Callable[[Report], dict[str, str]]] = {
    "csv": _csv,
    "markdown": _markdown,
    "junit": _junit,
    "sarif": _sarif,
    "plots": _plots,
}


def _adversarial(folder: Path, file: Path) -> None:
    from ..audit.evidence import read_evidence

    evidence = read_evidence(folder)
    names = {
        "x": "x_adv",
        "y": "label",
        "index": "index",
        "prediction": "prediction",
        "failure_rate": "failure_rate",
    }
    tensors = {name: getattr(evidence, field).contiguous() for name, field in names.items()}
    kind = file.suffix.lower()
    if kind == ".npz":
        import numpy as np

        np.savez(file, allow_pickle=False, **{name: t.numpy() for name, t in tensors.items()})
    elif kind == ".safetensors":
        from safetensors.torch import save_file

        save_file(tensors, file)
    elif kind in (".pt", ".pth"):
        import torch

        torch.save(tensors, file)
    else:
        raise UnusableInput(f"--adversarial is {file}; give a name that ends in .npz, .safetensors or .pt")
