"""What is audited, with which options, and where it is written down."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .. import __version__
from ..attacks import Attack
from ..claim.claim import Claim
from ..claim.stated import check_scope
from ..claim.units import as_claimed, in_units, threat_of
from ..classifier import Classifier, Meter, Network
from ..data import Data
from ..data.sample import mixed
from ..diagnostics.pristine import Pristine
from ..randomness import Streams
from ..state import State
from ..target.class_names import in_order_of
from ..target.source_files import classes_of
from ..target.target import Target, checkpoint_hash
from ..threat import ThreatModel
from .campaign.own_attack import own_name, own_source
from .campaign.plan import Budget, budget_named
from .evidence import hash_images, hash_labels
from .records import ThreatRecord
from .runtime.journal import Journal
from .runtime.processes import Processes
from .runtime.progress import Progress, Silent


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One audit's network, examples and claim, checked and on the device.

    Nothing changes it: a step of the audit that learns something returns a record, and `dataclasses.replace` makes
    the next subject from it.

    **Fields**
    - `claim`: every option; `threat` is its geometry. `x`, `y`, `index`: the examples, on the device.
    - `aim`: what attacks and judge are given for labels: `y`, or under a targeted goal the classes to reach.
    - `batch_size`: examples in a batch, as far as is known by now: the claim's, or what fits.
    - `spec`, `checkpoint_hash`: how the target was named, and a hash of its parameters.
    - `processes`: which share the examples; `out`, `journal` and `progress` are the first one's.
    - `pristine`: the network in a process in which nobody has asked it, if there is one; `rebuilt`: built anew in one
      without an audit; `untouched`: what it changed of itself in preflight. `journal`: None where nothing is written.
    """

    classifier: Classifier
    data: Data
    threat: ThreatModel
    claim: Claim
    x: Tensor
    y: Tensor
    index: Tensor
    aim: Tensor
    batch_size: int
    device: torch.device
    out: Path | None
    progress: Progress
    spec: str
    checkpoint_hash: str
    processes: Processes
    untouched: State | None = None
    pristine: Pristine | None = None
    rebuilt: Network | None = None
    journal: Journal | None = None
    warnings: list[str] = field(default_factory=list)  # beside preflight's own: a log that `warn` adds to

    def __len__(self) -> int:
        return len(self.x)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Afterwards others may write where this audit did."""
        try:
            yield
        finally:
            if self.journal is not None:
                self.journal.close()

    def warn(self, text: str) -> None:
        """Tells whoever watches, and whoever reads the report, what did not go as it should."""
        if text not in self.warnings:
            self.warnings.append(text)
            self.progress.note(text)

    @property
    def seed(self) -> int:
        """Of all randomness."""
        return self.claim.seed

    @property
    def budget(self) -> Budget:
        """How much is tried."""
        return budget_named(self.claim.budget)

    @property
    def random(self) -> bool:
        """Whether equal inputs may give different outputs; known after preflight."""
        return not self.classifier.deterministic

    @property
    def outside(self) -> bool:
        """Whether the adversary sees answers only."""
        return self.claim.knowledge != "white-box"

    @property
    def answers(self) -> Literal["scores", "labels"]:
        """What an adversary outside the network is told."""
        assert self.claim.knowledge in ("scores", "labels")
        return self.claim.knowledge

    @property
    def misclassification(self) -> ThreatModel:
        """The same ball, where any wrong class counts: what clean accuracy is about."""
        return replace(self.threat, goal="untargeted")

    @property
    def everyone(self) -> Tensor:
        """`[examples]`, places of all examples."""
        return torch.arange(len(self), device=self.device)

    def streams(self, tag: str, chosen: Tensor | slice = slice(None)) -> Streams:
        """Random numbers of the examples at `chosen` (places `[k]`, or a slice) for one part of the audit."""
        return Streams.seeded(self.seed, self.index[chosen], tag)

    def threat_record(self) -> ThreatRecord:
        """The threat model as the report writes it."""
        return ThreatRecord.model_validate(
            {"norm": self.threat.norm, "epsilon": self.threat.epsilon, "goal": self.threat.goal}
            | {"radii": self.claim.epsilon if getattr(self.threat, "weights", None) else None}
        )

    def settings(self, sources: Mapping[str, str]) -> dict[str, Any]:
        """Everything that decides the result: a journal of other settings is not resumed.

        `sources` are hashes of the code behind target and attacks, by what it is.
        """
        return {
            **self.claim.model_dump(mode="json", exclude=_FOUND_OUT),
            "target": self.spec,
            "checkpoint": self.checkpoint_hash,
            "data": self.data.name,
            "split": self.data.split,
            "examples": len(self.data),
            "passes": self.classifier.passes,
            "average": self.classifier.average,
            "images": hash_images(self.data.x),
            "labels": hash_labels(self.data),
            **sources,
            "version": __version__,
            "torch": torch.__version__,
        }


# Fields of a claim that say where something is: what was found there goes into the settings instead.
_FOUND_OUT = set[str](
    "target checkpoint_hash data split examples allow_pickle passes average attack device".split()
)


def subject_of(
    target: Target | Classifier | nn.Module | Network,
    data: Data,
    claim: Claim,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    attacks: Sequence[Attack] = (),
) -> Subject:
    """Puts the network on the device, behind a classifier with a meter of its own, and opens the journal.

    **Raises** `UnusableInput` where the claim contradicts itself, or `out` holds another audit.
    """
    check_scope(claim)
    data = in_order_of(target.network if isinstance(target, Target) else target, data)
    threat = threat_of(claim, data.x.shape[1:], goal=claim.goal)
    network = target.network if isinstance(target, Target) else target
    if isinstance(target, Target):
        name, hashed = target.spec, target.checkpoint_hash
    else:
        inner = network.network if isinstance(network, Classifier) else network
        name, hashed = type(inner).__name__, checkpoint_hash(inner)
    network = in_units(network, data.box, name)
    classifier = as_claimed(network, claim)
    if claim.device is not None and isinstance(classifier.network, nn.Module):
        classifier.network.to(claim.device)
    device = torch.device(claim.device) if claim.device is not None else classifier.device
    processes = Processes.current()
    if processes.rank > 0:
        out, progress = None, None
    order = mixed(data.y.cpu())  # below, our own copies: a network may hold the tensors that the caller gave
    x, y, index = (t.detach()[order.to(t.device)].to(device) for t in (data.x, data.y, data.index))
    subject = Subject(
        classifier=classifier.replace(meter=Meter()),
        data=data,
        threat=threat,
        claim=claim,
        x=x,
        y=y,
        index=index,
        aim=y,
        batch_size=claim.batch_size,
        device=device,
        out=Path(out) if out is not None else None,
        progress=progress or Silent(),
        processes=processes,
        spec=name,
        checkpoint_hash=hashed,
    )
    processes.agree({"network": hashed, "data": hash_images(x)})
    if isinstance(target, Target) and target.settings:
        subject.warn(f"loading the target changed {', '.join(target.settings)}, which was put back")
    sources = _sources(target, attacks)
    journal: list[Journal] = []  # the first process's own: it does not travel

    def opened() -> None:
        if subject.out is not None:
            journal.append(Journal(subject.out / "journal", subject.settings(sources), resume=resume))

    processes.first(opened)
    return replace(subject, journal=journal[0] if journal else None)


def _sources(target: object, attacks: Sequence[Attack]) -> dict[str, str]:
    """Hashes of the code that is audited and that attacks, by what it is."""
    if isinstance(target, Target):
        found = {f"source {name}": digest for name, digest in target.files.items()}
    else:
        network = target.network if isinstance(target, Classifier) else target
        found = {"source of the network": classes_of(network)}
    return found | {f"attack {own_name(a)}": own_source(a) for a in attacks}
