"""`unmask reproduce NAME`: a paper's figures beside ours."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import platform
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import UnusableInput

HERE = Path(__file__).resolve().parents[3] / "reproductions"


def add_parser(commands: Any) -> None:
    """Adds the subcommand."""
    command = commands.add_parser(
        "reproduce",
        help="a paper's figures beside ours",
        description="Runs reproductions/NAME/run.py of a checkout of unmask, row by row, and writes "
        "results.json, table.md and its figures to DIR. Rows that DIR already holds are not run again.",
    )
    command.add_argument("name", metavar="NAME", help="folder below reproductions/, for instance sap")
    command.add_argument(
        "--quick", action="store_true", help="minutes, on digits: that it works, not that it agrees"
    )
    command.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of all randomness (default: 0)"
    )
    command.add_argument("--only", metavar="TEXT", help="just the rows whose name contains TEXT")
    command.add_argument("--out", type=Path, metavar="DIR", help="default: runs/reproduce-NAME[-quick]")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """0 once every row is there."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from .terminal import console

    module = paper(arguments.name)
    quick = "-quick" if arguments.quick else ""
    out = arguments.out or Path("runs", f"reproduce-{arguments.name}{quick}")
    story = module.Story(arguments.quick, arguments.seed)
    rows = module.rows(story)
    if arguments.only and not any(arguments.only in name for name in rows):
        raise UnusableInput(
            f"no row of {arguments.name} contains {arguments.only!r}; there are {'; '.join(rows)}"
        )
    settings = {"name": arguments.name, "quick": arguments.quick, "seed": arguments.seed}
    done = finished(out / "results.json", settings)
    err = console(sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("", total=len(rows))
        for name, (published, measure) in rows.items():
            bar.update(task, description=name, completed=len(done))
            if hasattr(story, "watch"):  # a row that takes long saves its state and says where it is

                def report(part: int, of: int, name: str = name) -> None:
                    bar.update(task, description=f"{name}: {part:,} of {of:,}")

                story.watch(out, name, report)
            if name in done or (arguments.only and arguments.only not in name):
                continue
            began = time.perf_counter()
            row = measure()
            done[name] = {**row, "published": published, "seconds": time.perf_counter() - began}
            save(out, settings, done, list(rows), module)
            err.print(f"{name}: {module.describe(row)}, {done[name]['seconds']:.0f} s")
    if hasattr(module, "plots"):
        for name, figure in module.plots(done).items():
            if name.endswith(".csv"):  # the numbers behind a figure: dictionaries of the same keys
                with (out / name).open("w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, list(figure[0]))
                    writer.writeheader()
                    writer.writerows(figure)
            else:
                figure.savefig(out / name, dpi=150)
    print((out / "table.md").read_text(encoding="utf-8"), end="")
    return 0


def paper(name: str) -> ModuleType:
    """The `run.py` of one reproduction. **Raises** `UnusableInput` where there is none."""
    file = HERE / name / "run.py"
    if not file.is_file():
        known = sorted(p.parent.relative_to(HERE).as_posix() for p in HERE.rglob("run.py"))
        raise UnusableInput(
            f"there is no reproduction {name!r} in {HERE.name}/; choose one of {', '.join(known)}"
            if known
            else "the folder reproductions/ is not here; run this from a checkout of unmask"
        )
    spec = importlib.util.spec_from_file_location(f"unmask_reproduction_{name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def finished(file: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Rows of an earlier, interrupted run with the same settings."""
    if not file.exists():
        return {}
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        same = stored["settings"] == settings
    except (ValueError, KeyError) as error:
        raise UnusableInput(f"{file} is damaged; delete it or give another --out") from error
    if not same:
        raise UnusableInput(
            f"{file} was made with {stored['settings']}; give the same options or another --out"
        )
    return stored["rows"]


def save(
    out: Path, settings: dict[str, Any], done: dict[str, Any], order: list[str], module: ModuleType
) -> None:
    """Writes what is known so far, in the table's own order."""
    import torch

    out.mkdir(parents=True, exist_ok=True)
    kept = {name: done[name] for name in order if name in done}
    environment = {"python": platform.python_version(), "torch": torch.__version__, "device": "cpu"}
    record = {"settings": settings, "environment": environment, "rows": kept}
    lines = ["| | published | ours, 95 % interval | images | seconds |", "|---|---|---|---|---|"]
    for name in order:
        row = kept.get(name)
        cells = (
            ("-", "not run", "-", "-")
            if row is None
            else (
                row["published"],
                module.describe(row),
                str(row.get("images", "-")),
                f"{row['seconds']:.0f}",
            )
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for name, text in (("results.json", json.dumps(record, indent=2)), ("table.md", "\n".join(lines))):
        unfinished = out / f"{name}.part"
        unfinished.write_text(text + "\n", encoding="utf-8")
        unfinished.replace(out / name)
