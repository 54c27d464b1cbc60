"""What a network's owner runs: a program that builds the network and asks it, with nothing of ours loaded.

`rebuilt.py` hands this text to a new interpreter (`python -c`), so it imports nothing of this package. Its first
message says what to build; every other one is a question, which a copy of the process answers that has never asked
before.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import os
import random
import signal
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_LENGTH = struct.Struct("<q")
ANSWERED = 75  # the status of a copy that has; 0 may be the network's own


def digest(network: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of a network's state dict; of tensors without bytes, their names.

    >>> digest(nn.ReLU()) == digest(nn.Tanh()), digest(nn.Linear(1, 1)) == digest(nn.ReLU())
    (True, False)
    """
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode())
        if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized:
            found.update(f" {value.dtype} {list(value.shape)}\n".encode())
            found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def readable(returned: Any) -> Any:
    """What a network returned, in types that every process knows: its logits and its detector's scores.

    >>> readable({"loss": None, "logits": torch.zeros(1, 2)})
    {'logits': tensor([[0., 0.]]), 'detector_score': None}
    """
    if isinstance(returned, np.ndarray):
        returned = torch.from_numpy(returned.astype(np.float32, copy=False))
    if isinstance(returned, Tensor):
        return returned.detach().as_subclass(Tensor).cpu()
    kept = returned if isinstance(returned, Mapping) else getattr(returned, "__dict__", {})
    names = ("logits", "detector_score")
    found = {name: kept.get(name, getattr(returned, name, None)) for name in names}
    return {name: None if value is None else readable(value) for name, value in found.items()}


def built(place: str, name: str) -> nn.Module:
    """What `name` in a file or a module returns."""
    found: Any = _file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    for part in name.split("."):
        found = getattr(found, part)
    return found if isinstance(found, nn.Module) else found()


def _file(path: Path) -> ModuleType:
    sys.path.insert(0, str(path.parent))
    taken = path.stem in sys.modules or path.stem in sys.stdlib_module_names
    name = f"{path.stem}_" if taken else path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def send(pipe: int, value: Any) -> None:
    """Writes tensors, numbers, texts and containers of them."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    content = buffer.getvalue()
    left = memoryview(_LENGTH.pack(len(content)) + content)
    while left:
        left = left[os.write(pipe, left) :]


def receive(pipe: int) -> Any:
    """What `send` wrote.

    **Raises** `EOFError` at the end of the pipe.
    """
    size = _LENGTH.unpack(_exactly(pipe, _LENGTH.size))[0]
    return torch.load(io.BytesIO(_exactly(pipe, size)), weights_only=True)


def _exactly(pipe: int, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = os.read(pipe, size - len(found))
        if not more:
            raise EOFError
        found += more
    return found


def _answer(network: nn.Module, x: Tensor, seed: int, device: str, patience: int) -> Any:
    signal.alarm(patience)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    with torch.no_grad():
        return readable(network(x.to(device)))


def main() -> None:
    """Builds, says what was built, and answers until the pipe ends."""
    questions, answers, nowhere = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    torch.set_num_threads(1)  # a copy of this process would wait for threads that it has not
    asked = receive(questions)
    network = built(asked["place"], asked["name"])
    device, patience = asked["device"], asked["patience"]
    network.to(device)
    send(answers, digest(network))
    while True:
        try:
            x, seed = receive(questions)
        except EOFError:
            return
        if torch.cuda.is_initialized():  # which no copy of a process could use
            send(answers, _answer(network, x, seed, device, patience))
            continue
        child = os.fork()
        if child == 0:
            try:
                send(answers, _answer(network, x, seed, device, patience))
                os._exit(ANSWERED)
            finally:
                os._exit(1)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != ANSWERED:
            return


if __name__ == "__main__":
    main()
