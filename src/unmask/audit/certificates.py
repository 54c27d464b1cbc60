"""The lower bound of an audit: the share of examples that a certificate proves robust, where one applies."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..bounds import certify
from ..errors import UnmaskError
from .context import Subject

# Linear relaxations of more hidden elements than this take minutes an example. Ours.
RELAXABLE = 20_000


def certified_share(subject: Subject, left: Tensor) -> tuple[float | None, str | None]:
    """Share of all examples that a bound proves robust, and which bound; None where none applies to the network.

    `left` are the places of those that no attack broke. A defence's own certificate bounds each example's rate of
    right predictions, broken or not, and the share is their mean.
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
    share = _relaxed(subject, left)
    return share, None if share is None else "interval and linear bounds of the network"


def _relaxed(subject: Subject, left: Tensor) -> float | None:
    """As `certified_share`, for a network without randomness and without a certificate of its own."""
    network, threat = subject.classifier.network, subject.threat
    if subject.random or not isinstance(network, nn.Module) or subject.classifier.passes > 1:
        return None
    if subject.classifier.alone or subject.classifier.state is not None:
        return None  # what is judged is no function of the network's operations alone
    subject.progress.stage("bounds")
    x, y = subject.x, subject.aim
    if not len(left):  # nothing can be proved of a broken example: it only tells whether a bound applies
        left = subject.everyone[:1]
    try:
        proved = certify(network, x[left], y[left], threat, methods=("interval",)).certified
        count, open_ = int(proved.sum()), left[~proved]
        hidden = _hidden_elements(network, x[:1]) if len(open_) else 0
        if len(open_) and hidden <= RELAXABLE and hidden * len(open_) <= subject.budget.relaxation:
            # A pilot first: undefended networks are not worth the wait.
            for part in (open_[:8], open_[8:]):
                more = certify(network, x[part], y[part], threat, methods=("crown",)).certified
                count += int(more.sum())
                if not more.any():
                    break
    except UnmaskError:
        return None
    return count / len(x)


class _Bends(TorchFunctionMode):
    """Counts the outputs of activations, as modules and as functions alike."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "").rstrip("_") in ("relu", "sigmoid", "tanh"):
            self.count += made.numel()
        return made


def _hidden_elements(network: nn.Module, x: Tensor) -> int:
    """Outputs of all layers that bend: the cost of a linear relaxation grows with their square."""
    with torch.no_grad(), _Bends() as bends:
        network(x.clone())
    return bends.count
