"""What `unmask train` shows of its epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..training import History
    from ..training.base import Epoch


def total_passes(trainer: Any) -> int:
    """Epochs that a progress bar counts up to: of both phases of pretraining, of the student of self-training."""
    if hasattr(trainer, "before"):
        return trainer.before.passes + trainer.after.passes
    return getattr(trainer, "student", trainer).passes


def progress_bar(err: Any, total: int) -> Any:
    """A bar over the epochs, with the last accuracies; nothing where standard error is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    bar = Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
    bar.add_task("", total=total)
    return bar


def describe(history: History, total: int) -> str:
    """One line about the last epoch."""
    last = history.epochs[-1]
    words = [f"loss {last.loss:.4f}", f"training accuracy {100 * last.accuracy:.2f} %"]
    if last.clean_accuracy is not None:
        words += accuracies_of(last)
    return f"epoch {len(history.epochs)} of {total}: {', '.join(words)}, {last.seconds:.0f} s"


def accuracies_of(epoch: Epoch) -> list[str]:
    """On the validation data; on the training data, as the recipe saw them, where there are none."""
    if epoch.clean_accuracy is None:
        return [f"training accuracy {100 * epoch.accuracy:.2f} %"]
    words = [f"clean {100 * epoch.clean_accuracy:.2f} %"]
    return words if epoch.robust_accuracy is None else [*words, f"robust {100 * epoch.robust_accuracy:.2f} %"]
