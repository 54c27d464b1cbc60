"""Idioms on digits: what `digits_table` measures, of some of them, without the attacks."""

from pathlib import Path

import pytest
import torch
from tests.fixtures.digits_split import digits_split
from tests.tracing import fresh_digits
from tests.tracing.fresh_digits import FRESH_DIGITS, Digits

from unmask.classifier import Classifier
from unmask.threat import Linf
from unmask.tracing.analyse import analyse

SOME = ["grid_sample, nearest", "signs of signs", "a checkpoint of a silent Function", "digits to base three"]


@pytest.mark.parametrize("name", SOME)
def test_the_loss_is_named_at_its_line(name):
    step, known, text = FRESH_DIGITS[name]
    network = Digits(step, known)
    x = digits_split()[1].x[:8]
    y = network(x).argmax(1)
    generator = torch.Generator().manual_seed(0)
    found = analyse(Classifier(network), x, y, Linf(epsilon=0.1), seed=0, generator=generator)
    lines = Path(fresh_digits.__file__).read_text().splitlines()
    assert any(text in lines[s.site.line - 1] for s in found.suspects), found.suspects


@pytest.mark.parametrize("name", FRESH_DIGITS)
def test_what_an_attacker_differentiates_fits_the_layer_behind(name):
    step, known, _ = FRESH_DIGITS[name]
    x = digits_split()[1].x[:3].flatten(1)
    assert step(x).shape == known(x).shape
