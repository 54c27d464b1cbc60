"""What can be wrong before the first attack, each in one line, and the facts that later parts need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..classifier import Classifier, Network
from ..randomness import Streams
from ..state import State
from ..threat import ThreatModel
from ..tracing.intercept.sites import Site
from ..tracing.squashing import soft_max_at_the_end
from ..types import Outputs
from .base import Images, Labels
from .company import check_use_alone, company, mixed, random_company
from .comparison import Comparison, Difference, Points, asked, distances, points_around
from .early import Early, early
from .inputs import check_images, check_label_range, check_labels
from .memory import judged_alone, memory, remembered_elsewhere, said_of_state
from .modes import check_normalisation, check_train_mode
from .one_function import modes
from .outputs import check_claim, check_logits, check_shape, predicted, unread
from .reach import gradient_error, within_reach
from .readings import BELOW, meant
from .sentences import of_answers, of_attacks, of_company, of_examples, of_refusal, of_unread

PROBED = 16  # examples that are asked about repeatedly


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """What is known about a usable network.

    **Fields**
    - `num_classes`: at least 2.
    - `deterministic`: equal inputs gave equal outputs under four different seeds.
    - `seedable`: equal seeds gave equal outputs; False for randomness that nobody can seed.
    - `gradient_available`: autograd reaches the input without raising; it may still be wrong or zero.
    - `undisturbed`: autograd refuses the network as it is; go on with `classifier.replace(undisturbed=True)`.
    - `label_only`: every output is one-hot or an ensemble's shares of votes, so only decision-based attacks
      and repairs can work.
    - `probabilities`: the network returns probabilities; go on with `classifier.replace(probabilities=True)`.
    - `has_detector`: the network returns a detector score.
    - `batch_dependent`: the other images of a batch change logits; go on with `classifier.replace(alone=True)`.
    - `state`: names of what the network keeps between calls, as `State` names it; go on with
      `classifier.replace(state=State(network).only(names))`, made before the first call.
    - `touched`: as `state`, names of everything that the calls changed, whether answers depend on it or not.
    - `early`: what it said before the first attack.
    - `clean_accuracy`: share of correct predictions over all given examples, rejected or not.
    - `warnings`: sentences for the user.
    """

    num_classes: int
    deterministic: bool
    seedable: bool
    gradient_available: bool
    label_only: bool
    probabilities: bool
    has_detector: bool
    batch_dependent: bool
    state: tuple[str, ...]
    clean_accuracy: float
    touched: tuple[str, ...] = ()
    undisturbed: bool = False
    early: Early = field(default_factory=Early)
    warnings: tuple[str, ...] = ()


def preflight(
    classifier: Classifier,
    x: Images,
    y: Labels,
    *,
    claim: float | None = None,
    box: tuple[float, float] = (0.0, 1.0),
    threat: ThreatModel | None = None,
    batch_size: int = 128,
    state: State | None = None,
    elsewhere: Sequence[Network] = (),
    generator: torch.Generator | Streams,
) -> Preflight:
    """Checks images, labels and network, and measures what the audit has to know. `y` are true labels.

    **Arguments**
    - `threat`: where points are asked about, too; without one, close to the images.
    - `batch_size`: the largest that will be used.
    - `state`: what the network holds before anybody has called it; made here where nobody has.
    - `elsewhere`: the network in processes in which nobody has asked it, the cheapest first.

    **Cost**: one prediction of every example, about 21 forwards of 40 points, a short attack on 16 images and
    on eight alone, backwards of at most 16 and of two, one forward of 16 more, about three batches. A random network
    costs 40 more, and one that errs often what `readings.meant` costs.
    **Raises** `UnusableInput` (or `ModelFailed`) with one line: name, value, way out.
    """
    check_images(x, box)
    check_labels(y, len(x))
    check_normalisation(classifier.network)
    streams = Streams.of(generator, len(x))
    state = State(classifier.network) if state is None else state
    classifier = classifier.replace(deterministic=False)
    few = slice(min(PROBED, batch_size))
    probe, labels, some = x[few], y[few], streams[few]
    first = check_shape(classifier, probe, some)
    check_label_range(y, first.shape[1])
    classifier, refused = within_reach(classifier, probe[:2], labels[:2], some[:2])
    points = points_around(probe, threat, box, some)
    points = points[torch.arange(len(points), device=x.device)[:batch_size]]
    looked = early(classifier, x, y, points, threat, streams)
    kept = memory(classifier, points, state, first, Points(probe, some), looked.answers)
    if kept:
        classifier = classifier.replace(state=state.only(kept))
        looked = early(classifier, x, y, points, threat, streams)
    check_train_mode(classifier, probe, streams=some)

    alone = bool(kept) and judged_alone(classifier, points)
    answers = _answers(classifier.replace(alone=alone), x, probe, batch_size, streams)
    classifier = answers.classifier.replace(alone=classifier.alone)
    logits, classes = answers.logits, answers.logits.shape[1]
    right = logits.argmax(1) == y
    accuracy = float(right.double().mean())
    better = _why_so_few(classifier, elsewhere, x, y, right, streams)
    if claim is not None:
        check_claim(accuracy, len(x), claim, better)

    deterministic, seedable = _repeats(classifier, points)
    differs, warnings = None, []
    if seedable:
        compare = Comparison(
            classifier.replace(deterministic=deterministic), looked.beside(points, batch_size)
        )
        differs = _in_company(compare, points, x, probe, some, batch_size)
        if differs and not differs.slight:
            check_use_alone(classifier, x, y, logits.argmax(1), streams, differs)
        warnings += modes(compare)
    error = gradient_error(classifier, probe, labels, some)
    names = unread(classifier, probe, some)
    counts, touched = () if kept else state.counts(), state.changes()
    state.only(kept or counts).restore()
    warnings += said_of_state(kept, counts, touched)
    warnings += of_examples(x, y, box, classes, accuracy, better, detector=answers.has_detector)
    warnings += of_company(differs)
    warnings += of_answers(answers.outputs, answers.place, probabilities=answers.probabilities)
    warnings += of_unread(names)
    warnings += of_refusal(refused)
    warnings += of_attacks(classifier, label_only=answers.label_only, seedable=seedable, gradient_error=error)
    return Preflight(
        num_classes=classes,
        deterministic=deterministic,
        seedable=seedable,
        gradient_available=error is None,
        label_only=answers.label_only,
        probabilities=answers.probabilities,
        batch_dependent=differs is not None,
        state=kept or counts,
        has_detector=answers.has_detector,
        clean_accuracy=accuracy,
        touched=touched,
        undisturbed=classifier.undisturbed,
        early=looked,
        warnings=tuple(warnings),
    )


@dataclass(frozen=True)
class _Answers:
    """What the network says of all images.

    **Fields**
    - `classifier`: what answered: one that averages what it is to average.
    - `outputs`: as one pass returns them; `logits`: of the deployed prediction.
    - `label_only`, `probabilities`: as of `Preflight`; `place`: of the soft-max that makes them, if torch's does.
    """

    classifier: Classifier
    outputs: Outputs
    logits: Tensor
    label_only: bool
    probabilities: bool
    place: Site | None

    @property
    def has_detector(self) -> bool:
        return self.outputs.detector_score is not None


def _answers(classifier: Classifier, x: Images, probe: Images, batch_size: int, streams: Streams) -> _Answers:
    """Asks about all images. **Raises** `UnusableInput` for what is no logits."""
    parts = torch.arange(len(x), device=x.device).split(batch_size)
    # What the network returns, which a mean of something else would hide.
    outputs = predicted(classifier.replace(average=None), x, parts, streams)
    label_only, probabilities = check_logits(outputs.logits)
    place = soft_max_at_the_end(classifier, probe) if probabilities else None
    label_only &= place is None  # saturated to one-hot, but a soft-max all the same
    probabilities &= not label_only
    logits, converting = outputs.logits, classifier.replace(probabilities=probabilities)
    if converting.converts:
        classifier = converting
        logits = predicted(classifier, x, parts, streams).logits
    return _Answers(classifier, outputs, logits, label_only, probabilities, place)


def _why_so_few(
    classifier: Classifier,
    elsewhere: Sequence[Network],
    x: Images,
    y: Labels,
    right: Tensor,
    streams: Streams,
) -> str:
    """Of a network that errs often, what makes it do so; empty where it errs seldom or nothing is known."""
    accuracy = float(right.double().mean())
    if accuracy >= BELOW:
        return ""
    remembers = remembered_elsewhere(classifier, elsewhere, x, y, right, streams)
    return remembers or meant(classifier, x, y, accuracy, streams)


def _in_company(
    compare: Comparison, points: Points, x: Images, probe: Images, some: Streams, batch_size: int
) -> Difference | None:
    """How the answer to an image depends on the other images of its batch; None where it does not."""
    classifier = compare.classifier
    if differs := mixed(classifier, probe, some):
        return differs
    if classifier.deterministic:
        return company(compare, x, batch_size)
    return random_company(classifier, points, batch_size)


def _repeats(classifier: Classifier, points: Points) -> tuple[bool, bool]:
    """(equal under different seeds, equal under equal seeds), at the images, beside and between them."""
    # A defence that only sets in when something looks wrong is as random as any other.
    first = asked(classifier, points, "seed 0")
    found = [distances(first, asked(classifier, points, f"seed {seed}")) for seed in (1, 2, 3, 0)]
    equal = [bool((share <= 1e-6).all()) for share in found]
    return all(equal), equal[-1]
