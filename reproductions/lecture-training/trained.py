"""Networks that recipes make: kept on disk with what their training took, measured, audited."""

from __future__ import annotations

import json
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from measuring import Row, measured
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.data import Data
from unmask.threat import ThreatModel
from unmask.training import Loop, Trainer


class Trained(ABC):
    """Every network starts from the same weights of its seed.

    **Fields**
    - `test`: what accuracies are measured on; `audit_images`: how many of these are audited.
    - `ratios`: of `costs`, for all recipes; measured once.
    - `networks`: the folder that keeps them; None for no folder, and no memory.
    """

    threat: ThreatModel
    test: Data
    audit_images: int
    seed: int
    ratios: Callable[[], dict[str, float]]
    networks: Path | None = None

    @abstractmethod
    def network(self, classes: int = 10, seed: int | None = None) -> nn.Module:
        """The same untrained network every time."""

    def watch(self, out: Path, name: str, report: Callable[[int, int], None]) -> None:
        """`unmask reproduce` says where to write."""
        self.networks = out / f"networks-{self.seed}"

    def trained(
        self, recipe: Trainer, data: Data, classes: int = 10, seed: int | None = None
    ) -> tuple[nn.Module, Row]:
        """With the processor seconds it took, and what a guard did."""
        seed = self.seed if seed is None else seed
        network = self.network(classes, seed)
        began = time.process_time()
        history = recipe.fit(network, data, self.threat, generator=torch.Generator().manual_seed(seed))
        return network, {"training_seconds": time.process_time() - began, "events": history.events}

    def kept(self, name: str, recipe: Trainer, data: Data, seed: int | None = None) -> tuple[nn.Module, Row]:
        """The same, but trained only once."""
        file = None if self.networks is None else self.networks / f"{name}.safetensors"
        if file is not None and file.exists():
            network = self.network(seed=seed)
            network.load_state_dict(load_file(file))
            with safe_open(file, framework="pt") as opened:
                return network.eval(), json.loads(opened.metadata()["notes"])
        network, notes = self.trained(recipe, data, seed=seed)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file(network.state_dict(), file, metadata={"notes": json.dumps(notes)})
        return network, notes

    def measured(self, network: nn.Module) -> Row:
        """Accuracies on the test images."""
        return measured(network, self.test, self.threat, seed=self.seed)

    def audit(self, network: nn.Module) -> Row:
        """What `unmask audit --budget quick` says of a network."""
        data = self.test[: self.audit_images]
        report = audit(network, data, claim_about(self.threat, budget="quick", seed=self.seed))
        return {
            "robust": report.robust_accuracy,
            "naive": report.naive_robust_accuracy,
            "interval": list(report.robust_accuracy_interval),
            "masking": [finding.mechanism for finding in report.masking],
            "images": len(data),
        }

    def cost(self, name: str) -> Row:
        """Processor time of a pass over the data, relative to standard training."""
        return {"ratio": self.ratios()[name]}

    def costs(self, recipes: Mapping[str, Loop], data: Data, rounds: int) -> dict[str, float]:
        """Processor time of a pass of each recipe over that of `standard`: the median of interleaved rounds."""
        seconds: dict[str, list[float]] = {name: [] for name in recipes}
        for _ in range(rounds):
            for name, recipe in recipes.items():
                once = replace(recipe, epochs=recipe.updates)
                seconds[name].append(self.trained(once, data)[1]["training_seconds"])
        plain = seconds["standard"]
        return {
            name: statistics.median(s / p for s, p in zip(spent, plain, strict=True))
            for name, spent in seconds.items()
        }
