"""What one run of a reproduction is asked for."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from ..errors import UnusableInput

if TYPE_CHECKING:
    from ..data import Data


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of `unmask reproduce`; None leaves a scale as the reproduction has it.

    **Fields**
    - `name`: of the reproduction.
    - `quick`: small networks on digits, in minutes.
    - `examples`: images of every row; `steps`: of every attack.
    - `seed`: of all randomness; `seeds`: runs of every row, with this seed and those that follow it.
    - `device`: where networks and images are.
    - `data`: another data set of the same shape, as `unmask.data.load` takes it.
    """

    name: str = ""
    quick: bool = False
    examples: int | None = None
    steps: int | None = None
    seed: int = 0
    seeds: int = 1
    device: str = "cpu"
    data: str | None = None

    def __post_init__(self) -> None:
        for option in ("examples", "steps", "seeds"):
            number = getattr(self, option)
            if number is not None and number < 1:
                raise UnusableInput(f"--{option} is {number}; give at least 1")

    def scaled(self, scale: Any, *, examples: Sequence[str] = (), steps: Sequence[str] = ()) -> Any:
        """A frozen `scale` at the numbers asked for; its fields of these names hold numbers of images and of steps.

        **Raises** `UnusableInput` where one is asked for that this reproduction has none of.
        """
        for option, names in (("examples", examples), ("steps", steps)):
            number = getattr(self, option)
            if number is not None and not names:
                self.refuse(option)
            elif number is not None:
                scale = replace(scale, **dict.fromkeys(names, number))
        return scale

    def refuse(self, *options: str) -> None:
        """**Raises** `UnusableInput` where one of these was given, of which this reproduction has none to choose."""
        for option in options:
            if getattr(self, option) is not None:
                raise UnusableInput(f"{self.name} has no {option} to choose; leave --{option} out")

    def load(
        self, default: str, *, split: str, examples: int | None = None, shape: Sequence[int] = ()
    ) -> Data:
        """Images of `default`, or of the data set asked for in its place, on the device.

        **Raises** `UnusableInput` where they are not of the `shape` that the networks take.
        """
        from ..data import load

        spec = self.data or default
        data = load(spec, split=split, examples=examples)
        if shape and tuple(data.x.shape[1:]) != tuple(shape):
            raise UnusableInput(
                f"--data {spec} has images of shape {list(data.x.shape[1:])}; {self.name} takes {list(shape)}"
            )
        return replace(
            data, x=data.x.to(self.device), y=data.y.to(self.device), index=data.index.to(self.device)
        )

    def seeded(self) -> list[Request]:
        """One request for each seed."""
        return [replace(self, seed=self.seed + n, seeds=1) for n in range(self.seeds)]

    def settings(self) -> dict[str, Any]:
        """What decides a row, of one seed: rows of other settings do not stand in one table."""
        decided = {name: value for name, value in asdict(self).items() if name not in ("seeds", "device")}
        return {name: value for name, value in decided.items() if value is not None}

    def command(self, row: str | None = None) -> str:
        """The command line, of one row or of all."""
        words = ["unmask", "reproduce", self.name]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "name" and value != field.default:
                words += [f"--{field.name}"] if value is True else [f"--{field.name}", str(value)]
        return shlex.join([*words, *(["--only", row] if row is not None else [])])
