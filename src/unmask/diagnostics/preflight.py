"""What can be wrong before the first attack, each in one line, and the facts that later parts need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from scipy.stats import binomtest
from torch import Tensor

from ..classifier import Classifier
from ..errors import ModelFailed, UnusableInput
from ..gradients import Exact
from ..objectives import margin
from ..randomness import Streams
from ..state import State
from ..threat import ThreatModel
from ..tracing.squashing import soft_max_at_the_end
from ..types import Outputs
from .base import Images, Labels
from .company import check_use_alone, company, mixed, random_company
from .comparison import Comparison, Points, asked, distances, points_around
from .early import Early, early
from .inputs import check_images, check_label_range, check_labels, composition
from .memory import FIRST, memory, said_of_state
from .modes import check_normalisation, check_precision, check_train_mode, sixteen_bits
from .one_function import modes

PROBED = 16  # examples that are asked about repeatedly
# Most members of an ensemble whose votes are told from probabilities. Ours.
BALLOTS = 128


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """What is known about a usable network.

    **Fields**
    - `num_classes`: at least 2.
    - `deterministic`: equal inputs gave equal outputs under four different seeds.
    - `seedable`: equal seeds gave equal outputs; False for randomness that nobody can seed.
    - `gradient_available`: autograd reaches the input without raising; it may still be wrong or zero.
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
    generator: torch.Generator | Streams,
) -> Preflight:
    """Checks images, labels and network, and measures what the audit has to know. `y` are true labels.

    **Arguments**
    - `threat`: where points are asked about, too; without one, close to the images.
    - `batch_size`: the largest that will be used.
    - `state`: what the network holds before anybody has called it; made here where nobody has.

    **Cost**: one prediction of every example, about 21 forwards of 40 points, a short attack on 16 images and
    on eight alone, one backward of at most 16, about three batches. A random network costs 40 more.
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
    first = _check_shape(classifier, probe, some)
    points = points_around(probe, threat, box, some)
    points = points[torch.arange(len(points), device=x.device)[:batch_size]]
    looked = early(classifier, x, y, points, threat, streams)
    kept = memory(classifier, points, state, first, Points(probe, some))
    if kept:
        classifier = classifier.replace(state=state.only(kept))
        looked = early(classifier, x, y, points, threat, streams)
    check_train_mode(classifier, probe, streams=some)

    parts = torch.arange(len(x), device=x.device).split(batch_size)
    # What the network returns, which a mean of something else would hide.
    outputs = _predicted(classifier.replace(average=None), x, parts, streams)
    label_only, probabilities = _check_logits(outputs.logits)
    place = soft_max_at_the_end(classifier, probe) if probabilities else None
    label_only &= place is None  # saturated to one-hot, but a soft-max all the same
    probabilities &= not label_only
    logits, classes = outputs.logits, outputs.logits.shape[1]
    if classifier.replace(probabilities=probabilities).converts:
        classifier = classifier.replace(probabilities=probabilities)
        logits = _predicted(classifier, x, parts, streams).logits
    check_label_range(y, classes)
    accuracy = float((logits.argmax(1) == y).double().mean())
    if claim is not None:
        _check_claim(accuracy, len(x), claim)

    deterministic, seedable = _repeats(classifier, points)
    differs, warnings = None, []
    if seedable:
        compare = Comparison(
            classifier.replace(deterministic=deterministic), looked.beside(points, batch_size)
        )
        differs = mixed(compare.classifier, probe, some) or (
            company(compare, x, batch_size)
            if deterministic
            else random_company(classifier, points, batch_size)
        )
        if differs and not differs.slight:
            check_use_alone(classifier, x, y, logits.argmax(1), streams, differs)
        warnings += modes(compare)
    gradient_error = _gradient_error(classifier, probe, labels, some)
    counts, touched = () if kept else state.counts(), state.changes()
    state.only(kept or counts).restore()
    warnings += said_of_state(kept, counts)
    if classes == 2:
        warnings.append("the network has 2 classes: losses that rank three (DLR) are left out")
    if float(x.max()) <= box[0] + (box[1] - box[0]) / 100:
        warnings.append(f"the brightest pixel is {float(x.max()):.4g}: were the images divided by 255 twice?")
    warnings += composition(x, y, classes)
    if accuracy <= 1.5 / classes:
        warnings.append(
            f"clean accuracy is {accuracy:.1%}, no better than chance: check labels and preprocessing"
        )
    # Among so many images every class is there.
    if outputs.detector_score is None and classes == int(y.max()) + 2 and len(y) >= 10 * classes:
        warnings.append(
            f"the network has {classes} outputs and the labels end at {int(y.max())}: the last one counts as a wrong "
            'class; if it means "rejected", return unmask.Outputs.with_reject_class(logits, reject=-1)'
        )
    if differs and not differs.slight:
        warnings.append(
            f"the answer to an image depends on the other images of its batch, on their number or on its place "
            f"({differs}): every image is judged alone, in batches of 1"
        )
    elif differs:
        warnings.append(
            "the other images of a batch change logits slightly, as int8 activations quantised dynamically do: every "
            "image is evaluated alone, in batches of 1"
        )
    if probabilities:
        attacked = "their logs are attacked, for no soft-max of torch's makes them"
        if place is not None:
            attacked = (
                f"the logits in front of the soft-max are attacked ({Path(place.file).name}:{place.line})"
            )
        zeros = int((outputs.logits == 0).any(1).sum())
        warnings.append(
            f"the network returns probabilities: {attacked}"
            + (f"; {zeros} of {len(logits)} clean images have probabilities of exactly zero" if zeros else "")
        )
    if narrow := sixteen_bits(classifier.network):
        warnings.append(f"{narrow}: gradients may underflow, so that a float32 copy is differentiated, too")
    if label_only:
        warnings.append("outputs are one-hot or shares of votes: the network tells only labels")
    if not seedable:
        warnings.append(
            "equal images and equal seeds give other answers: the network's randomness cannot be seeded, or it keeps "
            "state that is out of reach; no run of it can be repeated exactly"
        )
    if gradient_error:
        warnings.append(f"no gradient with respect to the input: {gradient_error}")
    return Preflight(
        num_classes=classes,
        deterministic=deterministic,
        seedable=seedable,
        gradient_available=gradient_error is None,
        label_only=label_only,
        probabilities=probabilities,
        batch_dependent=differs is not None,
        state=kept or counts,
        has_detector=outputs.detector_score is not None,
        clean_accuracy=accuracy,
        touched=touched,
        early=looked,
        warnings=tuple(warnings),
    )


def _predicted(classifier: Classifier, x: Images, parts: Sequence[Tensor], streams: Streams) -> Outputs:
    """The deployed predictions of all examples."""
    found = [classifier.predict(x[part], generator=streams[part].fork("clean")) for part in parts]
    scores = [o.detector_score for o in found if o.detector_score is not None]
    return Outputs(torch.cat([o.logits for o in found]), torch.cat(scores) if scores else None)


def _forward(classifier: Classifier, x: Tensor, streams: Streams) -> Outputs:
    with torch.no_grad():
        return classifier(x, generator=streams)


def _check_shape(classifier: Classifier, x: Images, streams: Streams) -> Tensor:
    """Refuses what is no logits; returns those of `x`."""
    try:
        logits = _forward(classifier, x, streams.fork(FIRST)).logits
    except ModelFailed as error:
        if x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
            raise UnusableInput(
                f"`x` has shape {list(x.shape)}, channels last, and {error}; give channels first: "
                "x.permute(0, 3, 1, 2)"
            ) from error
        check_precision(classifier.network)
        _refuse_one_size(error)
        raise
    shape = list(logits.shape)
    if logits.ndim != 2 or len(logits) != len(x) or shape[1] < 1:
        raise UnusableInput(
            f"the network returned shape {shape} for {len(x)} images; return logits [{len(x)}, classes]"
        )
    if shape[1] == 1:
        raise UnusableInput(
            "the network returns 1 class; return one logit per class: torch.cat([-z / 2, z / 2], 1) for a "
            "sigmoid's z"
        )
    if not logits.is_floating_point():
        raise UnusableInput(f"the network returned {logits.dtype} outputs; return logits as float32")
    try:
        single = list(_forward(classifier, x[:1], streams[:1].fork("shape")).logits.shape)
    except ModelFailed as error:
        _refuse_one_size(error)
        raise UnusableInput(
            f"the network takes {len(x)} images but not one alone: {error}; predictions must not depend "
            "on the batch"
        ) from error
    if single != [1, shape[1]]:
        raise UnusableInput(
            f"the network returned shape {single} for one image; return [1, {shape[1]}] (a bare "
            ".squeeze() drops it)"
        )
    return logits


def _refuse_one_size(error: ModelFailed) -> None:
    """**Raises** `UnusableInput` for a program of `torch.export` whose guard on the number of images did not hold."""
    if "Guard failed" in str(error):
        raise UnusableInput(
            f"the network was exported for one batch size; export it with a dynamic batch dimension ({error})"
        ) from error


def _check_logits(logits: Float[Tensor, "batch classes"]) -> tuple[bool, bool]:
    """Refuses what is no logit. Whether all rows are one-hot, or shares of a few ballots; whether they sum to one."""
    nan = int(torch.isnan(logits).any(1).sum())
    infinite = int(torch.isinf(logits).any(1).sum())
    if nan or infinite:
        raise UnusableInput(
            f"the network returns NaN for {nan} and infinite logits for {infinite} of {len(logits)} clean "
            "images: a "
            "defect of the model, which no attack may count as success; repair it (a log of 0, a division "
            "by 0?)"
        )
    inside = (logits >= 0).all() & (logits <= 1).all()
    sums = logits.double().sum(1)
    if not inside or not torch.allclose(sums, torch.ones_like(sums), atol=1e-2):
        return False, False
    return any(_shares(logits, ballots) for ballots in range(1, BALLOTS + 1)), True


def _shares(logits: Float[Tensor, "batch classes"], ballots: int) -> bool:
    """Whether every entry is a whole number of `ballots`-ths: an ensemble's votes, which are labels and no scores."""
    return bool(((logits * ballots).round() / ballots).sub(logits).abs().le(1e-6 * logits).all())


def _check_claim(accuracy: float, examples: int, claim: float) -> None:
    right = round(accuracy * examples)
    highest = float(binomtest(right, examples).proportion_ci(0.95).high)
    if highest < claim:
        raise UnusableInput(
            f"clean accuracy is {accuracy:.1%} ({right} of {examples}, at most {highest:.1%} with 95 % "
            "confidence), below "
            f"the claim of {claim:.1%} under attack; check preprocessing, label order and weights, or "
            "lower the claim"
        )


def _repeats(classifier: Classifier, points: Points) -> tuple[bool, bool]:
    """(equal under different seeds, equal under equal seeds), at the images, beside and between them."""
    # A defence that only sets in when something looks wrong is as random as any other.
    first = asked(classifier, points, "seed 0")
    found = [distances(first, asked(classifier, points, f"seed {seed}")) for seed in (1, 2, 3, 0)]
    equal = [bool((share <= 1e-6).all()) for share in found]
    return all(equal), equal[-1]


def _gradient_error(classifier: Classifier, x: Images, y: Labels, streams: Streams) -> str | None:
    """Why autograd does not reach the input, or None if it does."""
    leaf = x.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            logits = classifier(leaf, generator=streams.fork("gradient")).logits
        if not _reaches(logits, leaf):
            return "the network cuts the graph (detach, no_grad, or a trip through another library)"
        Exact().estimate(classifier, margin, x, y, generator=streams.fork("gradient"))
    except torch.OutOfMemoryError:
        raise
    except ModelFailed as error:
        return str(error)
    except Exception as error:  # a user's own backward may raise anything
        return f"the backward pass raised {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return None


def _reaches(output: Tensor, leaf: Tensor) -> bool:
    """Whether the graph of `output` ends in `leaf`. A gradient of zero would not tell."""
    open_nodes, seen = [output.grad_fn], set()
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        if getattr(node, "variable", None) is leaf:
            return True
        seen.add(node)
        open_nodes += [following for following, _ in node.next_functions]
    return False
