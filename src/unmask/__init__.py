"""Tells real adversarial robustness from gradient masking."""

__version__ = "0.1.0"
