"""The class of a prediction is what the network's own numbers say, before logs, means and wider types."""

import numpy as np
import pytest
import torch

from unmask.audit.verifying.deployed import deployed
from unmask.audit.verifying.evidence_checks import met
from unmask.classifier import Classifier
from unmask.classifier.averaging import of_its_class
from unmask.judge import judge
from unmask.randomness import Streams
from unmask.threat import Linf

NEAR = torch.tensor([[0.10000000149, 0.10000000894, 0.1], [0.4, 0.2, 0.1], [0.1, 0.1, 0.1]])
X = torch.full((len(NEAR), 1, 2, 2), 0.5)


def says(values):
    return lambda x: values[: len(x)] + (0 * x.sum((1, 2, 3))[:, None]).to(values.dtype)


FORMS = {
    "probabilities": (says(NEAR), {"probabilities": True}),
    "tiny": (says(NEAR * 1e-37), {"probabilities": True}),
    "double": (says(NEAR.double()), {"probabilities": True}),
    "half": (says(NEAR.half()), {"probabilities": True}),
    "half logits": (says(NEAR.half()), {}),
    "bfloat logits": (says(NEAR.bfloat16()), {}),
    "votes": (lambda x: (NEAR[: len(x)] * 1e9).round().long(), {}),
    "impossible": (says(torch.tensor([[-torch.inf, -3e4, -2e4], [-torch.inf, -2e4, -torch.inf]])[[0, 1, 0]]), {}),
    "passes": (says(NEAR), {"passes": 3}),
    "passes of probabilities": (says(NEAR), {"passes": 7, "probabilities": True}),
    "mean of logs": (says(NEAR), {"passes": 3, "probabilities": True, "average": "logits"}),
    "mean of shares": (says(NEAR), {"passes": 3, "average": "probabilities"}),
    "small halves": (says(NEAR.half() / 2**20), {"passes": 5}),
}  # fmt: skip


@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("form", FORMS)
def test_the_judge_and_who_verifies_see_one_class(form, label):
    network, options = FORMS[form]
    y = torch.full((len(X),), label)
    seen = judge(
        Classifier(network, deterministic=True, **options),
        X,
        X,
        y,
        Linf(0.1),
        generator=Streams.seeded(0, torch.arange(3)),
    )
    options = {"passes": 1, **options}
    options.pop("probabilities", None)
    logits, answered = deployed(network, batch_size=3, device="cpu", **options)(X)
    assert torch.equal(seen.prediction, logits.argmax(1))
    assert torch.equal(seen.failure_rate > 0, met(logits, answered, label=y))


def test_what_is_the_largest_stays_and_the_others_keep_their_numbers():
    logs = NEAR.log().requires_grad_()
    found = of_its_class(logs, NEAR)
    assert found.argmax(1).tolist() == NEAR.argmax(1).tolist() == [1, 0, 0]
    assert torch.equal(found[1:], logs[1:])
    np.testing.assert_allclose(found.detach(), logs.detach(), rtol=1e-6)
    found.sum().backward()
    assert torch.equal(logs.grad, torch.ones_like(logs))
    assert of_its_class(logs[1:], NEAR[1:]).grad_fn is logs[1:].grad_fn or of_its_class(logs, logs) is logs
