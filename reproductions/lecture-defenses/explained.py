"""Detectors that explain the prediction: plain PGD, the joint attack by hand, and the audit that is told nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import purified
import targets
import torch
from detectors import area

from unmask.attacks import APGD, PGD, Attack, ConfidenceSweep, JointPGD
from unmask.classifier import Classifier
from unmask.defenses.detectors import suspicion
from unmask.judge import judge
from unmask.objectives import Undetected, margin_loss
from unmask.statistics import clopper_pearson

Row = dict[str, Any]
PUBLISHED = {
    "leave_one_out": "-",
    "saliency": "-",
    "steering": "falls to a joint attack (Carlini 2019, arXiv:1902.02322)",
}


def rows(story: Any) -> dict[str, tuple[str, Callable[[], Row]]]:
    """Two rows for each detector: by hand, and the audit."""
    table: dict[str, tuple[str, Callable[[], Row]]] = {}
    for name in targets.DETECTORS:
        subject = Subject(story.purified, name, story.seed)
        title = f"digits, explained: {name.replace('_', ' ')}"
        table[title] = PUBLISHED[name], subject.by_hand
        table[f"{title}, audit"] = "-", partial(purified.told_nothing, subject)
    return table


@dataclass
class Subject(purified.Subject):
    """One detector beside the network."""

    def attacks(self) -> dict[str, Attack]:
        """Of one who knows the detector, the cheapest first; but the first, who knows that there is one."""
        steps = 2 * self.bench.steps
        return {
            "high confidence": ConfidenceSweep(
                inner=PGD(steps=steps // 2), confidences=(0.0, 5.0, 15.0, 40.0)
            ),
            "weighted sum": APGD(steps=steps, objective=Undetected(margin_loss)),
            "selective": JointPGD(steps=steps),
            "orthogonal": JointPGD(rule="orthogonal", steps=steps),
            "every class": JointPGD(targets=9, steps=steps),
        }

    def by_hand(self) -> Row:
        """What each attack leaves, right or rejected, of all images, and all of them together."""
        data, threat = self.bench.data, self.bench.threat
        plain = Classifier(targets.plain(), deterministic=True)
        defence = targets.detection(self.name)
        guarded = defence.wrap(plain)
        generator = torch.Generator().manual_seed(self.seed)
        score = partial(suspicion, defence.detector, generator=generator, batch=100)

        def streams(tag: str) -> Any:
            return self.streams(tag, len(data))

        def fooled(x_adv: torch.Tensor, by: Classifier = guarded) -> torch.Tensor:
            found = judge(by, x_adv, data.x, data.y, threat, generator=streams("judge"))
            return found.failure_rate

        naive = PGD(steps=self.bench.steps, early_stop=False).run(
            plain, data.x, data.y, threat, generator=streams("pgd")
        )
        wrong = fooled(naive, plain) > 0
        clean, seen = score(data.x), score(naive)[wrong]
        best, left = torch.maximum(fooled(data.x), fooled(naive)), {}
        for name, attack in self.attacks().items():
            chosen = (best < 1).nonzero()[:, 0]
            if name == "every class" and not len(chosen):
                break
            if name != "every class":
                chosen = torch.arange(len(data))
            x_adv = data.x.clone()
            x_adv[chosen] = attack.run(
                guarded, data.x[chosen], data.y[chosen], threat, generator=streams(name)[chosen]
            )
            rate = fooled(x_adv)
            best = torch.maximum(best, rate)
            left[name] = 1 - float((rate if name != "every class" else best).mean())
        value = 1 - float(best.mean())
        return {
            "what": "share of images that are right or rejected",
            "clean": 1 - float(fooled(data.x).mean()),
            "rejected_clean": float((clean > defence.threshold).float().mean()),
            "naive": 1 - float(fooled(naive).mean()),
            "detected_pgd": float((seen > defence.threshold).float().mean()),
            "area_pgd": area(clean, seen),
            "left": left,
            "value": value,
            "interval": list(clopper_pearson(value * len(data), len(data))),
            "images": len(data),
            "false_positive_rate": targets.RATE,
        }


def describe(row: Row) -> str:
    """One cell of the table."""
    if "verdict" in row:
        return purified.describe(row)
    low, high = (100 * v for v in row["interval"])
    ways = "; ".join(f"{name} {100 * left:.1f} %" for name, left in row["left"].items())
    return (
        f"clean {100 * row['clean']:.1f} %, {100 * row['rejected_clean']:.1f} % of it rejected; plain PGD "
        f"{100 * row['detected_pgd']:.1f} % detected, AUC {row['area_pgd']:.2f}; {ways}; "
        f"**worst {100 * row['value']:.1f} %** [{low:.1f}, {high:.1f}] of {row['images']}"
    )
