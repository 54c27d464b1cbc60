"""Curves for TensorBoard, for whoever has it installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import UnusableInput
from .base import History


def tensorboard(folder: Path) -> Callable[[History], None]:
    """A `progress` that writes every field of the last epoch to event files in `folder`.

    **Raises** `UnusableInput` where the package `tensorboard` is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # pyright: ignore[reportPrivateImportUsage]
    except ImportError as error:
        raise UnusableInput("tensorboard is not installed; run `pip install tensorboard`") from error

    writer = SummaryWriter(str(folder))

    def write(history: History) -> None:
        for name, value in history.record()[-1].items():
            if value is not None:
                writer.add_scalar(name, value, len(history.epochs))
        writer.flush()

    return write
