"""CLEVER: an estimate of the distance to the nearest adversarial example, and what the estimate is worth."""
