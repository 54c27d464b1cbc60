"""What the report shows of single examples: a row for each, and pictures of some."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..judge import Judgement
from .context import Subject
from .distances import distances
from .records import ExampleTable, ImageTriple
from .verifying.pictures import as_picture

IMAGES = 8  # ours


def example_table(
    subject: Subject, clean: Judgement, final: Judgement, x_adv: Tensor, standard: Tensor | None
) -> ExampleTable:
    """What became of every example, by its place. `standard`: `distances` of what the standard attack found."""
    near = distances(subject, x_adv, final.failure_rate, clean.failure_rate)
    if near is not None and standard is not None:  # what one attack knows, all of them know
        near = torch.minimum(near, standard)
    order = subject.index.argsort()
    return ExampleTable(
        index=subject.index[order].tolist(),
        label=subject.y[order].tolist(),
        clean=clean.prediction[order].tolist(),
        found=final.prediction[order].tolist(),
        failure_rate=final.failure_rate[order].tolist(),
        distance=_known(None if near is None else near[order]),
        standard=_known(None if standard is None else standard[order]),
    )


def _known(distance: Tensor | None) -> list[float | None]:
    return [] if distance is None else [d if math.isfinite(d) else None for d in distance.tolist()]


def image_triples(subject: Subject, clean: Judgement, final: Judgement, x_adv: Tensor) -> list[ImageTriple]:
    """Examples that were right and are now mostly wrong, spread over the classes as they come."""
    if subject.x.ndim == 4 and subject.x.shape[1] not in (1, 3):
        return []
    fresh = ((final.failure_rate > 0.5) & (clean.failure_rate < 0.5)).nonzero()[:, 0]
    chosen: list[int] = []
    for n in sorted(
        fresh.tolist(), key=lambda n: [int(subject.y[m]) for m in chosen].count(int(subject.y[n]))
    ):
        if len(chosen) < IMAGES:
            chosen.append(n)
    return [
        ImageTriple(
            index=int(subject.index[n]),
            label=int(subject.y[n]),
            clean_prediction=int(clean.prediction[n]),
            adversarial_prediction=int(final.prediction[n]),
            clean=as_picture(subject.x[n]),
            adversarial=as_picture(x_adv[n]),
        )
        for n in chosen
    ]
