"""One thread a process: the suite runs several processes side by side, and tiny operations gain nothing from more.

With `UNMASK_SHAPES=1` the shapes in the signatures of some rooms are checked at every call.
"""

import os
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

ROOMS = ("randomness", "objectives", "threat", "judge", "classifier", "attacks")

collect_ignore = ["faults/kill.py", "faults/two_agents.py"]  # scripts, which --doctest-modules would import

torch.set_num_threads(1)
if os.environ.get("UNMASK_SHAPES"):  # before any of them is imported
    sys.path.append(str(Path(__file__).parent))  # the hook imports its checker by name
    install_import_hook([f"unmask.{room}" for room in ROOMS], "shape_checker.check")


@pytest.fixture(scope="session")
def begun():
    """`begun(*words, cwd=folder)`: the command line as a process of its own; see `tests/begun.py`."""
    from tests.begun import Begun

    made = Begun()
    yield made
    made.end()
