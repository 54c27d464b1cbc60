"""Rewriting the backward pass of guilty operations; the forward pass stays as it is."""
