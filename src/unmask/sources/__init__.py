"""Networks that are no Python callable: hubs, exported graphs, checkpoints, other toolboxes' classifiers.

Each file opens one kind and returns a `torch.nn.Module` from images [0, 1] NCHW to logits. Optional libraries are
imported when their kind is asked for; a missing one is told in one line with the command that installs it.
"""

from .opening import is_source, open_source, split_steps

__all__ = ["is_source", "open_source", "split_steps"]
