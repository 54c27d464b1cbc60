"""The few examples that a report shows: their pixels stand in the evidence and in the data set, and nowhere else."""

from __future__ import annotations

import torch
from torch import Tensor

from ...data import Data
from ..evidence import Evidence
from ..records import Report
from .evidence_checks import Check


def as_picture(one: Tensor) -> list[list[list[float]]]:
    """One example as `[channels][height][width]`: curves have height one, a volume's slices stand below each other."""
    one = one.cpu()
    if one.ndim < 3:
        return one.reshape(-1, 1, one.shape[-1]).tolist()
    return (one if one.ndim == 3 else one.flatten(1, 2)).tolist()


def with_pixels(report: Report, evidence: Evidence, data: Data) -> Report:
    """The report with the pixels of its images, as the page draws them; without those of an image that is unknown."""
    shown = []
    for picture in report.images:
        row, at = _first(evidence.index, picture.index), _first(data.index, picture.index)
        pixels = {
            "clean": [] if at is None else as_picture(data.x[at]),
            "adversarial": [] if row is None else as_picture(evidence.x_adv[row]),
        }
        shown.append(picture.model_copy(update=pixels))
    return report.model_copy(update={"images": shown})


def pictures(report: Report, evidence: Evidence, data: Data) -> Check:
    """The images that the page shows are those of the evidence and of the data set.

    Reports of earlier versions hold pixels, which are compared, too.
    """
    wrong = []
    for stated, found in zip(report.images, with_pixels(report, evidence, data).images, strict=True):
        row = _first(evidence.index, stated.index)
        same = row is not None and bool(found.clean)
        for shown, kept in ((stated.clean, found.clean), (stated.adversarial, found.adversarial)):
            same &= not shown or _float32(shown) == _float32(kept)
        seen = row is not None and stated.label == int(evidence.label[row])
        if not same or not seen or stated.adversarial_prediction != int(evidence.prediction[row or 0]):
            wrong.append(stated.index)
    found = f"{len(report.images)}" if not wrong else f"not example {', '.join(map(str, wrong[:5]))}"
    return Check("pictures of the report", not wrong, found)


def _first(index: Tensor, place: int) -> int | None:
    at = (index == place).nonzero()[:, 0]
    return int(at[0]) if len(at) else None


def _float32(pixels: list[list[list[float]]]) -> list[object] | None:
    try:
        return torch.tensor(pixels, dtype=torch.float32).tolist()
    except (ValueError, TypeError):  # rows of different lengths
        return None
