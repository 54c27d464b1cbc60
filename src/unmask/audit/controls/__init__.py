"""The controls of an audit: which run, what their failure means, and what follows from what they found."""
