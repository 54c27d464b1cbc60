"""One thread a process: the suite runs several processes side by side, and tiny operations gain nothing from more."""

import torch

torch.set_num_threads(1)
