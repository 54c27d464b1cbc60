"""Scales as options: what is asked for is what is measured, or one line says why not."""

from dataclasses import dataclass

import pytest

from unmask.errors import UnusableInput
from unmask.reproducing.request import Request


@dataclass(frozen=True)
class Scale:
    images: int = 10
    few: int = 5
    steps: int = 7
    epsilon: float = 0.1


def test_what_is_not_asked_for_stays_as_it_is():
    assert Request().scaled(Scale(), examples=("images", "few"), steps=("steps",)) == Scale()
    asked = Request(examples=3, steps=9)
    assert asked.scaled(Scale(), examples=("images", "few"), steps=("steps",)) == Scale(3, 3, 9)


def test_a_scale_that_is_not_there_is_refused():
    with pytest.raises(UnusableInput, match="sap has no steps to choose; leave --steps out"):
        Request(name="sap", steps=9).scaled(Scale(), examples=("images",))
    with pytest.raises(UnusableInput, match="has no data to choose"):
        Request(name="sap", data="mnist").refuse("steps", "data")
    for option in ("examples", "steps", "seeds"):
        with pytest.raises(UnusableInput, match=f"--{option} is 0; give at least 1"):
            Request(**{option: 0})


def test_other_images_must_fit():
    assert len(Request(data="digits").load("mnist", split="test", examples=4, shape=(1, 8, 8))) == 4
    with pytest.raises(
        UnusableInput, match=r"--data digits has images of shape \[1, 8, 8\]; sap takes \[3, 32, 32\]"
    ):
        Request(name="sap", data="digits").load("cifar10", split="test", shape=(3, 32, 32))


def test_the_command_is_the_request():
    asked = Request(name="sap", quick=True, examples=3, seeds=2, data="my data.npz")
    assert asked.command() == "unmask reproduce sap --quick --examples 3 --seeds 2 --data 'my data.npz'"
    assert asked.command("a row").endswith(" --only 'a row'")
    assert [one.seed for one in Request(seed=3, seeds=2).seeded()] == [3, 4]
