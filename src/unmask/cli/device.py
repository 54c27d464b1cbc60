"""The device that a command runs on, tried before anything is loaded for it."""

from __future__ import annotations

import os

from ..errors import UnusableInput, first_line


def choose_device(name: str | None) -> str:
    """The device asked for, else the best there is; under `torchrun` of several GPUs the one of this process.

    **Raises** `UnusableInput` where it cannot be used.
    """
    import torch  # here, for a wrong option is told before it is loaded

    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        name = f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    try:
        torch.ones(1, device=name).item()  # "meta" has no values
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # torch goes on to list every kind of device that it was ever built for
        why = (
            first_line(error)
            .partition("This could be because")[0]
            .partition("Expected one of")[0]
            .strip(" .")
        )
        raise UnusableInput(
            f"--device {name} cannot be used ({why or 'torch knows no device of this name'}); give cpu, cuda or cuda:N"
        ) from error
    return name
