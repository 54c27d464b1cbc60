"""Rows that are measured, kept as they end, and written beside the published figures."""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import UnusableInput
from ..statistics import clopper_pearson
from .request import Request

Row = dict[str, Any]
HEAD: tuple[str, ...] = ("", "published", "ours, 95 % interval", "images", "seeds", "seconds", "command")


class Table:
    """The rows of one folder, by name and seed; `results.json` and `table.md` follow every change.

    **Raises** `UnusableInput` where the folder holds rows of other settings, or a damaged file.
    """

    def __init__(self, folder: Path, request: Request, module: ModuleType, published: Mapping[str, str]):
        self.folder, self.request, self.module, self.published = folder, request, module, published
        self.runs: dict[str, dict[int, Row]] = _stored(folder / "results.json", request.settings())

    def has(self, name: str, seed: int) -> bool:
        """Whether that row was measured with that seed."""
        return seed in self.runs.get(name, {})

    def add(self, name: str, seed: int, row: Row) -> None:
        """Keeps a row, and writes the files."""
        self.runs.setdefault(name, {})[seed] = row
        self.save()

    def rows(self) -> dict[str, Row]:
        """Each row over its seeds, in the table's own order."""
        return {
            name: {**over_seeds(self.runs[name]), "published": said}
            for name, said in self.published.items()
            if name in self.runs
        }

    def cells(self, name: str, row: Row | None) -> Iterable[str]:
        """One line of the table."""
        if row is None:
            return name, self.published[name], "not run", "-", "-", "-", "-"
        runs = self.runs[name]
        words = self.module.describe(row)
        if len(runs) > 1 and "each" not in row:
            words = "; ".join(
                f"seed {seed}: {self.module.describe(run)}" for seed, run in sorted(runs.items())
            )
        elif "each" in row:
            words += f", over seeds {100 * min(row['each']):.1f} to {100 * max(row['each']):.1f}"
        seeds = ", ".join(str(seed) for seed in sorted(runs))
        seconds = sum(run["seconds"] for run in runs.values())
        command = f"`{self.request.command(name)}`"
        return (
            name,
            self.published[name],
            words,
            str(row.get("images", "-")),
            seeds,
            f"{seconds:.0f}",
            command,
        )

    def text(self) -> str:
        """The table in Markdown."""
        rows, head = self.rows(), [*HEAD]
        if self.request.quick:
            head[1] = "published, of other networks and data"
        lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(HEAD)]
        lines += [f"| {' | '.join(self.cells(name, rows.get(name)))} |" for name in self.published]
        return "\n".join(lines) + "\n"

    def save(self) -> None:
        """Writes what is known so far."""
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = {}
        for name, row in self.rows().items():
            more = {str(seed): run for seed, run in sorted(self.runs[name].items())}
            rows[name] = {**row, "runs": more}
        record = {
            "settings": self.request.settings(),
            "environment": environment(self.request.device),
            "rows": rows,
        }
        for name, text in (("results.json", json.dumps(record, indent=2) + "\n"), ("table.md", self.text())):
            unfinished = self.folder / f"{name}.part"
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(self.folder / name)

    def draw(self) -> None:
        """Writes the reproduction's figures, and the numbers behind them."""
        if not hasattr(self.module, "plots"):
            return
        for name, figure in self.module.plots(self.rows()).items():
            if name.endswith(".csv"):  # dictionaries of the same keys
                with (self.folder / name).open("w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, list(figure[0]))
                    writer.writeheader()
                    writer.writerows(figure)
            else:
                figure.savefig(self.folder / name, dpi=150)


def over_seeds(runs: Mapping[int, Row]) -> Row:
    """One row of several seeds: of a proportion the mean, else the first seed's.

    All seeds see the same images, so that the mean's interval is that of so many images, not of so many runs.
    """
    first = dict(runs[min(runs)])
    if len(runs) == 1 or not all("value" in run and "interval" in run for run in runs.values()):
        return first
    each = [runs[seed]["value"] for seed in sorted(runs)]
    mean, images = sum(each) / len(each), first["images"]
    return {
        **first,
        "value": mean,
        "interval": list(clopper_pearson(round(mean * images), images)),
        "each": each,
    }


def environment(device: str) -> dict[str, Any]:
    """What the rows were measured on, as it is found."""
    import torch

    if device.startswith("cuda"):
        kind = torch.cuda.get_device_name(device)
    else:
        kind = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(torch.zeros(0, device=device).device),
        "kind": kind,
    }


def _stored(file: Path, settings: dict[str, Any]) -> dict[str, dict[int, Row]]:
    """Rows of an earlier, interrupted run with the same settings; its seed may have been another."""
    if not file.exists():
        return {}
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        theirs = stored["settings"]
        same = {**theirs, "seed": 0} == {**settings, "seed": 0}
        rows = stored["rows"]
        runs = {
            name: {int(seed): run for seed, run in row.get("runs", {str(theirs.get("seed", 0)): row}).items()}
            for name, row in rows.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableInput(f"{file} is damaged; delete it or give another --out") from error
    if not same:
        raise UnusableInput(f"{file} was made with {theirs}; give the same options or another --out")
    return runs
