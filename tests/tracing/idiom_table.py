"""Writes `docs/idioms.md`: `python -m tests.tracing.idiom_table`, from the repository's root, in some minutes; with
names of rows behind it, these alone.

Every row is a run: the idiom is traced, its repairs are proposed, and each of them attacks 16 images by ten sign steps.
The attack by hand takes the same steps along finite differences of every one of the 16 pixels, over a quarter
of epsilon or two epsilon, whichever leads further, so that it depends on nothing that the tracer says.
"""

import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from tests.tracing.fresh import FRESH, FRESH_DRAWN
from tests.tracing.fresh_again import FRESH_AGAIN
from tests.tracing.fresh_eyes import FRESH_EYES
from tests.tracing.fresh_late import FRESH_LATE
from tests.tracing.idioms import DECIDED, DRAWN, HONEST, SEEN, Network, spare
from tests.tracing.inner import INNER
from tests.tracing.networks import LOSING, Wrapped
from tests.tracing.subclasses import SUBCLASSES
from tests.tracing.tampered import TAMPERED
from tests.tracing.test_analyse import images, suspects
from tests.tracing.trips import TRIPS
from torch import nn

from unmask.classifier import Classifier, seeded
from unmask.errors import Unsupported
from unmask.objectives import margin_loss
from unmask.remedies import Candidate, candidates
from unmask.threat import Linf
from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.regions.learned import learn_surrogate
from unmask.tracing.repair.rewrite import Rewritten
from unmask.tracing.suspect import Analysis

EPSILON, STEPS, IMAGES = 0.2, 10, 16
SPANS = (0.25, 2.0)  # of the finite differences of the attack by hand, in epsilons
HEAD = """# Idioms: ways to write a forward pass

Made by `python -m tests.tracing.idiom_table` on torch {version}; do not edit. Each row is a network of 16 pixels and 4
classes that differs in how one step is written, in `tests/tracing/`: `idioms.py`, `networks.py`, `trips.py` (out of
torch and back), `inner.py` (gradients of its own), `tampered.py` (autograd's graph), `fresh.py`, whose rows
were written before the tracer was read, `fresh_again.py`, whose rows were written when it was done, `fresh_eyes.py`,
by another pair of eyes after that, `subclasses.py` (types and modes of the user's), and `fresh_late.py`, whose rows
were written when those had been mended. Every row is a test, too.

- *Survived*: the recorded pass has the plain pass's logits, draws, weights and buffers, and no warning was given.
- *Seen*: the symptoms named; "nothing" is right for code that loses no gradient.
- *Line*: whether a line that was expected is named.
- *Repair*: the gradient of an audit's race that breaks most, finite differences of the whole network left out: first
  the tracer's, then, while these leave more than the attack by hand, the same over noisy copies or in 32 bits. *Gap*:
  what it leaves of {images} images under ten sign steps of L∞ {epsilon}, less what the same steps leave along finite
  differences of every pixel, over the better of two spans, in
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
    found += of("subclasses.py", SUBCLASSES)
    found += of("fresh_late.py", FRESH_LATE)
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


def raced(
    network: nn.Module, analysis: Analysis, x: torch.Tensor, y: torch.Tensor, hand: float
) -> dict[str, float]:
    """What the gradients that an audit would race leave, cheapest first, until one leaves no more than `hand`.

    Without finite differences of the whole network: those are the attack by hand.
    """
    threat, classifier = Linf(epsilon=EPSILON), Classifier(network)
    generator = torch.Generator().manual_seed(0)
    learned = learn_surrogate(analysis, classifier, images(64), threat, seed=0, generator=generator)
    entrants = candidates(analysis, threat, deterministic=True, detector=False, draws=2, learned=learned)

    def by(entrant: Candidate) -> Callable[[torch.Tensor], torch.Tensor]:
        def gradient(z: torch.Tensor) -> torch.Tensor:
            drawn = torch.Generator().manual_seed(0)
            with seeded(0, z.device):
                found = entrant.gradient.estimate(classifier, margin_loss, z, y, generator=drawn)
            return found.grad.nan_to_num()

        return gradient

    left = {
        r.name: attacked(network, x, y, along(Rewritten(network, r.rewrite), y))
        for r in propose(analysis, learned)
    }
    for entrant in sorted(entrants, key=lambda e: e.passes):
        if min(left.values(), default=1.0) <= hand:
            break
        if entrant.name not in ("exact", "finite differences", *left):
            with suppress(Unsupported):  # one in double precision, of what has float32 in its code
                left[entrant.name] = attacked(network, x, y, by(entrant))
    return left or {"none": attacked(network, x, y, along(network, y))}


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
        hand = min(attacked(network, x, y, by_hand(network, y, span)) for span in SPANS)
        left = raced(network, analysis, x, y, hand)
        repair = min(left, key=lambda found: left[found])
        gap = f"{100 * (left[repair] - hand):+.1f}"
    survived = "no" if analysis.warning else "yes"
    return f"| {name.replace('|', '/')} | {survived} | {seen} | {right} | {repair} | {gap} |"


def main(only: list[str]) -> None:
    """Writes the page; of a page that is there, the rows whose names begin like one of `only`, if any are given."""
    page = Path("docs/idioms.md")
    lines = page.read_text().splitlines() if page.exists() else []
    before = {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ")}
    head = HEAD.format(version=torch.__version__.split("+")[0], images=IMAGES, epsilon=EPSILON)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = [found[0].replace("|", "/") for found in rows()]
        for name, found in zip(names, rows(), strict=True):
            if name not in before or not only or found[0].startswith(tuple(only)):
                before[name] = row(*found)
                print(before[name], flush=True)
                page.write_text(head + "\n".join(before[n] for n in names if n in before) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
