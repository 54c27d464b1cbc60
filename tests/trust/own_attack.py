"""An attack of a user's own that does something beside attacking."""

import torch
from torch import nn

from unmask.attacks import Attack
from unmask.audit.campaign.own_attack import OwnAttack
from unmask.classifier import Classifier
from unmask.randomness import Streams
from unmask.threat import Linf

X, Y = torch.rand(2, 4), torch.zeros(2, dtype=torch.int64)


class Own(Attack):
    """Leaves the images as they are; `said` is what `does` answered when it was given the network."""

    def __init__(self, does):
        self.does = does

    def run(self, classifier, x, y, threat, *, generator):
        self.said = self.does(classifier.network)
        return x


def run(attack):
    """Runs it as an audit does; what it changed and the audit put back."""
    told = []
    classifier = Classifier(nn.Linear(4, 2), deterministic=True)
    streams = Streams.seeded(0, torch.arange(2))
    OwnAttack(attack, told.extend).run(classifier, X, Y, Linf(epsilon=0.1), generator=streams)
    return told
