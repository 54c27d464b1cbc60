"""The attacks of an audit: what is planned, how it is fitted to a network, the race of gradients, and what stands."""
