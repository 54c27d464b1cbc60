"""Writes `docs/idioms_digits.md`: `python -m tests.tracing.digits_table`, from the repository's root, in some minutes;
with names of rows behind it, these alone.

Every row is an audit at `quick`, and an attack by hand that knows the idiom and goes along differences of every pixel.
"""

import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from tests.fixtures.digits_split import Split, digits_split
from tests.tracing import fresh_digits
from tests.tracing.fresh_digits import FRESH_DIGITS, Digits
from tests.tracing.idiom_table import along, by_hand

import unmask
from unmask.audit.records import Report
from unmask.classifier import Classifier
from unmask.threat import Linf
from unmask.tracing.analyse import analyse

EPSILON, IMAGES = 0.1, 32
HEAD = """# Idioms on digits

Made by `python -m tests.tracing.digits_table` on torch {version}; do not edit. Each row is a step that nobody had tried
before and a linear layer trained on what it makes of 8 x 8 digits (`tests/tracing/fresh_digits.py`), audited at `quick`
with {images} images in L∞ {epsilon}.

- *Seen*: what the tracer suspects. *Line*: whether the line that was expected is among them.
- *Standard*: accuracy under the standard attack. *Audit*: what the whole audit leaves.
- *By hand*: what is left by sign steps along the gradient of what an attacker who has read the step would put in its
  place (20 steps, three starts), along differences of every pixel a quarter of epsilon apart, and along those two
  epsilon apart (8 steps each), together. *Gap*: audit less by hand, in points; one image is 3.1.

| idiom | seen | line | clean | standard | audit | by hand | gap |
|---|---|---|---:|---:|---:|---:|---:|
"""


def broken(network: Digits, data: Split) -> float:
    """Accuracy that the attack by hand leaves."""

    def known(z: torch.Tensor) -> torch.Tensor:
        return network.read_out(network.known(z.flatten(1)))

    with torch.no_grad():
        left = network(data.x).argmax(1) == data.y
    gradients: list[tuple[Callable, int, int]] = [
        (along(known, data.y), 3, 20),
        *((by_hand(network, data.y, span * EPSILON / 0.2), 1, 8) for span in (0.25, 2.0)),
    ]
    for gradient, starts, steps in gradients:
        for start in range(starts):
            noise = torch.rand(data.x.shape, generator=torch.Generator().manual_seed(start)) * 2 - 1
            z = (data.x + EPSILON * noise * (start > 0)).clamp(0, 1)
            for _ in range(steps):
                z = z + gradient(z).sign() * EPSILON / 4
                z = z.clamp(data.x - EPSILON, data.x + EPSILON).clamp(0, 1)
                with torch.no_grad():
                    left &= network(z).argmax(1) == data.y
    return float(left.float().mean())


def row(name: str) -> str:
    """One line of the table."""
    step, known, text = FRESH_DIGITS[name]
    network = Digits(step, known)
    test = digits_split()[1]
    data = Split(test.x[:IMAGES], test.y[:IMAGES])
    with torch.no_grad():
        right = (network(data.x).argmax(1) == data.y).nonzero()[:8, 0]
    threat, generator = Linf(epsilon=EPSILON), torch.Generator().manual_seed(0)
    found = analyse(Classifier(network), data.x[right], data.y[right], threat, seed=0, generator=generator)
    seen = ", ".join(sorted({s.symptom.name for s in found.suspects})) or "nothing"
    lines = Path(fresh_digits.__file__).read_text().splitlines()
    there = "yes" if any(text in lines[s.site.line - 1] for s in found.suspects) else "no"
    with tempfile.TemporaryDirectory() as out:
        report = unmask.audit(
            network, data.x, data.y, norm="linf", epsilon=EPSILON, budget="quick", out=Path(out, "audit")
        )
    assert isinstance(report, Report)
    hand = broken(network, data)
    shares = (report.clean_accuracy, report.naive_robust_accuracy, report.robust_accuracy, hand)
    cells = " | ".join(f"{100 * s:.1f}" for s in shares)
    return f"| {name} | {seen} | {there} | {cells} | {100 * (report.robust_accuracy - hand):+.1f} |"


def main(only: list[str]) -> None:
    """Writes the page; of a page that is there, the rows that are named, if any are, and those that it lacks."""
    page = Path("docs/idioms_digits.md")
    before = page.read_text().splitlines() if page.exists() else []
    known = {line.split(" | ")[0].removeprefix("| "): line for line in before if line.startswith("| ")}
    head = HEAD.format(version=torch.__version__.split("+")[0], images=IMAGES, epsilon=EPSILON)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in FRESH_DIGITS:
            if name not in known or name in only or not only:
                known[name] = row(name)
                print(known[name], flush=True)
            lines = [known[n] for n in FRESH_DIGITS if n in known]
            page.write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
