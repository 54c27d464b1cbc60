"""The lower bound of an audit: the share of examples that a certificate proves robust, where one applies."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..bounds import certify
from ..bounds.relaxation.size import measured
from ..errors import UnmaskError
from .context import Subject

# Linear relaxations of more hidden elements than this take minutes an example. Ours.
RELAXABLE = 20_000
# Numbers that the rows of all classes may have at once on their way back through the last layers: 128 MB. Ours.
ROWS = 2**24
# Examples that are relaxed at once; if none of the first so many is proved, no more are tried. Ours.
PILOT = 8


def certified_share(subject: Subject, left: Tensor) -> tuple[float | None, str | None]:
    """Share of all examples that a bound proves robust, and which bound of how many; None where none was tried.

    `left` are the places of those that no attack broke: nothing can be proved of the others, and nothing is tried. A
    defence's own certificate bounds each example's rate of right predictions, broken or not, and the share is their
    mean.
    """
    own = subject.classifier.certificate
    if own is not None:
        subject.progress.stage("bounds")
        try:
            streams = subject.streams("certificate")
            # Who keeps every image in its class keeps it out of the target's.
            threat = subject.misclassification
            proof = own(subject.classifier, subject.x.clone(), subject.y.clone(), threat, generator=streams)
        except UnmaskError as error:
            subject.progress.note(f"the defence's own certificate does not apply: {error}")
            return None, None
        return float(proof.rate.double().mean()), proof.words
    return _relaxed(subject, left)


def _relaxed(subject: Subject, left: Tensor) -> tuple[float | None, str | None]:
    """As `certified_share`, for a network without randomness and without a certificate of its own.

    Intervals are tried on every open example, linear relaxations on as many of what they leave as the budget buys. So
    many examples at once as keep the memory near that of one pass.
    """
    network, threat = subject.classifier.network, subject.threat
    if subject.random or not isinstance(network, nn.Module) or subject.classifier.passes > 1 or not len(left):
        return None, None
    if subject.classifier.alone or subject.classifier.state is not None:
        return None, None  # what is judged is no function of the network's operations alone
    subject.progress.stage("bounds")
    x, y = subject.x, subject.aim
    try:
        hidden, classes = measured(network, x[:1])
        parts = left.split(max(1, ROWS // max(1, classes * hidden)))
        proved = torch.cat(
            [certify(network, x[part], y[part], threat, methods=("interval",)).certified for part in parts]
        )
        count, open_ = int(proved.sum()), left[~proved]
        bought = subject.budget.relaxation // max(1, hidden) if hidden <= RELAXABLE else 0
        tried = 0
        # A pilot first: undefended networks are not worth the wait.
        for part in open_[:bought].split(PILOT):
            if not len(part):  # nothing is bought, or nothing is open
                break
            more = certify(network, x[part], y[part], threat, methods=("crown",)).certified
            count, tried = count + int(more.sum()), tried + len(part)
            if tried <= PILOT and not more.any():
                break
    except UnmaskError:
        return None, None
    return count / len(x), _words(count, len(left), tried, len(open_))


def _words(proved: int, open_: int, tried: int, left: int) -> str:
    """Which bounds, and of how many images.

    >>> _words(3, 40, 0, 37)
    'interval bounds of the network (proved for 3 of the 40 open images)'
    >>> _words(12, 40, 20, 37)
    'interval and linear bounds of the network (proved for 12 of the 40 open images; linear ones tried on 20 of 37)'
    """
    which = "interval and linear" if tried else "interval"
    some = f"; linear ones tried on {tried} of {left}" if tried < left and tried else ""
    return f"{which} bounds of the network (proved for {proved} of the {open_} open images{some})"
