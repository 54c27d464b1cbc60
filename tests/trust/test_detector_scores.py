"""Scores of a detector in the shapes that people's layers give them: read, or refused in one line."""

import pytest
import torch

from unmask.audit.verifying.deployed import deployed
from unmask.classifier import Classifier
from unmask.errors import ModelFailed
from unmask.judge import judge
from unmask.randomness import Streams
from unmask.threat import Linf
from unmask.types import Outputs

X = torch.linspace(0, 1, 5).reshape(5, 1, 1, 1)
Y = torch.zeros(5, dtype=torch.int64)
STREAMS = Streams.seeded(0, torch.arange(5))


def network(shaped, wrapped):
    def forward(x):
        brightness = x.flatten(1).mean(1)
        logits = torch.stack(
            [-torch.ones_like(brightness), torch.ones_like(brightness)], 1
        )  # class 1: always wrong
        return wrapped(logits, shaped(brightness - 0.6))

    return forward


WRAPPED = {
    "Outputs": Outputs,
    "a mapping": lambda logits, score: {"logits": logits, "detector_score": score},
    "an object": lambda logits, score: type("Answer", (), {"logits": logits, "detector_score": score})(),
}
SHAPES = {
    "[batch]": lambda score: score,
    "[batch, 1]": lambda score: score[:, None],
    "[1, batch]": lambda score: score[None],
    "[batch, 1, 1, 1]": lambda score: score[:, None, None, None],
}


@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("shaped", SHAPES.values(), ids=SHAPES)
def test_one_number_for_each_image_is_a_score(shaped, wrapped):
    inner = network(shaped, wrapped)
    seen = judge(Classifier(inner), X, X, Y, Linf(epsilon=0.1), generator=STREAMS)
    assert seen.failure_rate.tolist() == [1, 1, 1, 0, 0]
    _, answered = deployed(inner, passes=1, batch_size=2, device="cpu")(X)
    assert answered.tolist() == [True, True, True, False, False]


WRONG = {
    "one for all": lambda score: score.mean(),
    "two for each": lambda score: torch.stack([score, score], 1),
    "one too few": lambda score: score[1:],
    "a square": lambda score: score[:, None] * score[None],
}


@pytest.mark.parametrize("shaped", WRONG.values(), ids=WRONG)
def test_anything_else_is_refused_with_its_shape(shaped):
    inner = network(shaped, Outputs)
    with pytest.raises(ModelFailed, match=r"detector scores of shape \["):
        judge(Classifier(inner), X, X, Y, Linf(epsilon=0.1), generator=STREAMS)
    with pytest.raises(ModelFailed, match=r"detector scores of shape \["):
        deployed(inner, passes=1, batch_size=5, device="cpu")(X)
