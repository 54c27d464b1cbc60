"""Pictures as bytes `[channels, height, width]`, brought to one size and to grey or colour where the user says so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ..errors import UnusableInput, first_line
from .room import refuse_what_exceeds_memory

# What each of PIL's 8-bit modes is converted to.
MODES = {
    "1": "L",
    "L": "L",
    "RGB": "RGB",
    "P": "RGB",
    "RGBA": "RGB",
    "CMYK": "RGB",
    "LA": "L",
    "YCbCr": "RGB",
}

# Bytes that a number of a picture takes while pictures are read: in its own array, in that of all, and as float32.
HELD = 1 + 1 + 4


@dataclass(frozen=True)
class Size:
    """How pictures become alike: the shorter side to `resize` pixels, then the centre, `crop` x `crop`.

    `channels` is 1 for grey (of colours, PIL's luma) or 3 for colour; by default grey where all of them are.
    """

    resize: int | None = None
    crop: int | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        if self.channels not in (None, 1, 3):
            raise ValueError("channels is 1 for grey or 3 for colour")

    def of(self, image: Any) -> Any:
        """A PIL image of that size; bilinear with antialiasing, as PIL reduces."""
        from PIL import Image

        if self.resize is not None:
            scale = self.resize / min(image.size)
            image = image.resize(
                [max(1, round(side * scale)) for side in image.size], Image.Resampling.BILINEAR
            )
        if self.crop is not None:
            left, top = ((side - self.crop) // 2 for side in image.size)
            image = image.crop((left, top, left + self.crop, top + self.crop))
        return image


def opened(path: Path, called: str) -> Any:
    """A PIL image with its pixels. **Raises** `UnusableInput`, which names it as it is `called`."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, SyntaxError, ValueError) as error:
        raise UnusableInput(f"{called} cannot be read ({first_line(error)}); remove it") from error


def _file(image: Any) -> str:
    """A picture's own file, where it knows of one."""
    name = str(getattr(image, "filename", "") or "")
    return f" ({name})" if name else ""


def stack(
    images: Iterable[tuple[str, Any]], size: Size, name: str, count: int
) -> UInt8[np.ndarray, "n channels height width"]:
    """Pictures, each with what to call it, as one array. Grey ones beside colour become colour. `count` of them come.

    **Raises** `UnusableInput` where one cannot be read, where sizes differ, or where all of them, as the first is, are
    more than this machine's memory holds.
    """
    found: list[np.ndarray] = []
    for called, image in images:
        try:
            mode = MODES.get(image.mode)
            if mode is None:
                raise UnusableInput(
                    f"{called} of {name}{_file(image)} has mode {image.mode}, not 8-bit grey or RGB; convert it and "
                    "save x and y as .npz"
                )
            if size.channels is not None:
                mode = "L" if size.channels == 1 else "RGB"
            array = np.asarray(size.of(image if image.mode == mode else image.convert(mode)))
        except (
            OSError,
            SyntaxError,
            ValueError,
        ) as error:  # PIL's for a file that is cut short or no picture
            raise UnusableInput(
                f"{called} of {name}{_file(image)} cannot be read ({first_line(error)}); remove it"
            ) from error
        if not found:
            refuse_what_exceeds_memory(
                HELD * count * array.size,
                f"the {count} pictures of {name}, as float32 and once more while they are read, take",
                "give fewer, as audit's --examples N does, or smaller ones, of labelled data by "
                f'"{name}(resize=N)"',
            )
        found.append(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))
    if not found:
        return np.zeros((0, 1, 1, 1), np.uint8)
    if {len(array) for array in found} == {1, 3}:
        found = [np.repeat(array, 3, axis=0) if len(array) == 1 else array for array in found]
    shapes = sorted({array.shape for array in found})
    if len(shapes) > 1:
        raise UnusableInput(
            f"images of {name} differ in shape, for instance {list(shapes[0])} and {list(shapes[-1])}; bring them to "
            f'one size, for instance --data "{name}(resize=64, crop=64)"'
        )
    return np.stack(found)
