"""Two audits as they could have gone: one refutes its claim, one does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unmask.audit.records import (
    AccuracyAtCost,
    AccuracyAtEpsilon,
    AttackRecord,
    Control,
    Cost,
    Environment,
    GradientHistogram,
    ImageTriple,
    MaskingFinding,
    Report,
    ThreatRecord,
)
from unmask.data import load
from unmask.statistics import clopper_pearson

SOURCE = """\
class Quantized(nn.Module):
    def __init__(self, inner, levels=8):
        super().__init__()
        self.inner, self.levels = inner, levels

    def forward(self, x):
        # keep three bits of every pixel
        x = torch.round(x * (self.levels - 1)) / (self.levels - 1)
        return self.inner(x)
"""


def images(count: int) -> list[ImageTriple]:
    data = load("digits", examples=count)
    rng = np.random.default_rng(0)
    triples = []
    for i in range(count):
        clean = data.x[i].numpy()
        adversarial = np.clip(clean + 0.15 * rng.choice([-1, 1], clean.shape), 0, 1)
        label = int(data.y[i])
        triples.append(
            ImageTriple(
                index=i,
                label=label,
                clean_prediction=label,
                adversarial_prediction=(label + 3) % 10,
                clean=clean.tolist(),
                adversarial=adversarial.tolist(),
            )
        )
    return triples


def environment() -> Environment:
    return Environment(
        versions={"unmask": "0.1.0", "torch": "2.13.0", "python": "3.11.9"},
        device="cpu",
        seed=0,
        batch_size=256,
        checkpoint_hash="9f" * 32,
    )


def controls() -> list[Control]:
    return [
        Control(
            name="null attack",
            passed=True,
            value=0.966,
            expected="clean accuracy at epsilon 0",
            explanation="The whole machinery at epsilon 0 must break nothing.",
            decisive=True,
        ),
        Control(
            name="unbounded epsilon",
            passed=True,
            value=0.0,
            expected="0 at epsilon 1",
            explanation="With every pixel free, a sound attack breaks everything.",
            decisive=True,
        ),
        Control(
            name="black box against white box", passed=False, value=0.31, expected="white box is stronger"
        ),
        Control(name="certificate below attack", passed=None, expected="no certificate applies"),
    ]


def refuted(source: Path) -> Report:
    source.write_text(SOURCE)
    finding = MaskingFinding(
        mechanism="shattered",
        symptom="Every element of the gradient is exactly zero behind this operation, while its output does "
        "change when its input moves by 0.1.",
        operation="torch.round",
        file=str(source),
        line=8,
        code="x = torch.round(x * (self.levels - 1)) / (self.levels - 1)",
        statistics={"zero_share": 1.0, "finite_difference_ratio": 0.0, "elements": 32000},
        repair="straight-through backward (BPDA): output and input differ by at most 0.07",
        module="",
        confidence=0.99,
    )
    return Report(
        verdict="refuted",
        claim=0.83,
        threat=ThreatRecord(norm="linf", epsilon=0.15),
        examples=500,
        clean_accuracy=0.966,
        robust_accuracy=0.042,
        robust_accuracy_interval=clopper_pearson(21, 500),
        naive_robust_accuracy=0.898,
        masking=[finding],
        attacks=[
            AttackRecord(
                recipe="APGD-CE, exact gradient, 50 steps",
                robust_accuracy=0.898,
                newly_broken=34,
                forwards=24800,
                backwards=24800,
                seconds=1.9,
            ),
            AttackRecord(
                recipe="APGD-CE, straight-through at torch.round, 50 steps",
                robust_accuracy=0.058,
                newly_broken=420,
                forwards=8731,
                backwards=8731,
                seconds=0.8,
            ),
            AttackRecord(
                recipe="targeted APGD-DLR, straight-through at torch.round, 9 targets",
                robust_accuracy=0.044,
                newly_broken=8,
                forwards=11220,
                backwards=11220,
                seconds=1.1,
            ),
        ],
        controls=controls(),
        cost=Cost(forwards=51204, backwards=47113, judge_forwards=1930, seconds=6.4),
        environment=environment(),
        target="quantized_digits.py:defended",
        data="digits",
        split="test",
        accuracy_against_epsilon=[
            AccuracyAtEpsilon(epsilon=e, accuracy=a)
            for e, a in zip(
                [0, 0.04, 0.08, 0.12, 0.15, 0.2, 0.3], [0.966, 0.72, 0.36, 0.1, 0.042, 0.006, 0], strict=True
            )
        ],
        accuracy_against_cost=[
            AccuracyAtCost(forwards=f, backwards=f, accuracy=a)
            for f, a in [
                (500, 0.966),
                (2000, 0.91),
                (24800, 0.898),
                (26000, 0.4),
                (30000, 0.1),
                (44000, 0.042),
            ]
        ],
        gradient_histogram=GradientHistogram(
            bin_edges=[float(e) for e in range(-12, 1)],
            counts=[0, 0, 1, 4, 20, 90, 300, 800, 1200, 700, 90, 4],
            zero_share=0.9,
        ),
        images=images(8),
    )


def not_refuted() -> Report:
    return Report(
        verdict="not_refuted",
        claim=0.88,
        threat=ThreatRecord(norm="linf", epsilon=8 / 255),
        examples=256,
        clean_accuracy=0.984,
        robust_accuracy=0.9023,
        robust_accuracy_interval=clopper_pearson(231, 256),
        naive_robust_accuracy=0.9102,
        controls=controls()[:2],
        cost=Cost(forwards=90412, backwards=81002, judge_forwards=410, seconds=63.0),
        environment=environment(),
        target="models.py:adversarially_trained",
        data="mnist",
        split="test",
        warnings=["The batch was halved to 128 for want of memory."],
        images=images(2),
    )
