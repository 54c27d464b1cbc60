"""Looking for harm in recorded passes: where the gradient is lost, false, dead, infinite or random."""
