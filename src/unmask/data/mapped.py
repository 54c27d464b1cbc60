"""Arrays of NumPy's files where they lie: of a file larger than memory only those rows are read that are asked for."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .room import STREAMED, refuse_what_exceeds_memory

# Of an archive's member, what its own header in the file takes before name and extra field (APPNOTE 4.3.7).
_HEADER, _NAME, _EXTRA = 30, slice(26, 28), slice(28, 30)


def array_in(path: Path, *, allow_pickle: bool) -> Any:
    """What a `.npy` holds: mapped, so that rows are read when they are asked for, or read where that is impossible."""
    with path.open("rb") as file:
        found = _mapped(path, file)
    if found is None:
        found = np.load(path, allow_pickle=allow_pickle)
    return found.item() if found.dtype == object and found.ndim == 0 else found


class Archive(Mapping[str, Any]):
    """The arrays of a `.npz`, each when it is asked for: mapped where `numpy.savez` stored it, read where compressed.

    **Raises** `UnusableInput` where a compressed one is more than this machine's memory.
    """

    def __init__(self, path: Path, *, allow_pickle: bool):
        if not zipfile.is_zipfile(path):
            raise ValueError("not a zip archive")
        self._path, self._pickles = path, allow_pickle
        with zipfile.ZipFile(path) as archive:
            self._members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __getitem__(self, name: str) -> Any:
        info = self._members[name]
        if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
            with self._path.open("rb") as file:
                file.seek(info.header_offset)
                header = file.read(_HEADER)
                file.seek(sum(int.from_bytes(header[part], "little") for part in (_NAME, _EXTRA)), 1)
                found = _mapped(self._path, file)
            if found is not None:
                return found
        refuse_what_exceeds_memory(
            info.file_size,
            f"{name} of {self._path}, which is compressed and has to be read as a whole, takes",
            STREAMED.format("it"),
        )
        with np.load(self._path, allow_pickle=self._pickles) as archive:
            return archive[name]


def _mapped(path: Path, file: Any) -> np.ndarray | None:
    """The array whose `.npy` begins at the file's position; None where it cannot be mapped."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        read = readers[np.lib.format.read_magic(file)]
    except (ValueError, KeyError):  # no array, or one of named fields
        return None
    shape, fortran, dtype = read(file)
    if dtype.hasobject or 0 in shape:
        return None
    # Not "c", copied where it is written: of such a map the system refuses what is larger than its memory.
    return np.memmap(path, dtype, "r", offset=file.tell(), shape=shape, order="F" if fortran else "C")
