"""The only door to the user's network, and what a call through it is made of."""

from .averaging import IMPOSSIBLE, LEAST
from .call import Network, lent
from .classifier import Certify, Classifier, Images
from .meter import Meter
from .seeding import seeded

__all__ = ["IMPOSSIBLE", "LEAST", "Certify", "Classifier", "Images", "Meter", "Network", "lent", "seeded"]
