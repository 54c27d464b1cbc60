"""The network as its claim and its data have it; `verify` shares no code with this."""

from __future__ import annotations

from torch import nn

from ..classifier import Classifier, Network
from ..data.box import Box
from ..errors import UnusableInput
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
