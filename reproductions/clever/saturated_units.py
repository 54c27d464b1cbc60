"""CLEVER on networks whose hidden units are saturated, at the paper's N_b x N_s, beside ART's score of the same images.

Both draw a pool of ten times N_s points and take each maximum over a random part of it, as the authors' released code
does; ART's is a port of that code.
"""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from unmask.bounds import Clever
from unmask.data import load
from unmask.threat import NormBall
from unmask.training import Saturated
from unmask.zoo import MLP

WEIGHTS = Path(__file__).parents[1] / "saturation" / "weights"
POOL = 10  # times N_s
KINDS = {"saturated relu": nn.ReLU, "sharpened sigmoid": nn.Sigmoid, "penalised sigmoid": nn.Sigmoid}


@cache
def saturated(kind: str) -> nn.Module:
    """One of the committed networks of `reproductions/saturation`, on MNIST."""
    network = MLP((784, 200, 200, 200, 10), activation=KINDS[kind])
    network.load_state_dict(load_file(WEIGHTS / f"{'_'.join(kind.split())}_mnist.safetensors"))
    return network.eval()


@cache
def saturated_on_digits() -> nn.Module:
    """A sharpened sigmoid network, trained in seconds."""
    network = MLP((64, 50, 50, 50, 10), activation=nn.Sigmoid)
    recipe = Saturated(
        epochs=20, batch_size=64, gain=2.0, reach=1.0, strength=1e-3, sharpening=1e4, learning_rate=3e-3
    )
    recipe.fit(network, load("digits", split="train"), None, generator=torch.Generator().manual_seed(0))
    return network.eval()


def by_art(network: nn.Module, x: Tensor, threat: NormBall, clever: Clever, seed: int) -> list[float] | None:
    """ART's untargeted score of each image under the same settings; None where ART is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from art.estimators.classification import PyTorchClassifier
            from art.metrics import clever_u
    except ImportError:
        return None
    shape, device = tuple(x.shape[1:]), "gpu" if x.is_cuda else "cpu"
    theirs = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), shape, 10, clip_values=(0, 1), device_type=device
    )
    state = np.random.get_state()  # ART draws from numpy's global stream
    np.random.seed(seed)
    try:
        settings: tuple[Any, ...] = (clever.batches, clever.samples, threat.epsilon, threat.p)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [
                float(clever_u(theirs, one.cpu().numpy(), *settings, pool_factor=POOL, verbose=False))
                for one in x
            ]
    finally:
        np.random.set_state(state)
