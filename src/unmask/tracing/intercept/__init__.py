"""Seeing every operation of a forward pass while the user's code runs: what is called, where it stands, what draws."""
