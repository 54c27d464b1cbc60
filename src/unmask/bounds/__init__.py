"""Bounds on robustness: certified from below, estimated in between, exact where the network is small."""

from .certified import Certificate, certified_radius, certify, certify_box

__all__ = ["Certificate", "certified_radius", "certify", "certify_box"]
