"""Writes `docs/idioms.md`: `python -m tests.tracing.idiom_table`, from the repository's root, in some minutes.

Every row is a run: the idiom is traced, its repairs are proposed, and each of them attacks 16 images by ten sign steps.
The attack by hand takes the same steps along finite differences of every one of the 16 pixels, over a quarter
of epsilon or two epsilon, whichever leads further, so that it depends on nothing that the tracer says.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tests.tracing.fresh import FRESH, FRESH_DRAWN
from tests.tracing.fresh_again import FRESH_AGAIN
from tests.tracing.fresh_eyes import FRESH_EYES
from tests.tracing.idioms import DECIDED, DRAWN, HONEST, SEEN, Network, spare
from tests.tracing.inner import INNER
from tests.tracing.networks import LOSING, Wrapped
from tests.tracing.tampered import TAMPERED
from tests.tracing.test_analyse import images, suspects
from tests.tracing.trips import TRIPS
from torch import nn

from unmask.classifier import seeded
from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.rewrite import Rewritten

EPSILON, STEPS, IMAGES = 0.2, 10, 16
SPANS = (0.25, 2.0)  # of the finite differences of the attack by hand, in epsilons
HEAD = """# Idioms: ways to write a forward pass

Made by `python -m tests.tracing.idiom_table` on torch {version}; do not edit. Each row is a network of 16 pixels and 4
classes that differs in how one step is written, in `tests/tracing/`: `idioms.py`, `networks.py`, `trips.py` (out of
torch and back), `inner.py` (gradients of its own), `tampered.py` (autograd's graph), `fresh.py`, whose rows
were written before the tracer was read, `fresh_again.py`, whose rows were written when it was done, and
`fresh_eyes.py`, by another pair of eyes after that. Every row is a test, too.

- *Survived*: the recorded pass has the plain pass's logits, draws, weights and buffers, and no warning was given.
- *Seen*: the symptoms named; "nothing" is right for code that loses no gradient.
- *Line*: whether a line that was expected is named.
- *Repair*: the proposed gradient that breaks most. *Gap*: what it leaves of {images} images under ten sign steps of
  L∞ {epsilon}, less what the same steps leave along finite differences of every pixel, over the better of two spans, in
  points. Above zero the attack by hand is stronger. Honest and random networks have no repair to compare here.

| written so | survived | seen | line | repair | gap |
|---|---|---|---|---|---:|
"""


def rows() -> list[tuple[str, Callable[[], nn.Module], set[str], str, Path]]:
    """Name, network, symptoms one of which is expected, text of the line, and the file that holds it."""
    here = Path(__file__).parent

    def of(file: str, table: dict[str, tuple[Callable, set[str], str]]) -> list[Any]:
        return [
            (name, lambda step=step: Network(step), symptoms, text, here / file)
            for name, (step, symptoms, text) in table.items()
        ]

    cut = {"cut"}
    found = of("idioms.py", {**SEEN, **DECIDED})
    found += of("trips.py", {name: (step, cut, text) for name, (step, text) in TRIPS.items()})
    found += of("inner.py", {name: (step, cut, text) for name, (step, text) in INNER.items()})
    found += of("tampered.py", TAMPERED)
    found += of("fresh.py", {name: row for name, row in FRESH.items() if name not in TRIPS})
    found += of("fresh_again.py", FRESH_AGAIN)
    found += of("fresh_eyes.py", FRESH_EYES)
    found += [
        (name, lambda step=step, inputs=inputs: Wrapped(step, inputs), symptoms, text, here / "networks.py")
        for name, (step, symptoms, text, inputs) in LOSING.items()
    ]
    found += [
        (name, spare(step), {"random"}, text, here / file)
        for file, table in (("idioms.py", DRAWN), ("fresh.py", FRESH_DRAWN))
        for name, (step, text) in table.items()
    ]
    found += [(name, build, set[str](), "", here / "idioms.py") for name, build in HONEST.items()]
    return found


def attacked(network: Callable, x: torch.Tensor, y: torch.Tensor, gradient: Callable) -> float:
    """Share of the images that ten sign steps leave right."""
    z = x.clone()
    right = torch.ones(len(x), dtype=torch.bool)
    for _ in range(STEPS):
        step = gradient(z).sign() * EPSILON / 4
        z = (z + step).clamp(x - EPSILON, x + EPSILON).clamp(0, 1)
        with torch.no_grad(), seeded(0, x.device):
            right &= network(z).argmax(1) == y
    return float(right.float().mean())


def loss(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The margin loss, `[batch]`, larger where the network errs more."""
    true = logits.gather(1, y[:, None])[:, 0]
    return logits.scatter(1, y[:, None], -torch.inf).amax(1) - true


def by_hand(
    network: nn.Module, y: torch.Tensor, span: float = 0.25
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Differences along every pixel, two points of which are `span` epsilons apart."""

    def gradient(z: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            parts = []
            for pixel in torch.eye(z[0].numel()).reshape(-1, *z.shape[1:]) * EPSILON * span / 2:
                sides = []
                for moved in ((z + pixel).clamp(0, 1), (z - pixel).clamp(0, 1)):
                    with seeded(0, z.device):
                        sides.append(loss(network(moved), y))
                parts.append(sides[0] - sides[1])
            return torch.stack(parts, 1).reshape(z.shape)

    return gradient


def along(network: Callable, y: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """A repaired gradient."""

    def gradient(z: torch.Tensor) -> torch.Tensor:
        z = z.clone().requires_grad_()
        with torch.enable_grad(), seeded(0, z.device):
            value = loss(network(z), y).sum()
        if not value.requires_grad:
            return torch.zeros_like(z)
        (found,) = torch.autograd.grad(value, z, allow_unused=True)
        return torch.zeros_like(z) if found is None else found.nan_to_num()

    return gradient


def row(name: str, build: Callable[[], nn.Module], symptoms: set[str], text: str, file: Path) -> str:
    """One line of the table."""
    torch.manual_seed(1)
    network = build().eval()
    analysis = suspects(network)
    named = [s for s in analysis.suspects if s.symptom.name in symptoms]
    lines = file.read_text().splitlines()
    expected = {n for n, line in enumerate(lines, 1) if text and text in line}
    seen = ", ".join(sorted({s.symptom.name for s in analysis.suspects})) or "nothing"
    right = "yes" if any(s.site.line in expected for s in named) else "no" if symptoms else "–"
    repair, gap = "–", "–"
    if named and symptoms != {"random"}:
        x = images(IMAGES)
        with torch.no_grad(), seeded(0, x.device):
            y = network(x).argmax(1)
        repaired = {r.name: Rewritten(network, r.rewrite) for r in propose(analysis)} or {"none": network}
        left = {word: attacked(network, x, y, along(f, y)) for word, f in repaired.items()}
        repair = min(left, key=lambda found: left[found])
        hand = min(attacked(network, x, y, by_hand(network, y, span)) for span in SPANS)
        gap = f"{100 * (left[repair] - hand):+.1f}"
    survived = "no" if analysis.warning else "yes"
    return f"| {name.replace('|', '/')} | {survived} | {seen} | {right} | {repair} | {gap} |"


def main() -> None:
    """Writes the page."""
    head = HEAD.format(version=torch.__version__.split("+")[0], images=IMAGES, epsilon=EPSILON)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lines = []
        for found in rows():
            lines.append(row(*found))
            print(lines[-1], flush=True)
    Path("docs/idioms.md").write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
