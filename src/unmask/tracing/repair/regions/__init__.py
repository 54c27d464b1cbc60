"""Regions that lose the gradient as a whole: found between two tensors, and crossed by the identity or by a fit."""
