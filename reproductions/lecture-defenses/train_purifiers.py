"""Trains what stands behind `purified.py`: `python reproductions/lecture-defenses/train_purifiers.py [NAME]`.

Digits' training images alone, nothing adversarial; three minutes of one core in all. No data set has to be there.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from train import WEIGHTS, train_cnn

from unmask.data import load
from unmask.defenses.purifiers import Denoiser, Generator, train_denoiser, train_generator


def seeded() -> torch.Generator:
    """The same random numbers for each."""
    return torch.Generator().manual_seed(0)


def generator() -> nn.Module:
    """Defense-GAN's."""
    data = load("digits", split="train")
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = Generator(16, data.x.shape[1:], width=96)
    distance = train_generator(network, data.x, generator=seeded(), steps=1500, critic_width=128)
    print(f"generator: distance {distance:.3f}")
    return network


def denoiser() -> nn.Module:
    """The diffusion purifier's."""
    data = load("digits", split="train")
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = Denoiser(data.x.shape[1:], width=160)
    error = train_denoiser(network, data.x, generator=seeded(), epochs=800)
    print(f"denoiser: mean squared error {error:.4f}")
    return network


MAKERS = {
    "digits_plain": lambda: train_cnn(load("digits", split="train"), "plain", epochs=12, batch_size=32),
    "digits_generator": generator,
    "digits_denoiser": denoiser,
}


def main(wanted: list[str], into: Path = WEIGHTS) -> None:
    """Trains the named ones, or all."""
    torch.set_num_threads(1)
    for name in wanted or MAKERS:
        began = time.perf_counter()
        save_file(MAKERS[name]().state_dict(), into / f"{name}.safetensors")
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
