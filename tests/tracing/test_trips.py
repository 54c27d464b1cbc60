"""Trips out of torch and back: the cut is named, and a gradient finds its way across."""

import inspect
from pathlib import Path

import pytest
import torch
from tests.tracing import trips
from tests.tracing.idiom_table import along, attacked
from tests.tracing.idioms import Network
from tests.tracing.test_analyse import images, suspects
from torch import nn

from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.rewrite import Rewritten

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


@pytest.mark.parametrize("name", trips.TRIPS)
def test_the_cut_is_named_and_crossed(name):
    step, text = trips.TRIPS[name]
    lines = Path(trips.__file__).read_text().splitlines()
    network = Network(step).eval()
    analysis = suspects(network)
    assert analysis.warning == ""
    cuts = {s.site.line for s in analysis.suspects if s.symptom.name == "cut"}
    assert any(text in lines[n - 1] for n in cuts), cuts
    x = images(6)
    with torch.no_grad():
        y = network(x).argmax(1)
    # All that is lost on the way are digits: straight through, an attack by hand leaves nothing.
    inner = network.inner if "net.inner(x)" in inspect.getsource(step) else nn.Identity()
    assert attacked(network, x, y, along(lambda z: network.last(inner(z.flatten(1))), y)) == 0
    repairs = {r.name: Rewritten(network, r.rewrite) for r in propose(analysis)}
    assert min(attacked(network, x, y, along(f, y)) for f in repairs.values()) == 0
