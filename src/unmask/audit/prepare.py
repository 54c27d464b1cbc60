"""What an audit learns before its first attack: whether the network can be audited, where it masks, what to aim at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ..claim.target_classes import choose
from ..classifier import Classifier
from ..diagnostics import Preflight, preflight
from ..diagnostics.pristine import Pristine
from ..diagnostics.rebuilt import Rebuilt
from ..errors import UnusableInput
from ..state import State
from ..target.class_names import classes_of_network, otherwise_called
from ..tracing.analyse import analyse
from ..tracing.elsewhere import with_other_ways
from ..tracing.repair.regions.learned import Learned, learn_surrogate
from ..tracing.suspect import Analysis
from ..types import Average
from .campaign.detector import with_detector
from .confirm import as_verified
from .context import Subject
from .findings import GradientState, gradient_state
from .optional.optional import tried
from .runtime.batch_size import BatchSize

# Images from which a surrogate is learned where a part of the network hides its gradient and changes shapes. Ours.
POOL = 256


@contextmanager
def split_off(subject: Subject) -> Iterator[Subject]:
    """The subject with the network in other processes, if this is the first: before anybody asks it, and built anew."""
    network, first = subject.classifier.network, subject.processes.rank == 0
    pristine = Pristine.of(network, subject.device, as_verified) if first else None
    rebuilt = Rebuilt.of(subject.spec, network, subject.device) if first else None
    try:
        yield replace(subject, pristine=pristine, rebuilt=rebuilt)
    finally:
        for apart in (pristine, rebuilt):
            if apart is not None:
                apart.close()


def with_class_names(subject: Subject) -> Subject:
    """The subject with the network's names for its classes where the data have none; warns where the two differ."""
    names, data = classes_of_network(subject.classifier.network), subject.data
    if line := otherwise_called(names, data.class_names):
        subject.warn(line)
    return replace(subject, data=replace(data, class_names=data.class_names or names))


def look_over(subject: Subject, held: State) -> tuple[Preflight, int]:
    """The preflight, with smaller batches where memory runs out; and the batch size that fits.

    `held` is what the network holds before it.
    """

    def with_batches_of(size: int) -> Preflight:
        held.restore()
        return preflight(
            subject.classifier,
            subject.x,
            subject.y,
            # Who errs without an attack may still be hard to lead to a given class.
            claim=subject.claim.claim if subject.threat.goal == "untargeted" else None,
            box=subject.threat.box,
            threat=replace(subject.threat, goal="untargeted"),
            batch_size=size,
            state=held,
            elsewhere=[n for n in (subject.pristine, subject.rebuilt) if n is not None],
            generator=subject.streams("preflight"),
        )

    memory = BatchSize(subject.batch_size, "preflight", subject.journal, subject.progress)
    return memory.fitting(with_batches_of, len(subject), subject.classifier.meter), memory.size


def looked_over(subject: Subject, facts: Preflight, batch_size: int, held: State) -> Subject:
    """The subject as the preflight found it, and under a targeted goal with the classes to reach.

    `held` is what the network held before it: of this what answers depend on is put back before every call.
    """
    classifier = subject.classifier.replace(
        deterministic=facts.deterministic and facts.seedable,
        probabilities=facts.probabilities,
        average=_converted(subject.classifier, facts),
        alone=facts.batch_dependent,
        state=held.only(facts.state) if facts.state else None,
        undisturbed=facts.undisturbed,
    )
    # One at a time for every pass where batches matter: the standing's, the report's and so the verifier's.
    size = 1 if facts.batch_dependent else batch_size
    untouched = held.only(facts.touched) if facts.touched else None
    subject = replace(subject, classifier=classifier, batch_size=size, untouched=untouched)
    return subject if subject.claim.targets is None else replace(subject, aim=find_targets(subject))


def _converted(classifier: Classifier, facts: Preflight) -> Average | None:
    """What passes become before their mean is taken; None where they are averaged as the network returns them."""
    found = classifier.replace(probabilities=facts.probabilities)
    return found.average if found.converts else None


def trace(subject: Subject, facts: Preflight) -> tuple[Analysis, GradientState, Learned | None]:
    """Traces at most eight correctly classified examples, and looks at the gradient of at most 32.

    Also a surrogate that was learned for what autograd cannot see, where one is called for.
    """

    def with_batches_of(size: int) -> tuple[Analysis, GradientState, Learned | None]:
        seen = slice(min(64, size))
        with torch.no_grad():
            logits = subject.classifier(subject.x[seen], generator=subject.streams("pick", seen)).logits
        right = (logits.argmax(1) == subject.y[seen]).nonzero()[:, 0]
        some = (right if len(right) >= 4 else subject.everyone[:8])[: min(8, size)]
        analysis = analyse(
            subject.classifier,
            subject.x[some],
            subject.y[some],
            subject.threat,
            seed=subject.seed,
            generator=subject.streams("trace", some),
        )
        learned = None
        pool = slice(min(POOL, len(subject)))
        if not analysis.warning:
            learn = partial(
                learn_surrogate,
                analysis,
                subject.classifier,
                subject.x[pool],
                subject.threat,
                seed=subject.seed,
                batch_size=min(32, size),
                generator=subject.streams("stand-in", pool),
            )
            learned = tried(subject, "learned surrogates", learn, None, halves=True)
        if facts.has_detector:
            score = partial(with_detector, subject, analysis, some)
            analysis = tried(subject, "suspects behind the detector's score", score, analysis, halves=True)
        points, rows = facts.early.on_the_way(subject.x)
        if len(points) and not analysis.warning:
            beside = partial(
                with_other_ways,
                analysis,
                subject.classifier,
                subject.x[some],
                points,
                subject.y[rows],
                subject.threat,
                batch_size=size,
                seed=subject.seed,
                generator=subject.streams("trace elsewhere", rows),
            )
            analysis = tried(subject, "suspects that only an attack comes to", beside, analysis, halves=True)
        more = right[: min(32, size)] if len(right) >= 4 else some
        state = gradient_state(
            subject.classifier,
            subject.x[more],
            subject.y[more],
            generator=subject.streams("gradient", more),
        )
        return analysis, state, learned

    memory = BatchSize(subject.batch_size, "trace", subject.journal, subject.progress)
    memory.size = subject.processes.first(lambda: memory.size)
    return memory.fitting(with_batches_of, min(64, len(subject)), subject.classifier.meter)


def find_targets(subject: Subject) -> Tensor:
    """The classes to reach `[examples]`, by the claim's rule.

    **Raises** `UnusableInput` where there is no least likely class to speak of.
    """
    rule = subject.claim.targets
    assert rule is not None
    if rule == "least-likely" and subject.random:
        raise UnusableInput(
            'targets is "least-likely", which for a random network changes from draw to draw; give "random" or a class'
        )
    parts = subject.everyone.split(subject.batch_size)
    streams = subject.streams("targets")
    logits = torch.cat([subject.classifier.predict(subject.x[p], generator=streams[p]).logits for p in parts])
    return choose(rule, subject.y, subject.index, seed=subject.seed, logits=logits)
