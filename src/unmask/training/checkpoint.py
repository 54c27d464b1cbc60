"""Checkpoints that lose nothing: named groups of tensors and the history, in one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import UnusableInput, first_line
from .base import Epoch, History

Groups = dict[str, dict[str, Tensor]]


def save_checkpoint(path: Path, groups: Groups, history: History, recipe: str) -> None:
    """Writes the file whole or not at all. `recipe` names who may go on from it."""
    tensors = {
        f"{group}/{name}": t.detach().contiguous().clone()
        for group, part in groups.items()
        for name, t in part.items()
    }
    notes = {"recipe": recipe, "epochs": history.record(), "events": history.events}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_bytes(save(tensors, metadata={"history": json.dumps(notes)}))
    unfinished.replace(path)


def load_checkpoint(path: Path, recipe: str) -> tuple[Groups, History]:
    """The inverse of `save_checkpoint`.

    **Raises** `UnusableInput` for a file that is not one, or one of another recipe.
    """
    groups: Groups = {}
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (no dict: it has no iterator)
                group, _, name = key.partition("/")
                groups.setdefault(group, {})[name] = file.get_tensor(key)
            notes = json.loads(file.metadata()["history"])
        history = History([Epoch(**row) for row in notes["epochs"]], notes["events"])
    except Exception as error:  # safetensors' errors share no base with those of the file system
        raise UnusableInput(f"{path} is no checkpoint of a training run ({first_line(error)})") from error
    if notes["recipe"] != recipe:
        raise UnusableInput(
            f"{path} belongs to the recipe `{notes['recipe']}`, not to `{recipe}`; give another folder"
        )
    return groups, history
