"""Images without labels, for training that names them itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ..errors import UnusableInput, first_line
from .arrays import check
from .loading import load_training
from .pictures import Size, opened, stack
from .room import refuse_what_exceeds_memory

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


def load_unlabelled(spec: str) -> Float[Tensor, "n channels height width"]:
    """All images of a set, float32 in [0, 1], in its order; labels are left unread where there are none, else unused.

    **Arguments**
    - `spec`: a folder of pictures without folders by class, a `.npy` of images alone, or as for `unmask.data.load`,
      whose training split is taken where there is one.

    **Raises** `UnusableInput` where it cannot be read, or is no images.
    """
    path = Path(spec).expanduser()
    pictures = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES) if path.is_dir() else []
    if pictures:
        opening = ((p.name, opened(p, f"{p.name} of {spec}")) for p in pictures)
        found = stack(opening, Size(), spec, len(pictures))
    elif path.suffix.lower() == ".npy":
        found = _array(path)
    else:
        data = load_training(spec)
        if data.box is not None or data.x.ndim != 4:
            raise UnusableInput(f"{spec} holds no images in [0, 1]; training takes images only")
        return data.x
    x, _, _, box = check(found, np.zeros(len(found), np.int64), name=spec)
    if box is not None or x.ndim != 4:
        raise UnusableInput(f"{spec} holds no images in [0, 1] or of bytes; training takes images only")
    return x


def _array(path: Path) -> np.ndarray:
    if not path.is_file():
        raise UnusableInput(f"there is no file {path}; give a .npy of images, or a folder of pictures")
    refuse_what_exceeds_memory(path.stat().st_size, f"{path} takes", "give fewer images")
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UnusableInput(f"{path} cannot be read as an array of numbers ({first_line(error)})") from error
