"""Every way of changing what an audit left that could be thought of key by key, and what `unmask verify` says to it.

`python -m tests.faults.tampering` prints the table of `docs/verify.md`.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tests.audit.small_audit import EPSILON, EXAMPLES, small_audit, write_target

from unmask.audit.evidence import read_evidence
from unmask.audit.records import AccuracyAtCost, AccuracyAtEpsilon, Control, ImageTriple
from unmask.cli.main import main
from unmask.cli.options import COMMAND
from unmask.data import load
from unmask.report.html import write_html
from unmask.report.json import write_json

HUGE = 10**12


@dataclass(frozen=True)
class Tampering:
    """A change of a folder: where, how, and what does it."""

    where: str
    how: str
    does: Callable[[Path], None]


def sound(folder: Path) -> Path:
    """An audit of a linear network with everything that a report can hold, and its folder."""
    out = folder / "out"
    spec = f"{write_target(folder)}:linear"
    report = small_audit(out, spec, claim=0.9)
    evidence, data = read_evidence(out), load("digits", examples=EXAMPLES)
    pictures = [
        ImageTriple(
            index=int(evidence.index[n]),
            label=int(evidence.label[n]),
            clean_prediction=int(evidence.label[n]),
            adversarial_prediction=int(evidence.prediction[n]),
            clean=data.x[evidence.index[n]].tolist(),
            adversarial=evidence.x_adv[n].tolist(),
        )
        for n in range(2)
    ]
    report = report.model_copy(
        update={
            "images": pictures,
            "controls": [Control(name="null attack", passed=True, value=0.0, expected="0", decisive=True)],
            "accuracy_against_epsilon": [AccuracyAtEpsilon(epsilon=0.0, accuracy=1.0, examples=10)],
            "accuracy_against_cost": [
                AccuracyAtCost(forwards=9, backwards=9, accuracy=report.robust_accuracy)
            ],
            "warnings": ["a warning"],
        }
    )
    write_json(out, report)
    write_html(out, report)
    options = {"target": spec, "norm": "linf", "epsilon": EPSILON, "claim": 0.9, "examples": EXAMPLES}
    (out / COMMAND).write_text(json.dumps(options))
    return out


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value of a JSON text with its path; of a list the first element stands for all."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list) and value and path[-1] not in ("clean", "adversarial"):
        yield from leaves(value[0], (*path, 0))
    else:
        yield path, value


def others(value: Any) -> dict[str, Any]:
    """Values that could stand in its place, by how they are made."""
    if isinstance(value, bool):
        return {"turned": not value, "a word": "perhaps"}
    if isinstance(value, int):
        return {"one more": value + 1, "huge": HUGE, "negative": -value - 1, "a word": "many"}
    if isinstance(value, float):
        return {
            "nudged": value - 0.05 if value > 0.5 else value + 0.05,
            "out of range": 7.5,
            "not a number": float("nan"),
        }
    if isinstance(value, str):
        return {"another word": value + "x", "a number": 5}
    if isinstance(value, list):
        return {"emptied": [], "a word": "none"}
    return {"filled in": 1.0}


def in_report(path: tuple[Any, ...], new: Any) -> Callable[[Path], None]:
    """Sets one value; `...` takes the key away."""

    def does(folder: Path) -> None:
        file = folder / "report.json"
        whole = json.loads(file.read_text())
        place = whole
        for step in path[:-1]:
            place = place[step]
        if new is ...:
            del place[path[-1]]
        else:
            place[path[-1]] = new
        file.write_text(json.dumps(whole))

    return does


def in_evidence(change: Callable[[dict[str, torch.Tensor], dict[str, Any]], None]) -> Callable[[Path], None]:
    """Changes tensors and facts of the evidence file."""

    def does(folder: Path) -> None:
        file = folder / "evidence.safetensors"
        with safe_open(file, "pt") as opened:
            facts = json.loads(opened.metadata()["unmask"])
            tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
        change(tensors, facts)
        save_file({n: t.contiguous() for n, t in tensors.items()}, file, {"unmask": json.dumps(facts)})

    return does


def of_tensors(name: str) -> Iterator[Tampering]:
    """Changes of one tensor, and of all rows at once."""

    def first(tensors: dict[str, torch.Tensor], _: Any) -> None:
        tensors[name].view(-1)[0] += 1 if name != "failure_rate" else -0.5

    def nought(tensors: dict[str, torch.Tensor], _: Any) -> None:
        tensors[name].zero_()

    def short(tensors: dict[str, torch.Tensor], _: Any) -> None:
        tensors[name] = tensors[name][1:]

    def other_type(tensors: dict[str, torch.Tensor], _: Any) -> None:
        tensors[name] = tensors[name].to(torch.float16)

    def other_shape(tensors: dict[str, torch.Tensor], _: Any) -> None:
        tensors[name] = tensors[name][:, None]

    def shuffled(tensors: dict[str, torch.Tensor], _: Any) -> None:
        tensors[name] = tensors[name].flip(0)

    def gone(tensors: dict[str, torch.Tensor], _: Any) -> None:
        del tensors[name]

    for how, does in (
        ("one element changed", first), ("all zero", nought), ("a row short", short), ("of another type", other_type),
        ("of another shape", other_shape), ("in another order", shuffled), ("taken away", gone),
    ):  # fmt: skip
        yield Tampering(f"evidence, {name}", how, in_evidence(does))
    if name == "x_adv":
        for how, value in (
            ("not a number", float("nan")),
            ("infinite", float("inf")),
            ("beyond the box", 1.5),
        ):
            yield Tampering(
                "evidence, x_adv", how, in_evidence(lambda t, _, v=value: t["x_adv"].view(-1)[:1].fill_(v))
            )


def of_files() -> Iterator[Tampering]:
    """Whole files, and rows of the evidence."""

    def rows(choose: Callable[[int], list[int]]) -> Callable[[Path], None]:
        def change(tensors: dict[str, torch.Tensor], _: Any) -> None:
            chosen = choose(len(tensors["index"]))
            for name in list(tensors):
                tensors[name] = tensors[name][chosen]

        return in_evidence(change)

    def write(name: str, text: str) -> Callable[[Path], None]:
        return lambda folder: (folder / name).write_text(text) and None

    def page(old: str, new: str) -> Callable[[Path], None]:
        def does(folder: Path) -> None:
            file = folder / "report.html"
            assert old in file.read_text(), old
            file.write_text(file.read_text().replace(old, new))

        return does

    def options(**changes: Any) -> Callable[[Path], None]:
        def does(folder: Path) -> None:
            file = folder / COMMAND
            file.write_text(json.dumps(json.loads(file.read_text()) | changes))

        return does

    yield Tampering("evidence", "one row left out", rows(lambda n: list(range(1, n))))
    yield Tampering("evidence", "every row left out", rows(lambda n: []))
    yield Tampering("evidence", "a row twice", rows(lambda n: [0, *range(n)]))
    yield Tampering("evidence", "the rows of another order", rows(lambda n: list(range(n))[::-1]))
    for name in ("report.json", "evidence.safetensors", COMMAND):
        yield Tampering(name, "emptied", write(name, ""))
        yield Tampering(name, "not what it should be", write(name, "[" * 50_000))
        yield Tampering(name, "taken away", lambda folder, n=name: (folder / n).unlink())
    yield Tampering("report.html", "another verdict", page("Refuted", "Not refuted"))
    yield Tampering("report.html", "another sentence", page("does not hold", "holds"))
    yield Tampering("report.html", "another recipe", page("closed form", "everything"))
    yield Tampering("report.html", "emptied", write("report.html", ""))
    yield Tampering(COMMAND, "another radius", options(epsilon=0.2))
    yield Tampering(COMMAND, "another claim", options(claim=0.5))
    yield Tampering(COMMAND, "an unknown option", options(strength="much"))
    yield Tampering("report, all of it", "a certificate by hand", certified_by_hand)
    yield Tampering(
        "report, all of it", "one more survivor, interval and evidence to match", one_more_survivor
    )
    yield Tampering("report, all of it", "no claim, page to match", without_claim)


def certified_by_hand(folder: Path) -> None:
    """Verdict and certificate as one would like them."""
    in_report(("verdict",), "certified")(folder)
    in_report(("certified_accuracy",), 1.0)(folder)


def one_more_survivor(folder: Path) -> None:
    """Leaves out the evidence of an image that an attack broke, and writes every number that follows from it."""
    from unmask.audit.evidence import hash_images
    from unmask.audit.verifying.well_formed import read_report
    from unmask.statistics import clopper_pearson

    data = load("digits", examples=EXAMPLES)

    def change(tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        moved = (tensors["x_adv"] != data.x[tensors["index"]]).flatten(1).any(1)
        out = int(moved.nonzero()[-1])
        rows = [n for n in range(len(moved)) if n != out]
        for name in list(tensors):
            tensors[name] = tensors[name][rows]
        facts["originals"] = hash_images(data.x[tensors["index"]])

    in_evidence(change)(folder)
    report = read_report(folder)
    left = round(report.robust_accuracy * EXAMPLES) + 1
    changes = {
        "robust_accuracy": left / EXAMPLES,
        "robust_accuracy_interval": clopper_pearson(left, EXAMPLES),
        "images": [],
        "accuracy_against_cost": [],
    }
    report = report.model_copy(update=changes)
    write_json(folder, report)
    write_html(folder, report)


def without_claim(folder: Path) -> None:
    """Takes back the claim."""
    from unmask.audit.verifying.well_formed import read_report

    report = read_report(folder).model_copy(update={"claim": None, "verdict": "not_refuted"})
    write_json(folder, report)
    write_html(folder, report)


def tamperings(folder: Path) -> list[Tampering]:
    """All of them, for a sound folder."""
    report = json.loads((folder / "report.json").read_text())
    found = []
    for path, value in leaves(report):
        where = "report, " + ".".join(str(step) for step in path if step != 0)
        found += [Tampering(where, how, in_report(path, new)) for how, new in others(value).items()]
    found += [Tampering(f"report, {key}", "taken away", in_report((key,), ...)) for key in report]
    found.append(Tampering("report, a new key", "added", in_report(("robust",), True)))
    for name in ("x_adv", "index", "label", "prediction", "failure_rate"):
        found += of_tensors(name)
    with safe_open(folder / "evidence.safetensors", "pt") as opened:
        facts = json.loads(opened.metadata()["unmask"])
    for name, value in facts.items():
        inner = {"a word": "x"} if isinstance(value, dict) else others(value)
        for how, new in inner.items():
            change = in_evidence(lambda t, f, k=name, v=new: f.update({k: v}))
            found.append(Tampering(f"evidence, {name}", how, change))
    return [*found, *of_files()]


def verified(folder: Path) -> tuple[int, str]:
    """The exit status, and by what: the checks that fail, or the line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["verify", str(folder), "--json"])
    lines = [line for line in err.getvalue().splitlines() if not line.startswith("runs ")]
    if status in (0, 1):
        return status, ", ".join(c["name"] for c in json.loads(out.getvalue())["checks"] if not c["holds"])
    return status, " / ".join(lines)


def run(folder: Path, each: Tampering) -> tuple[int, str]:
    """What is said to one of them, done to a copy."""
    copied = folder.parent / "copy"
    shutil.copytree(folder, copied)
    try:
        each.does(copied)
        return verified(copied)
    finally:
        shutil.rmtree(copied)


def table(folder: Path) -> tuple[list[str], int, int]:
    """The lines of the table, how many are noticed, and of how many."""
    groups: dict[str, dict[bool, list[str]]] = {}
    noticed = total = 0
    for each in tamperings(folder):
        status, _ = run(folder, each)
        groups.setdefault(each.where, {True: [], False: []})[status in (1, 2)].append(each.how)
        noticed, total = noticed + (status in (1, 2)), total + 1
    lines = ["| what is changed | noticed | not noticed |", "|---|---|---|"]
    for where, how in groups.items():
        lines.append(f"| `{where}` | {', '.join(how[True]) or '–'} | {', '.join(how[False]) or '–'} |")
    return lines, noticed, total


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        rows, seen, of = table(sound(Path(name)))
    sys.stdout.write("\n".join(rows) + f"\n\n{seen} of {of} are noticed.\n")
