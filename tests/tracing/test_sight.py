"""Outputs are judged one by one: of values and indices, the indices; and a step at whatever scale it shows."""

from pathlib import Path

import pytest
import torch
from tests.tracing.idioms import DECIDED, Network
from tests.tracing.record.test_fidelity import lines_with
from tests.tracing.test_analyse import suspects

from unmask.classifier import Classifier
from unmask.tracing.record.compare import decided_otherwise
from unmask.tracing.record.passes import record
from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.rewrite import Rewritten


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", DECIDED)
def test_the_decision_is_named_at_its_line(name):
    step, symptoms, text = DECIDED[name]
    analysis = suspects(Network(step))
    assert analysis.warning == ""
    assert any(s.site.line in lines_with(text) for s in analysis.suspects if s.symptom.name in symptoms), [
        (s.symptom.name, s.operation, s.site.line, s.share) for s in analysis.suspects
    ]


@pytest.mark.parametrize(
    "mask",
    [lambda h: h * (h > 0), lambda h: torch.where(h < 0, 0.1 * h, h), lambda h: h * torch.sign(h)],
    ids=["rectifier", "leaky rectifier", "absolute value"],
)
def test_honest_kinks_are_no_steps_at_any_scale(mask):
    assert not suspects(Network(lambda net, x: mask(net.inner(x))), epsilon=0.3).suspects


def test_values_that_move_do_not_stand_for_indices_that_stay():
    network = Network(lambda net, x: torch.max(x, dim=1, keepdim=True)[0] + x)
    x = torch.linspace(0, 1, 16).expand(8, 16).reshape(8, 1, 4, 4)
    before = record(Classifier(network), x, seed=0)
    after = {r.key: r for r in record(Classifier(network), 0.9 * x, seed=0).records}
    (largest,) = (r for r in before.records if r.name == "max")
    assert not decided_otherwise(largest, after[largest.key])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", [name for name in DECIDED if "ind" in name])
def test_no_repair_changes_what_the_users_code_is_handed(name):
    """A bridge at an operation with values and indices once handed out the values alone."""
    network = Network(DECIDED[name][0])
    x = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    for repair in propose(suspects(network)):
        made = Rewritten(network, repair.rewrite)(x.clone().requires_grad_())
        assert torch.equal(made, network(x)), repair.name


def test_the_page_of_idioms_has_every_row_of_the_table():
    from tests.tracing.idiom_table import rows

    page = (Path(__file__).parents[2] / "docs" / "idioms.md").read_text()
    missing = [name for name, *_ in rows() if f"\n| {name.replace('|', '/')} | " not in page]
    assert not missing, "run `python -m tests.tracing.idiom_table`"
