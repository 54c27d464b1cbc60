"""Small networks, attacks and callables that misbehave, as files of a user's own."""

HEADER = """\
import asyncio
import os
import sys
import random
import numpy as np
import torch
from torch import nn
from dataclasses import dataclass
from unmask.attacks import Attack
from unmask.data import load


class Means(nn.Module):
    "Linear: near the mean of which class an image lies."

    def __init__(self):
        super().__init__()
        data = load("digits", split="train")
        means = torch.stack([data.x[data.y == c].mean(0).flatten() for c in range(10)])
        self.flat = nn.Flatten()
        self.linear = nn.Linear(64, 10)
        self.linear.weight.data = 2 * means
        self.linear.bias.data = -(means**2).sum(1)

    def forward(self, x):
        return self.linear(self.flat(x))


def sound():
    return Means().eval()

"""


def write(folder, text: str, name: str = "own.py"):
    """A file of the user's own in `folder`, with the header's names at hand."""
    file = folder / name
    file.write_text(HEADER + text)
    return file


AUDIT = ["--norm", "linf", "--epsilon", "0.05", "--examples", "8", "--budget", "quick", "--quiet"]
