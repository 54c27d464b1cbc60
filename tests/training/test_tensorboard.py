"""The curves that TensorBoard shows beside the history they come from."""

import sys

import pytest

from unmask.errors import UnusableInput
from unmask.threat import Linf
from unmask.training import AdversarialTraining, tensorboard

from .conftest import PLAIN, seed, small_network


def test_every_field_of_every_epoch_is_a_point_of_a_curve(few, tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recipe = AdversarialTraining(**PLAIN)
    threat = Linf(epsilon=0.1)
    write = tensorboard(tmp_path)
    history = recipe.fit(small_network(), few, threat, generator=seed(), validation=few, progress=write)
    events = reader.EventAccumulator(str(tmp_path))
    events.Reload()
    for name, first in history.record()[0].items():
        points = events.Scalars(name)
        assert [p.step for p in points] == [1, 2]
        assert [p.value for p in points] == pytest.approx([first, history.record()[1][name]])


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UnusableInput, match="pip install tensorboard"):
        tensorboard(tmp_path)
