"""The lower bound of an audit: the share of examples that a certificate proves robust, where one applies."""

from __future__ import annotations

from torch import Tensor, nn

from ...bounds import certify
from ...bounds.proving import prove
from ...bounds.regional import Method
from ...bounds.relaxation.size import measured
from ...errors import UnmaskError
from ..context import Subject


def certified_share(subject: Subject, left: Tensor) -> tuple[float | None, str | None]:
    """Share of all examples that a bound proves robust, and which bound of how many; None where none was tried.

    `left`, `[k]`, are the places of those that no attack broke: nothing can be proved of the others, and nothing is
    tried. A defence's own certificate bounds each example's rate of right predictions, broken or not, and the share is
    their mean.
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
    as_verified = subject.index[left].argsort()  # a budget ends where that of a verifier ends
    return _relaxed(subject, left[as_verified])


def _relaxed(subject: Subject, left: Tensor) -> tuple[float | None, str | None]:
    """As `certified_share`, for a network without randomness and without a certificate of its own."""
    network, threat = subject.classifier.network, subject.threat
    if subject.random or not isinstance(network, nn.Module) or subject.classifier.passes > 1 or not len(left):
        return None, None
    if subject.classifier.alone or subject.classifier.state is not None:
        return None, None  # what is judged is no function of the network's operations alone
    subject.progress.stage("bounds")
    x, y = subject.x, subject.aim

    def certified(part: Tensor, method: Method) -> Tensor:
        return certify(network, x[part], y[part], threat, methods=(method,)).certified

    try:
        hidden, classes = measured(network, x[:1])
        found = prove(certified, left, hidden=hidden, classes=classes, budget=subject.budget.relaxation)
    except UnmaskError:
        return None, None
    return found.proved / len(x), str(found)
