"""The network and the adversary as the claim and the data have them; `verify` shares no code with this."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..classifier import Classifier, Network
from ..data.box import Box
from ..errors import UnusableInput
from ..threat import ThreatModel, threat_model
from ..threat.weights import check_count
from .claim import Claim


def in_units(
    network: Classifier | nn.Module | Network, box: Box | None, spec: str = ""
) -> Classifier | nn.Module | Network:
    """The network as it is audited on data that have a box; without one, as it is. Certificates are of other units.

    **Raises** `UnusableInput` where the target `spec` has a defence of ours in front, which knows inputs in [0, 1].
    """
    if box is None:
        return network
    if " + " in spec:
        raise UnusableInput(
            f"{spec} has a defence in front that takes inputs in [0, 1], and the data has a box of its own; put the "
            "defence into the network, or give data in [0, 1]"
        )
    if not isinstance(network, Classifier):
        return box.before(network)
    surrogate = network.surrogate if network.surrogate is None else box.before(network.surrogate)
    return network.replace(network=box.before(network.network), surrogate=surrogate)


def as_claimed(network: Classifier | nn.Module | Network, claim: Claim) -> Classifier:
    """The classifier whose predictions are means as the claim says, and a classifier's own where it says nothing."""
    classifier = network if isinstance(network, Classifier) else Classifier(network)
    if claim.passes != 1 or not isinstance(network, Classifier):
        classifier = classifier.replace(passes=claim.passes)
    return classifier if claim.average is None else classifier.replace(average=claim.average)


def threat_of(claim: Claim, shape: Sequence[int], *, goal: str) -> ThreatModel:
    """The adversary of a claim against inputs of that shape, without the batch.

    **Raises** `UnusableInput` for a radius that is no limit, or another number of radii than channels or features.
    """
    if isinstance(claim.epsilon, list):
        check_count(len(claim.epsilon), shape)
    threat = threat_model(claim.norm, claim.epsilon, goal=goal)
    threat.check_radius(shape)
    return threat
