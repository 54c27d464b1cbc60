"""What is handed out belongs to the example that it names."""

import torch
from tests.attacks.conftest import linear_problem, threat_of

from unmask.audit.evidence import hash_images, read_evidence
from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.data import Data


def test_every_piece_of_evidence_is_of_the_example_whose_index_it_bears(tmp_path):
    """Places in the split out of order and with gaps; some examples wrong at once, some never."""
    problem = linear_problem("linf", examples=16)
    index = 3 + 7 * torch.randperm(16, generator=torch.Generator().manual_seed(5))
    x, y = problem.x.clone(), problem.y.clone()
    toward = torch.tensor([1.0, -1.0])[y][:, None, None, None] * problem.network[1].weight[
        0
    ].detach().sign().view(1, 2, 6, 6)
    x[::3] = (x + 0.1 * toward)[::3]  # too far from the boundary to be broken
    y[1] = 1 - y[1]  # wrong without an attack
    data = Data(x, y, "mine.npz", "", index)
    threat = threat_of("linf", 0.05)
    report = audit(problem.network, data, claim_about(threat, budget="quick"), out=tmp_path)

    evidence = read_evidence(tmp_path)
    expected = {int(index[n]) for n in range(16) if n % 3 or n == 1}
    assert set(evidence.index.tolist()) == expected
    at = torch.tensor([index.tolist().index(place) for place in evidence.index.tolist()])
    assert threat.contains(evidence.x_adv, x[at]).all()
    assert torch.equal(evidence.label, y[at])
    predicted = problem.network(evidence.x_adv).argmax(1)
    assert torch.equal(evidence.prediction, predicted)
    assert (predicted != y[at]).all()
    assert evidence.failure_rate.tolist() == [1.0] * len(expected)
    assert evidence.originals == hash_images(x[at])
    assert report.robust_accuracy == 1 - len(expected) / 16
