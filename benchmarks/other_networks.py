"""Other people's networks, from `networks.py` in the folder `models` beside the one that UNMASK_DATA names."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from torch import nn


def data_folder() -> Path:
    """The folder that UNMASK_DATA names; the script ends with one line where there is none."""
    folder = os.environ.get("UNMASK_DATA")
    if not folder:
        sys.exit("UNMASK_DATA is not set; point it at the data folder beside models/networks.py")
    return Path(folder)


def load_network(name: str) -> nn.Module:
    """One of them, in eval mode."""
    path = data_folder().parent / "models" / "networks.py"
    if not path.is_file():
        sys.exit("there is no ../models/networks.py beside the folder that UNMASK_DATA names")
    spec = importlib.util.spec_from_file_location("networks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)()
