"""`unmask export DIR --script attack.py`: the break as a script of its own, with its data beside it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..audit.records import Report
from ..errors import UnusableInput

# Share of the examples broken by stages that a script does not run, above which the export says so. Ours.
BEYOND = 0.02


def write(folder: Path, report: Report, script: Path) -> list[str]:
    """Writes the script and its data; returns what to tell the person who asked.

    **Raises** `UnusableInput` where the target is no Python callable, or the folder has no record of gradients.
    """
    import torch

    from ..audit.evidence import read_evidence
    from ..claim.target_classes import choose, load_for
    from ..report.script import write_script
    from ..report.words import COUNTS

    if script.suffix != ".py":
        raise UnusableInput(f"--script is {script}; give a name that ends in .py")
    if report.knowledge != "white-box" or report.targets == "least-likely":
        raise UnusableInput(
            "--script attacks with gradients, any wrong class or classes that are given; this audit's adversary "
            f"{'does not see the network' if report.knowledge != 'white-box' else 'aims at the least likely class'}"
        )
    if report.threat.norm in COUNTS:
        raise UnusableInput(
            f"--script attacks in the ball of linf, l2 or l1, and this audit's threat model is {report.threat.norm}; "
            "--adversarial writes its evidence"
        )
    if report.threat.radii is not None:
        raise UnusableInput(
            "--script has one radius for all channels or features, and this audit has several; --adversarial writes "
            "its evidence"
        )
    target = _callable(report.target)
    if Path(target.rpartition(":")[0]).resolve() == script.resolve():
        raise UnusableInput(f"--script {script} is the file of the target itself; give another name")
    gradients = _gradients(folder)
    if not isinstance(gradients, dict) or "classes" not in gradients.get("reads", {}):
        raise _damaged(folder)
    evidence = read_evidence(folder, at_most=report.examples)
    data = load_for(
        report.targets,
        report.data,
        split=report.split or None,
        examples=report.examples,
        seed=report.sample_seed,
        allow_pickle=False,
    )
    if data.box is not None:
        raise UnusableInput(f"--script knows inputs in [0, 1] alone; {report.data} has a box of its own")
    labels = dict(zip(report.table.index, report.table.label, strict=True)) if report.table else {}
    data = replace(
        data, y=torch.tensor([labels.get(int(n), int(k)) for n, k in zip(data.index, data.y, strict=True)])
    )
    place = {int(n): row for row, n in enumerate(data.index)}
    x_adv, y = data.x.clone(), data.y.clone()
    if report.targets is not None:
        known = torch.zeros(len(y), int(gradients["reads"]["classes"]))  # their number is what counts
        y = choose(report.targets, data.y, data.index, seed=report.environment.seed, logits=known)
    rows = torch.tensor([place.get(int(n), -1) for n in evidence.index], dtype=torch.int64)
    if len(rows) and (int(rows.min()) < 0 or evidence.x_adv.shape[1:] != data.x.shape[1:]):
        raise UnusableInput(f"{report.data} is not the data of this audit; export where the audit ran")
    x_adv[rows] = evidence.x_adv
    try:
        made = write_script(
            report,
            gradients,
            target=target,
            script_file=script.name,
            data_file=f"{script.stem}.pt",
            imports_unmask=_imports_unmask(target),
            classes=int(gradients["reads"]["classes"]),
            from_script=_seen_from(script.parent, target),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(folder) from error
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(made.text, encoding="utf-8")
    torch.save({"x": data.x, "y": y, "x_adv": x_adv}, script.with_suffix(".pt"))
    told = [f"{script}", f"{script.with_suffix('.pt')}"]
    if not made.gradients:
        told.append("no repair of this audit can be written as plain code; the script replays the evidence")
    elif made.left_out:
        told.append(f"not written as plain code: {'; '.join(made.left_out)}")
    if made.not_run and made.theirs > BEYOND:
        told.append(
            f"the audit's points were found, in part, by {'; '.join(made.not_run)}, which this script does not run; "
            f"it replays them: {100 * report.robust_accuracy:.1f} %"
        )
    return told


def _seen_from(folder: Path, target: str) -> str:
    """The target's file from the script's folder; empty where it is a module, or lies on another drive."""
    place = target.rpartition(":")[0]
    try:
        return Path(os.path.relpath(place, folder)).as_posix() if place.endswith(".py") else ""
    except ValueError:
        return ""


def _callable(target: str) -> str:
    """The target as the script names it: from the working directory where it lies inside it."""
    from ..sources import is_source

    if " + " in target or target.endswith(")") or is_source(target):
        raise UnusableInput(
            f"--script writes for Python callables, for a script cannot load {target!r} without unmask; "
            "wrap it in a callable of your own and audit that"
        )
    place, _, name = target.rpartition(":")
    path = Path(place)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        return f"{path.relative_to(Path.cwd()).as_posix()}:{name}"
    return target


def _gradients(folder: Path) -> dict[str, Any]:
    from ..audit.campaign.entrants import FILE

    try:
        return json.loads((folder / FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(folder) from error


def _damaged(folder: Path) -> UnusableInput:
    from ..audit.campaign.entrants import FILE

    return UnusableInput(
        f"{folder / FILE} is missing or damaged, which says what gradients the audit followed; audit again"
    )


def _imports_unmask(target: str) -> bool:
    file = target.rpartition(":")[0]
    if not os.path.isfile(file):
        return False
    return "import Outputs" in Path(file).read_text(encoding="utf-8", errors="replace")
