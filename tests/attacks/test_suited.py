"""Which attack suits a threat model, and that it is given what was asked for."""

import pytest

from unmask.attacks import APGD, SparsePGD, SparseRS, Square
from unmask.attacks.suited import ascent, search
from unmask.gradients import EOT
from unmask.objectives import cross_entropy, dlr, margin_loss
from unmask.threat import BALLS, NORMS, threat_model


@pytest.mark.parametrize("norm", list(NORMS))
def test_balls_are_climbed_and_searched_otherwise_than_few_pixels(norm):
    threat = threat_model(norm, 1)
    climbs = ascent(threat, steps=7, restarts=3, objective=dlr, gradient=EOT(), early_stop=False)
    kind = APGD if norm in BALLS else SparsePGD
    assert climbs == kind(steps=7, restarts=3, objective=dlr, gradient=EOT(), early_stop=False)
    assert ascent(threat, steps=7) == kind(steps=7, objective=cross_entropy)
    searches = search(threat, queries=9, objective=dlr, early_stop=False)
    kind = Square if norm in BALLS else SparseRS
    assert searches == kind(queries=9, objective=dlr, early_stop=False)
    assert search(threat, queries=9) == kind(queries=9, objective=margin_loss)
