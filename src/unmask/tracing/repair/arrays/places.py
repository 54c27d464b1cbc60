"""Places in the place of numbers: what NumPy only moves about is moved a second time, to see where each came from."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor


class Places:
    """Numbers the elements that have a trail, from 1 on; place 0 is none, for what a move itself brings in.

    **Fields**
    - `pool`: the trails in their order, each `[elements]`.
    """

    def __init__(self) -> None:
        self.pool: list[Tensor] = []
        self._size = 1

    def of(self, item: Any) -> Any:
        """The item with places in the place of numbers, at any depth."""
        trail = getattr(item, "trail", None)
        if trail is not None:
            self.pool.append(trail.flatten())
            places = np.arange(self._size, self._size + item.size).reshape(item.shape)
            self._size += item.size
            return places
        if isinstance(item, np.ndarray):
            whole = item.ndim == 0 or item.dtype.kind != "f"
            return item.view(np.ndarray) if whole else np.zeros(item.shape, dtype=np.int64)
        if isinstance(item, tuple | list):
            return type(item)(self.of(i) for i in item)
        return item
