"""What is audited, with which options, and where it is written down."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .. import __version__
from ..claim.target_classes import Targets
from ..classifier import Classifier, Meter, Network
from ..data import Data
from ..errors import UnmaskError, UnusableInput
from ..randomness import Streams
from ..target.target import Target, checkpoint_hash
from ..threat import ThreatModel
from .evidence import hash_images
from .plan import Budget, budget_named
from .records import Knowledge, ThreatRecord
from .runtime.journal import Journal
from .runtime.processes import Processes
from .runtime.progress import Progress, Silent


@dataclass(kw_only=True)
class Subject:
    """One audit's network, examples and options; as `unmask.audit.run.audit` was given them, checked and on the device.

    **Fields** beside the arguments of `audit`:
    - `x`, `y`, `index`: the examples, on the device.
    - `aim`: what attacks and judge are given for labels: `y`, or under a targeted goal the classes to reach.
    - `spec`, `checkpoint_hash`: how the target was named, and a hash of its parameters.
    - `processes`: which share the examples; `out`, `journal` and `progress` are those of the first one.
    - `journal`: None where nothing is written.
    """

    classifier: Classifier
    data: Data
    threat: ThreatModel
    claim: float | None
    budget_name: str
    exhaustive: bool
    seed: int
    batch_size: int
    device: torch.device
    out: Path | None
    progress: Progress
    spec: str
    checkpoint_hash: str
    processes: Processes
    targets: Targets | None = None
    knowledge: Knowledge = "white-box"
    queries: int | None = None
    journal: Journal | None = None
    warnings: list[str] = field(
        default_factory=list
    )  # what the report says beside preflight's own; see `warn`

    def __post_init__(self) -> None:
        if self.claim is not None and not 0 <= self.claim <= 1:
            raise UnmaskError(f"the claim is {self.claim}; give an accuracy between 0 and 1")
        if (self.threat.goal == "targeted") != (self.targets is not None):
            raise UnmaskError(
                f"the goal is {self.threat.goal} and targets is {self.targets}; a targeted goal, and no other, needs "
                'targets: "random", "least-likely" or a class'
            )
        if self.knowledge not in ("white-box", "scores", "labels"):
            raise UnmaskError(f"knowledge is {self.knowledge!r}; choose white-box, scores or labels")
        if self.knowledge == "labels" and self.targets is not None:
            raise UnmaskError("no attack reaches a given class by labels alone; give knowledge='scores'")
        if self.queries is not None and not (self.outside and self.queries >= 1):
            raise UnmaskError(
                f"queries is {self.queries} and knowledge {self.knowledge}; give at least 1, and knowledge='scores' "
                "or 'labels': who sees the network need not ask it"
            )
        self.budget: Budget = budget_named(self.budget_name)
        self.x, self.y, self.index = (
            t.to(self.device, copy=True) for t in (self.data.x, self.data.y, self.data.index)
        )  # our own: a network may hold the tensors that the caller gave
        self.aim = self.y

    def __len__(self) -> int:
        return len(self.x)

    def warn(self, text: str) -> None:
        """Tells whoever watches, and whoever reads the report, what did not go as it should."""
        if text not in self.warnings:
            self.warnings.append(text)
            self.progress.note(text)

    @property
    def random(self) -> bool:
        """Whether equal inputs may give different outputs; known after preflight."""
        return not self.classifier.deterministic

    @property
    def outside(self) -> bool:
        """Whether the adversary sees answers only."""
        return self.knowledge != "white-box"

    @property
    def answers(self) -> Literal["scores", "labels"]:
        """What an adversary outside the network is told."""
        assert self.knowledge != "white-box"
        return self.knowledge

    @property
    def misclassification(self) -> ThreatModel:
        """The same ball, where any wrong class counts: what clean accuracy is about."""
        return replace(self.threat, goal="untargeted")

    @property
    def everyone(self) -> Tensor:
        """Places of all examples."""
        return torch.arange(len(self), device=self.device)

    def streams(self, tag: str, chosen: Tensor | slice = slice(None)) -> Streams:
        """Random numbers of the chosen examples for one part of the audit."""
        return Streams.seeded(self.seed, self.index[chosen], tag)

    def threat_record(self) -> ThreatRecord:
        """The threat model as the report writes it."""
        return ThreatRecord.model_validate(
            {"norm": self.threat.norm, "epsilon": self.threat.epsilon, "goal": self.threat.goal}
        )

    def settings(self) -> dict[str, Any]:
        """Everything that decides the result: a journal of other settings is not resumed."""
        return {
            "target": self.spec,
            "checkpoint": self.checkpoint_hash,
            "data": self.data.name,
            "split": self.data.split,
            "examples": len(self.data),
            "norm": self.threat.norm,
            "epsilon": self.threat.epsilon,
            "goal": self.threat.goal,
            "targets": self.targets,
            "knowledge": self.knowledge,
            "queries": self.queries,
            "claim": self.claim,
            "passes": self.classifier.passes,
            "budget": self.budget_name,
            "exhaustive": self.exhaustive,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "version": __version__,
        }


def subject_of(
    target: Target | Classifier | nn.Module | Network,
    data: Data,
    threat: ThreatModel,
    *,
    passes: int,
    device: torch.device | str | None,
    out: str | os.PathLike[str] | None,
    resume: bool,
    progress: Progress | None,
    **options: Any,
) -> Subject:
    """Puts the network on the device, behind a classifier with a meter of its own, and opens the journal."""
    threat.check_radius(data.x[0].numel())
    network = target.network if isinstance(target, Target) else target
    classifier = network if isinstance(network, Classifier) else Classifier(network)
    if passes != 1 or not isinstance(network, Classifier):
        classifier = classifier.replace(passes=passes)
    if device is not None and isinstance(classifier.network, nn.Module):
        classifier.network.to(device)
    loaded = isinstance(target, Target)
    processes = Processes.current()
    if processes.rank > 0:
        out, progress = None, None
    subject = Subject(
        classifier=classifier.replace(meter=Meter()),
        data=data,
        threat=threat,
        device=torch.device(device) if device is not None else classifier.device,
        out=Path(out) if out is not None else None,
        progress=progress or Silent(),
        processes=processes,
        spec=target.spec if loaded else type(classifier.network).__name__,
        checkpoint_hash=target.checkpoint_hash if loaded else checkpoint_hash(classifier.network),
        **options,
    )
    _refuse_other_subjects(subject)

    def opened() -> None:
        if subject.out is not None:
            subject.journal = Journal(subject.out / "journal", subject.settings(), resume=resume)

    processes.first(opened)
    return subject


def _refuse_other_subjects(subject: Subject) -> None:
    """All processes must work on the same network and examples."""
    seen = subject.processes.gather((subject.checkpoint_hash, hash_images(subject.x)))
    for name, values in zip(("network", "data"), zip(*seen, strict=True), strict=True):
        if len(set(values)) > 1:
            raise UnusableInput(
                f"the {subject.processes.count} processes have {len(set(values))} different versions of the {name}; "
                "make your callable return the same every time, for instance by a fixed seed"
            )
