"""Which source a target names, and what stands behind its name in brackets."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

from torch import nn

from ..errors import UnusableInput
from . import exported, huggingface, keras_model, onnx_network, state_dict, timm_model, toolbox
from .preprocessing import Preprocessing, SourceOptions

Opener = Callable[[str, SourceOptions], tuple[nn.Module, Preprocessing]]

BY_PREFIX: dict[str, Opener] = {
    "hf": huggingface.open_network,
    "timm": timm_model.open_network,
    "art": toolbox.open_art,
    "foolbox": toolbox.open_foolbox,
}
BY_SUFFIX: dict[str, Opener] = {
    ".onnx": onnx_network.open_network,
    ".pt2": exported.open_program,
    ".keras": keras_model.open_network,
    **dict.fromkeys(
        (".pt", ".pth", ".bin", ".ckpt", ".ts", ".torchscript", ".safetensors"), state_dict.open_file
    ),
    **dict.fromkeys((".tar", ".chk", ".ckp", ".checkpoint", ".model", ".weights"), state_dict.open_file),
}
_BRACKETS = re.compile(r"(?P<place>.*?)(\((?P<options>.*)\))?", re.DOTALL)


def is_source(spec: str) -> bool:
    """Whether a target is one of these, or a file of whatever name that is no Python, and no Python callable.

    >>> is_source("hf:google/vit-base-patch16-224"), is_source("net.onnx"), is_source("net.py:build")
    (True, True, False)
    """
    return _opener(_split(spec)[0]) is not None


def open_source(spec: str) -> tuple[nn.Module, Path | None]:
    """The network that a source names, and its file where it is one.

    `SOURCE(option=value, …)`: `arch` names the class of a state dict, the others are `SourceOptions`. A value that
    the source itself states, such as the mean in a processor's configuration, gives way to an option.

    **Raises** `UnusableInput` with one line: what is missing, and the way out.
    """
    place, brackets = _split(spec)
    opener = _opener(place)
    assert opener is not None, spec
    options = _options(brackets, spec)
    network, stated = opener(place.partition(":")[2] if _prefix(place) else place, options)
    path = None if _prefix(place) else Path(place).expanduser()
    return stated.updated(options).before(network), path


def with_options(spec: str, values: dict[str, object]) -> str:
    """The spec with options written into its brackets, where verification and the report read them again.

    Behind a Python callable they are steps before its network; `arch` belongs to state dicts alone.

    >>> with_options("net.pth", {"arch": "net.py:Net", "mean": (0.5,)})
    "net.pth(arch='net.py:Net', mean=(0.5,))"
    """
    if not values:
        return spec
    bare, plus, defences = spec.partition(" + ")
    place, brackets = _split(bare)
    if "arch" in values and _opener(place) is None:
        if not place.endswith(".py") and ":" not in place:
            raise UnusableInput(f"there is no file {place}; give weights or a TorchScript network")
        raise UnusableInput(
            f"--arch names the class of a file of weights, and {place} is a Python callable: leave --arch out"
        )
    written = [brackets] if brackets else []
    return f"{place}({', '.join([*written, *(f'{k}={v!r}' for k, v in values.items())])}){plus}{defences}"


def split_steps(spec: str) -> tuple[str, Preprocessing | None]:
    """A Python callable's name, and the steps in the brackets behind it; None where there are none.

    >>> split_steps("net.py:build(std=[0.5])")[0]
    'net.py:build'
    """
    place, brackets = _split(spec)
    if not brackets:
        return spec, None
    options = _options(brackets, spec)
    for name in ("arch", "part"):
        if getattr(options, name) is not None:
            raise UnusableInput(
                f"{name} belongs to a file of weights, and {place} is a Python callable: leave it out"
            )
    return place, options


def _split(spec: str) -> tuple[str, str]:
    match = _BRACKETS.fullmatch(spec.strip())
    assert match is not None
    return match["place"], match["options"] or ""


def _prefix(place: str) -> str | None:
    prefix, colon, _ = place.partition(":")
    return prefix if colon and prefix in BY_PREFIX else None


def _opener(place: str) -> Opener | None:
    if prefix := _prefix(place):
        return BY_PREFIX[prefix]
    path = Path(place).expanduser()
    # Checkpoints bear any name, `model_best` or `step.1000` too.
    weights = state_dict.open_file if path.suffix != ".py" and path.is_file() else None
    return BY_SUFFIX.get(path.suffix.lower(), weights)


def _options(text: str, spec: str) -> SourceOptions:
    known = ", ".join(f"{name}=…" for name in SourceOptions.__dataclass_fields__)
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args:
            raise ValueError("a value without a name")
        values = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        return SourceOptions(**values)
    except (SyntaxError, ValueError, TypeError) as error:
        raise UnusableInput(f"the brackets of {spec} cannot be read ({error}); write {known}") from error
