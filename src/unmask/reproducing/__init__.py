"""A paper's figures beside ours, at any scale: what was asked for, the rows, what the published scale would take."""
