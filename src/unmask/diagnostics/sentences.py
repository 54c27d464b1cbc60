"""What preflight tells the user: one sentence each, of what it found and of what follows."""

from __future__ import annotations

from pathlib import Path

from ..classifier import Classifier
from ..errors import plural
from ..tracing.intercept.sites import Site
from ..types import Outputs
from .base import Images, Labels
from .comparison import Difference
from .inputs import composition
from .modes import sixteen_bits


def of_examples(
    x: Images,
    y: Labels,
    box: tuple[float, float],
    classes: int,
    accuracy: float,
    meant: str = "",
    *,
    detector: bool,
) -> list[str]:
    """Of images, labels and how many are right. `meant`: how else the images may be meant."""
    found = []
    if classes == 2:
        found.append("the network has 2 classes: losses that rank three (DLR) are left out")
    if float(x.max()) <= box[0] + (box[1] - box[0]) / 100:
        found.append(f"the brightest pixel is {float(x.max()):.4g}: were the images divided by 255 twice?")
    found += composition(x, y, classes)
    if meant:
        found.append(meant)
    elif accuracy <= 1.5 / classes:
        found.append(
            f"clean accuracy is {accuracy:.1%}, no better than chance: check labels and preprocessing"
        )
    # Among so many images every class is there.
    if not detector and classes == int(y.max()) + 2 and len(y) >= 10 * classes:
        found.append(
            f"the network has {classes} outputs and the labels end at {int(y.max())}: the last one counts as a wrong "
            'class; if it means "rejected", return unmask.Outputs.with_reject_class(logits, reject=-1)'
        )
    return found


def of_company(differs: Difference | None) -> list[str]:
    """Of answers that depend on the other images of a batch."""
    if not differs:
        return []
    if differs.slight:
        return [
            "the other images of a batch change logits slightly, as int8 activations quantised dynamically do: every "
            "image is evaluated alone, in batches of 1"
        ]
    return [
        f"the answer to an image depends on the other images of its batch, on their number or on its place "
        f"({differs}): every image is judged alone, in batches of 1"
    ]


def of_answers(outputs: Outputs, place: Site | None, *, probabilities: bool) -> list[str]:
    """Of probabilities in the place of logits. `place`: of the soft-max that makes them, if it is torch's."""
    if not probabilities:
        return []
    attacked = "their logs are attacked, for no soft-max of torch's was found as the last operation"
    if place is not None:
        at = (
            f" ({Path(place.file).name}:{place.line})" if place.file else ""
        )  # a translated graph has no lines
        attacked = f"the logits in front of the soft-max are attacked{at}"
    zeros, examples = int((outputs.logits == 0).any(1).sum()), len(outputs.logits)
    return [
        f"the network returns probabilities: {attacked}"
        + (
            f"; {zeros} of {examples} clean images {plural(zeros, 'has', 'have')} probabilities of exactly zero"
            if zeros
            else ""
        )
    ]


def of_attacks(
    classifier: Classifier, *, label_only: bool, seedable: bool, gradient_error: str | None
) -> list[str]:
    """Of what attacks will meet: narrow numbers, labels alone, randomness without a seed, no gradient."""
    found = []
    if narrow := sixteen_bits(classifier.network):
        found.append(f"{narrow}: gradients may underflow, so that a float32 copy is differentiated, too")
    if label_only:
        found.append("outputs are one-hot or shares of votes: the network tells only labels")
    if not seedable:
        found.append(
            "equal images and equal seeds give other answers: the network's randomness cannot be seeded, or it keeps "
            "state that is out of reach; no run of it can be repeated exactly"
        )
    if gradient_error:
        found.append(f"no gradient with respect to the input: {gradient_error}")
    return found


def of_refusal(refused: str) -> list[str]:
    """Of a network that runs and that autograd refuses as it is."""
    if not refused:
        return []
    return [
        f"autograd refuses the network as it is ({refused}): what its backward pass needs is kept apart, so that there "
        "is a gradient; an attack that takes this error for an end finds nothing"
    ]


def of_unread(names: tuple[str, ...]) -> list[str]:
    """Of what may be a detector's score that is called otherwise."""
    if not names:
        return []
    several = len(names) > 1
    return [
        f"the network also returns {', '.join(f'`{name}`' for name in names)}, a number for each image, and "
        f"{'these are' if several else 'this is'} not read: a detector's score is read as `detector_score`, above zero "
        "where it rejects"
    ]
