"""What an audit leaves and what it costs, stage by stage, beside standard AutoAttack where its figure is known.

    UNMASK_DATA=<data folder> python benchmarks/cascade_cost.py [--only mnist_pgd] [--stages] [--parts]

Other people's networks (`networks.py` in `models` beside the data), on the first test images. A unit is a forward pass
of one example; a backward pass counts as 3.5. "attacks": what the stages spent, standard attack and race included;
"whole": preflight, trace and controls too. Both a clean image. AutoAttack's units are counted a clean image too:
measured side by side on these images where that is stated, else 7,864 forwards and 1,910 backwards (its published code
on an example that survives) times the survivors.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from other_networks import data_folder, load_network

from unmask.audit.records import Report
from unmask.audit.run import audit
from unmask.audit.runtime.journal import Journal, read_settings
from unmask.claim.claim import claim_about
from unmask.data import load
from unmask.threat import L1, L2, Linf, ThreatModel

BACKWARD = 3.5
AUTOATTACK = 7_864 + BACKWARD * 1_910  # units of an example that survives


@dataclass(frozen=True)
class Problem:
    """A network, a ball and a number of images.

    **Fields**
    - `theirs`: how many of them standard AutoAttack leaves, and at how many units an image; None where not measured.
    """

    network: str
    threat: ThreatModel
    examples: int
    theirs: tuple[int, float | None] | None = None


PROBLEMS = (
    Problem("mnist_pgd", Linf(epsilon=0.3), 256, (232, None)),
    Problem("cifar10_resnet20", Linf(epsilon=0.4 / 255), 96, (41, None)),
    Problem("mnist_label_smoothing", Linf(epsilon=0.1), 64, (9, 4501.0)),
    Problem("mnist_fast_pgd", L2(epsilon=1.5), 32, (10, 7933.0)),
    Problem("mnist_pgd", L2(epsilon=1.87), 32),
    Problem("mnist_fast_pgd", L1(epsilon=10.0), 32),
    Problem("mnist_distilled", Linf(epsilon=0.3), 64),
    Problem("mnist_fc_20", Linf(epsilon=0.1), 64),
    Problem("mnist_fc_50x2", Linf(epsilon=0.04), 64),
)


def units(report: Report) -> float:
    """Of all attacks together."""
    return sum(a.forwards + BACKWARD * a.backwards for a in report.attacks)


def parts(report: Report, out: str) -> dict[str, float]:
    """Units of everything beside the attacks, by control; the journal in `out` holds what each spent."""
    folder, spent = Path(out) / "journal", dict[str, float]()
    journal = Journal(folder, read_settings(folder) or {}, resume=True)
    for name in ("attack of the controls", *(control.name for control in report.controls)):
        for tag in ("control", "control again"):
            entry = journal.get(f"{tag} {name}")
            if entry is not None:
                meter = entry.record["meter"]
                spent[f"{tag} {name}"] = meter["forwards"] + BACKWARD * meter["backwards"]
    whole = report.cost.forwards + BACKWARD * report.cost.backwards
    spent["preflight, trace and the rest"] = whole - units(report) - sum(spent.values())
    return spent


def line(problem: Problem, budget: str, report: Report) -> str:
    """One audit beside AutoAttack."""
    clean = max(round(report.clean_accuracy * report.examples), 1)
    left = round(report.robust_accuracy * report.examples)
    attacks = units(report) / clean
    whole = (report.cost.forwards + BACKWARD * report.cost.backwards) / clean
    theirs, times = "-", "-"
    if problem.theirs is not None and report.examples == problem.examples:
        count, each = problem.theirs
        per_image = AUTOATTACK * count / clean if each is None else each * report.examples / clean
        theirs, times = str(count), f"{per_image / attacks:.1f} / {per_image / whole:.1f}"
    where = f"{problem.network}, {problem.threat.norm} {problem.threat.epsilon:.4g}"
    return (
        f"| {where} | {budget} | {report.examples} | {100 * report.naive_robust_accuracy:.1f} | {left} | {theirs} "
        f"| {attacks:.0f} | {whole:.0f} | {times} | {report.cost.seconds:.0f} |"
    )


def stages(problem: Problem, report: Report) -> str:
    """What each stage found, in the order in which they ran: the table of `docs/stages.md`."""
    rows = [
        f"\n### {problem.network}, {problem.threat.norm} {problem.threat.epsilon:.4g}, {report.examples} images\n",
        "| stage | images | broke | units | broke a thousand units |",
        "|---|---:|---:|---:|---:|",
    ]
    for stage in report.attacks:
        spent = stage.forwards + BACKWARD * stage.backwards
        gain = 1e3 * stage.newly_broken / max(spent, 1)
        rows.append(
            f"| {stage.recipe} | {stage.examples} | {stage.newly_broken} | {spent:,.0f} | {gain:.2f} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Prints a row per audit, and then a table of stages of each where asked."""
    names = ["quick", "standard", "thorough"]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budgets", nargs="+", default=["standard"], choices=names)
    parser.add_argument("--seeds", type=int, default=1, help="runs of each budget")
    parser.add_argument("--stages", action="store_true", help="print what each stage broke, and its units")
    parser.add_argument("--parts", action="store_true", help="print what everything beside the attacks cost")
    parser.add_argument(
        "--only", nargs="*", default=[], help="problems whose network and norm contain one of these"
    )
    parser.add_argument("--examples", type=int, help="so many images instead of each problem's own number")
    options = parser.parse_args()
    data_folder()
    tables: list[str] = []
    print(
        "| network | budget | images | naive % | left | AutoAttack leaves | attacks | whole | times cheaper | s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for problem in PROBLEMS:
        where = f"{problem.network} {problem.threat.norm}"
        if options.only and not any(word in where for word in options.only):
            continue
        data = load(
            problem.network.split("_")[0], split="test", examples=options.examples or problem.examples
        )
        for budget in options.budgets:
            for seed in range(options.seeds):
                with torch.random.fork_rng(), tempfile.TemporaryDirectory() as out:
                    claim = claim_about(problem.threat, budget=budget, seed=seed)
                    report = audit(load_network(problem.network), data, claim, out=out)
                    beside = parts(report, out)
                print(line(problem, budget, report), flush=True)
                clean = max(round(report.clean_accuracy * report.examples), 1)
                for name, spent in beside.items() if options.parts else ():
                    print(f"    {name:60} {spent / clean:7.1f} units a clean image")
                tables += [stages(problem, report)] if options.stages else []
    for table in tables:
        print(table)


if __name__ == "__main__":
    main()
