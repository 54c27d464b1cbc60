"""Peak memory and processor time of an audit, stage by stage, on networks of real size.

    python benchmarks/real_size.py --networks resnet18 densenet unet attention recurrent --until trace
    python benchmarks/real_size.py --networks resnet50 vit        # need `pip install transformers`

Weights are random and labels are the network's own predictions, so nothing is downloaded. Memory is what the process
holds above what it held before the stage's audit began, sampled every five milliseconds; the first row of each table is
one forward and backward pass of the same images. Linux only, for it reads `/proc`.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.audit.run import audit
from unmask.audit.runtime.progress import Silent
from unmask.claim.claim import Claim
from unmask.data import Data

CLASSES = 1000


class Residual(nn.Module):
    """Two convolutions and what goes past them, as in ResNet-18."""

    def __init__(self, before: int, channels: int, stride: int):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(before, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.past = nn.Conv2d(before, channels, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.inner(x) + self.past(x))


class Dense(nn.Module):
    """A layer whose result is put beside what it was given, as in DenseNet."""

    def __init__(self, before: int, growth: int):
        super().__init__()
        self.inner = nn.Sequential(
            nn.BatchNorm2d(before), nn.ReLU(), nn.Conv2d(before, growth, 3, padding=1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.inner(x)], 1)


class UNet(nn.Module):
    """Down and up again, with the way across at every size, and a classifier on what comes out."""

    def __init__(self, channels: int = 16, depth: int = 4):
        super().__init__()
        sizes = [channels * 2**n for n in range(depth)]
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(sizes))
        self.up = nn.ModuleList(nn.Conv2d(a + b, a, 3, padding=1) for a, b in pairwise(sizes))
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        across = [torch.relu(self.first(x))]
        for layer in self.down:
            across.append(torch.relu(layer(across[-1])))
        h = across.pop()
        for layer in reversed(self.up):
            h = torch.relu(layer(torch.cat([across.pop(), F.interpolate(h, scale_factor=2.0)], 1)))
        return self.head(h.mean((2, 3)))


class Attention(nn.Module):
    """Patches, transformer layers, and the mean of what becomes of them."""

    def __init__(self, patch: int = 8, width: int = 128, depth: int = 4):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True
        )
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class Recurrent(nn.Module):
    """Reads an image row by row; every step is an operation of its own."""

    def __init__(self, width: int = 128):
        super().__init__()
        self.cell, self.width = nn.GRUCell(3 * 64, width), width
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), self.width)
        for row in x.unbind(2):
            h = self.cell(row.flatten(1), h)
        return self.head(h)


class Logits(nn.Module):
    """A classifier of `transformers` as a plain network."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).logits


def resnet18() -> nn.Module:
    """18 layers with the stem for large images."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    before = 64
    for channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Residual(before, channels, stride), Residual(channels, channels, 1)]
        before = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES))


def densenet(growth: int = 12, layers: int = 12) -> nn.Module:
    """Two dense blocks."""
    first, second = 16 + growth * layers, (16 + growth * layers) // 2 + growth * layers
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        *[Dense(16 + n * growth, growth) for n in range(layers)],
        nn.Conv2d(first, first // 2, 1),
        nn.AvgPool2d(2),
        *[Dense(first // 2 + n * growth, growth) for n in range(layers)],
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(second, CLASSES),
    )


def _of_transformers(name: str) -> nn.Module:
    import transformers

    config = getattr(transformers, f"{name}Config")(num_labels=CLASSES)
    return Logits(getattr(transformers, f"{name}ForImageClassification")(config))


# What builds each network, and the height and width of its images.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (resnet18, 112),
    "densenet": (densenet, 64),
    "unet": (UNet, 64),
    "attention": (Attention, 64),
    "recurrent": (Recurrent, 64),
    "resnet50": (lambda: _of_transformers("ResNet"), 224),
    "vit": (lambda: _of_transformers("ViT"), 224),
}


class Enough(BaseException):
    """The last stage that was asked about is over."""


class Gauge(Silent):
    """Listens to an audit and notes the peak memory and the processor time of each stage."""

    def __init__(self, until: str | None):
        self.rows: list[tuple[str, float, float]] = []
        self._until, self._stage, self._on = until, "", True
        self._begin()
        threading.Thread(target=self._watch, daemon=True).start()

    def stage(self, name: str) -> None:
        """Closes the stage before; raises `Enough` behind the last one."""
        if self._stage:
            self.rows.append((self._stage, self._peak - self._base, time.process_time() - self._began))
        if self._stage == self._until:
            self._on = False
            raise Enough
        if not self._stage:
            self._begin()
        self._stage, self._peak, self._began = name, held(), time.process_time()

    def _begin(self) -> None:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        self._base = self._peak = held()
        self._began = time.process_time()

    def _watch(self) -> None:
        while self._on:
            self._peak = max(self._peak, held())
            time.sleep(0.005)


def held() -> float:
    """Megabytes that the process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def measured(name: str, images: int, budget: Any, until: str | None) -> list[tuple[str, float, float]]:
    """Peak memory in MB and processor seconds: one pass with gradient, then the audit's stages."""
    torch.manual_seed(0)
    build, side = NETWORKS[name]
    network = build().eval()
    x = torch.rand(images, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = network(x).argmax(1)
    alone = Gauge("forward and backward")
    alone.stage("forward and backward")
    leaf = x.clone().requires_grad_()
    torch.autograd.grad(F.cross_entropy(network(leaf), y), leaf)
    data = Data(x=x, y=y, name=name, split="", index=torch.arange(images))
    gauge = Gauge(until)
    for end, run in (
        (alone, lambda: alone.stage("")),
        (
            gauge,
            lambda: audit(network, data, Claim(norm="linf", epsilon=1 / 255, budget=budget), progress=gauge),
        ),
        (gauge, lambda: gauge.stage("")),
    ):
        try:
            run()
        except Enough:
            if end is gauge:
                break
    return alone.rows + gauge.rows


def main() -> None:
    """Prints a table for each network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["resnet18"])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--budget", default="quick")
    parser.add_argument("--until", help="the last stage to run, such as trace")
    options = parser.parse_args()
    for name in options.networks:
        rows = measured(name, options.images, options.budget, options.until)
        print(
            f"\n{name}, {options.images} images\n\n| stage | peak MB | of one pass | processor s |\n|---|---|---|---|"
        )
        for stage, peak, seconds in rows:
            print(f"| {stage} | {peak:.0f} | {peak / max(rows[0][1], 1):.1f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
