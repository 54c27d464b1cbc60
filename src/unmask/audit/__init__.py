"""From a classifier and a claim to a verdict that a stranger can check."""
