"""The records an audit leaves: `report.json` and its keys.

The keys of `schema: 1` are stable: none is renamed or removed, new ones are optional.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Mechanism = Literal["shattered", "vanishing", "exploding", "stochastic", "detector", "evaluation"]
Verdict = Literal["refuted", "not_refuted", "certified", "inconclusive"]
Knowledge = Literal["white-box", "scores", "labels"]
Scalar = bool | int | float | str | None

EXIT_STATUS: dict[Verdict, int] = {"not_refuted": 0, "certified": 0, "refuted": 1, "inconclusive": 3}


class ReportPart(BaseModel):
    """Frozen; an unknown key is an error, so that a typing slip cannot hide."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ThreatRecord(ReportPart):
    """What the adversary may do.

    **Fields**
    - `epsilon`: radius, or the number of pixels or elements, or the side of the patch.
    - `radii`: that of each channel or feature, where they differ; `epsilon` is the largest.
    """

    norm: Literal["linf", "l2", "l1", "l0", "l0-elements", "patch"]
    epsilon: float = Field(ge=0)
    goal: Literal["untargeted", "targeted"] = "untargeted"
    radii: list[Annotated[float, Field(ge=0)]] | None = None


class MaskingFinding(ReportPart):
    """One place where the gradient misleads.

    **Fields**
    - `mechanism`: one of the taxonomy of Athalye et al. 2018, or `detector`, or `evaluation`.
    - `symptom`: what was measured, in one sentence.
    - `operation`: the torch operation, or null where none is to blame.
    - `file`, `line`, `end_line`, `code`: where it stands in the user's source, and that source line. `file` is told
      from the working directory, or from the target's folder where it lies outside.
    - `statistics`: the numbers behind it, by name.
    - `repair`: what the audit did about it.
    - `module`: dotted name of the module it ran in.
    - `confidence`: in [0, 1].
    - `inside`: `file:line` in a library in site-packages, where the operation stands there; `file`, `line` call it.
    """

    mechanism: Mechanism
    symptom: str
    operation: str | None = None
    file: str | None = None
    line: int | None = None
    code: str | None = None
    statistics: dict[str, Scalar] = {}
    repair: str | None = None
    end_line: int | None = None
    module: str | None = None
    confidence: float | None = None
    inside: str | None = None


class AttackRecord(ReportPart):
    """One attack of the plan, by itself.

    **Fields**
    - `recipe`: the attack and its settings, readable.
    - `robust_accuracy`: of this attack alone, over the examples it was given.
    - `newly_broken`: examples that no earlier attack had broken.
    - `forwards`, `backwards`: in examples.
    - `examples`: how many it was given.
    - `ascent`: by which slopes it went up step by step inside the ball: those of autograd, repaired or not, or
      differences of answers; `none` for other attacks; null in reports of before it was kept.
    """

    recipe: str
    robust_accuracy: float
    newly_broken: int
    forwards: int
    backwards: int
    seconds: float
    examples: int | None = None
    ascent: Literal["autograd", "differences", "none"] | None = None


class Control(ReportPart):
    """A check on the audit itself.

    **Fields**
    - `passed`: None where it does not apply.
    - `value`: what was measured; `expected`: what a sound evaluation shows, in words.
    - `decisive`: if it fails, the audit proves nothing by failing to break.
    - `role`: of one that failed. `symptom`: of a masking that the audit found and repaired, or of a weakness that it
      made good by going on; `open`: unexplained, so that not breaking proves nothing. Null where its failure says
      nothing about the attacks.
    """

    name: str
    passed: bool | None
    value: float | str | None = None
    expected: str = ""
    explanation: str = ""
    decisive: bool = False
    role: Literal["symptom", "open"] | None = None


class Fact(ReportPart):
    """Something about the network that hides nothing: a reader should know it, and no attack was misled by it.

    **Fields**
    - `statement`: in one sentence.
    - `operation`, `file`, `line`, `code`: where it stands in the user's source; null where it has no place.
    """

    statement: str
    operation: str | None = None
    file: str | None = None
    line: int | None = None
    code: str | None = None


class Cost(ReportPart):
    """Passes in examples, everything but judging; judging apart; wall time."""

    forwards: int
    backwards: int
    judge_forwards: int
    seconds: float


class Environment(ReportPart):
    """What one needs to know to get the same numbers again."""

    versions: dict[str, str]
    device: str
    seed: int
    batch_size: int
    checkpoint_hash: str
    processes: int = 1
    date: str = ""  # when the audit began, in UTC
    hardware: str = ""  # processor, and accelerator if there is one
    state: list[str] = []  # what the network keeps between calls; put back before each


class AccuracyAtEpsilon(ReportPart):
    """A point of accuracy against the radius of the ball; `examples` is how many it was measured on."""

    epsilon: float
    accuracy: float
    examples: int | None = None


class AccuracyAtCost(ReportPart):
    """A point of accuracy against passes spent so far, in examples."""

    forwards: int
    backwards: int
    accuracy: float


class GradientHistogram(ReportPart):
    """Histogram of log10 |gradient element| at the clean inputs, before any repair.

    **Fields**
    - `bin_edges`: one more than `counts`, in powers of ten.
    - `counts`: non-zero finite elements in each bin.
    - `zero_share`: share of elements that are exactly zero, in [0, 1].
    """

    bin_edges: list[float]
    counts: list[int]
    zero_share: float


class ExampleTable(ReportPart):
    """What became of every example, a list for each column, in the order of the data.

    **Fields**
    - `index`: place in the split; `label`: the true class.
    - `clean`, `found`: the class it is taken for as it is, and at the worst point that was found.
    - `failure_rate`: of fresh draws, how many fail there.
    - `distance`, `standard`: the nearest known failure, drawn back from the points of all attacks and of the standard
      attack alone; null where none is known. Empty where no distance is measured.
    """

    index: list[int]
    label: list[int]
    clean: list[int]
    found: list[int]
    failure_rate: list[float]
    distance: list[float | None] = []
    standard: list[float | None] = []


class ImageTriple(ReportPart):
    """One example to look at.

    **Fields**
    - `clean`, `adversarial`: values in [0, 1], `[channels][height][width]`; vectors and signals have height one, slices
      of a volume stand below each other. For the page alone: `report.json` leaves them out, for the evidence and the
      data set hold them.
    """

    index: int
    label: int
    clean_prediction: int
    adversarial_prediction: int
    clean: list[list[list[float]]] = Field([], exclude=True)
    adversarial: list[list[list[float]]] = Field([], exclude=True)


class CleverRecord(ReportPart):
    """CLEVER's estimate of the distance to the nearest adversarial example, at most epsilon. It is no bound.

    **Fields**
    - `examples`: how many were estimated; `batches`, `samples`: maxima each, and points for each maximum.
    - `median`: of their scores, in the threat's norm; null where there is none.
    - `refuted`: scores inside which an adversarial example lies.
    - `unreliable`: scores whose assumptions do not hold, for instance because masking was found.
    - `unrefuted`: the others.
    """

    examples: int
    batches: int
    samples: int
    median: float | None
    refuted: int
    unreliable: int
    unrefuted: int


class QueriesRecord(ReportPart):
    """What an adversary who only sees answers has asked, in deployed predictions.

    **Fields**
    - `limit`: as the claim states it; null for none.
    - `most`: queries about any one example, at most: the sum over the attacks that ran.
    - `mean`: asked per example.
    """

    limit: int | None
    most: int
    mean: float


# Of a report, what its `repr` shows.
_SCREEN = (
    "verdict",
    "claim",
    "threat",
    "examples",
    "clean_accuracy",
    "robust_accuracy",
    "robust_accuracy_interval",
    "naive_robust_accuracy",
    "certified_accuracy",
)


class Report(ReportPart):
    """`report.json`. The first block are the keys that SPEC fixes; the second is for the reader's eyes."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal[1] = Field(1, alias="schema")
    verdict: Verdict
    claim: float | None
    threat: ThreatRecord
    examples: int
    clean_accuracy: float
    robust_accuracy: float
    robust_accuracy_interval: tuple[float, float]
    naive_robust_accuracy: float | None
    certified_accuracy: float | None = None
    masking: list[MaskingFinding] = []
    facts: list[Fact] = []
    attacks: list[AttackRecord] = []
    controls: list[Control] = []
    cost: Cost
    environment: Environment

    target: str = ""
    data: str = ""
    split: str = ""
    passes: int = 1
    average: Literal["logits", "probabilities"] | None = (
        None  # what passes become first; None: as they are returned
    )
    budget: str = "standard"
    exhaustive: bool = False
    stochastic: bool = False
    sample_seed: int | None = None
    warnings: list[str] = []
    certificate: str | None = None
    accuracy_against_epsilon: list[AccuracyAtEpsilon] = []
    accuracy_against_cost: list[AccuracyAtCost] = []
    gradient_histogram: GradientHistogram | None = None
    images: list[ImageTriple] = []
    class_names: list[str] = []
    table: ExampleTable | None = None
    clever: CleverRecord | None = None
    targets: Literal["random", "least-likely"] | int | None = None
    knowledge: Knowledge = "white-box"
    queries: QueriesRecord | None = None

    def __repr_args__(self) -> Iterator[tuple[str, object]]:
        """What fits a screen: numbers and findings, without pictures and curves."""
        for name in _SCREEN:
            yield name, getattr(self, name)
        for finding in self.masking:
            yield finding.mechanism, f"{finding.operation} at {finding.file}:{finding.line}"
        yield "failed controls", [control.name for control in self.controls if control.passed is False]

    def _repr_html_(self) -> str:
        """For notebooks: verdict, accuracies of how many, findings and failed controls, without a picture."""
        low, high = self.robust_accuracy_interval
        rows: list[tuple[str, object]] = [
            ("clean accuracy", f"{self.clean_accuracy:.1%} of {self.examples}"),
            ("accuracy under attack", f"{self.robust_accuracy:.1%} of {self.examples}"),
            ("95 % interval", f"{low:.1%} to {high:.1%}"),
        ]
        rows += [("claimed", f"{self.claim:.1%}")] if self.claim is not None else []
        if self.naive_robust_accuracy is not None:
            rows.insert(1, ("standard attack", f"{self.naive_robust_accuracy:.1%} of {self.examples}"))
        rows += [(m.mechanism, f"{m.operation} at {m.file}:{m.line}") for m in self.masking]
        rows += [("failed control", c.name) for c in self.controls if c.passed is False]
        cells = "".join(f"<tr><th>{escape(str(a))}</th><td>{escape(str(b))}</td></tr>" for a, b in rows)
        verdict = self.verdict.replace("_", " ")
        if self.claim is None and self.verdict == "not_refuted":
            verdict = "measured"  # nothing was claimed that could be refuted
        return f"<table><caption>{escape(verdict)}</caption>{cells}</table>"

    @property
    def exit_status(self) -> int:
        """0 finished and the claim is not refuted, 1 refuted, 3 inconclusive; without a claim always 0."""
        return 0 if self.claim is None else EXIT_STATUS[self.verdict]

    def to_json(self) -> str:
        """Text of `report.json`. Non-finite numbers become null, for JSON has neither NaN nor infinity."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"
