"""Purifiers: a generative model makes the image anew, and the network sees what it made."""

from .denoiser import Denoiser, train_denoiser
from .diffusion import DiffPure
from .generator import Generator, train_generator
from .projection import DefenseGAN

__all__ = ["DefenseGAN", "Denoiser", "DiffPure", "Generator", "train_denoiser", "train_generator"]
