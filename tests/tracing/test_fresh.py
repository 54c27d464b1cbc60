"""Idioms written before the tracer was read: survived, and named at their lines."""

from pathlib import Path

import pytest
from tests.tracing import fresh, fresh_again, fresh_eyes, fresh_late, subclasses
from tests.tracing.idioms import Network, spare
from tests.tracing.test_analyse import suspects

from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.rewrite import Rewritten

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings(
        "ignore:.*torch.jit.script. is deprecated:DeprecationWarning"
    ),  # torch.func.jvp's
]


TABLES = {
    **dict.fromkeys(fresh.FRESH, fresh),
    **dict.fromkeys(fresh_again.FRESH_AGAIN, fresh_again),
    **dict.fromkeys(fresh_eyes.FRESH_EYES, fresh_eyes),
    **dict.fromkeys(subclasses.SUBCLASSES, subclasses),
    **dict.fromkeys(fresh_late.FRESH_LATE, fresh_late),
}
IDIOMS = {
    **fresh.FRESH,
    **fresh_again.FRESH_AGAIN,
    **fresh_eyes.FRESH_EYES,
    **subclasses.SUBCLASSES,
    **fresh_late.FRESH_LATE,
}


def lines_with(text, file=fresh):
    lines = Path(file.__file__).read_text().splitlines()
    return {n for n, line in enumerate(lines, 1) if text in line}


@pytest.mark.parametrize("name", TABLES)
def test_the_loss_is_named_at_its_line(name):
    step, symptoms, text = IDIOMS[name]
    analysis = suspects(Network(step).eval())
    assert analysis.warning == ""
    found = [(s.symptom.name, s.site.line) for s in analysis.suspects]
    assert any(symptom in symptoms and line in lines_with(text, TABLES[name]) for symptom, line in found), (
        found
    )


@pytest.mark.parametrize("name", fresh.FRESH_DRAWN)
def test_the_draw_is_named_at_its_line(name):
    step, text = fresh.FRESH_DRAWN[name]
    analysis = suspects(spare(step)().eval())
    assert any(s.symptom.name == "random" and s.site.line in lines_with(text) for s in analysis.suspects)


@pytest.mark.parametrize(
    "name",
    [
        "histogram and searchsorted, image by image",
        "numpy(force=True) and a low rank",
        "runs, by unique_consecutive",
    ],
)
def test_a_repair_goes_back_through_what_has_no_derivative(name):
    """Two once ended every repaired attempt by an exception, and the third had no gradient."""
    network = Network(IDIOMS[name][0]).eval()
    analysis = suspects(network)
    gradients = []
    for repair in propose(analysis):
        x = analysis.base.x.detach().clone().requires_grad_()
        logits = Rewritten(network, repair.rewrite)(x)
        assert (logits == network(x.detach())).all()
        logits.sum().backward()
        gradients.append(x.grad)
    assert any(g is not None and bool(g.any()) for g in gradients)
