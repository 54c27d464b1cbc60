"""The claim: the formal threat model and the concrete numbers that somebody states, and what they leave open."""
