"""Pretraining and self-training: what goes from one phase to the next."""

from contextlib import suppress
from dataclasses import dataclass, field

import pytest
import torch

from unmask.data import Data, load
from unmask.errors import UnusableInput
from unmask.threat import Linf
from unmask.training import AdversarialTraining, History, Pretraining, SelfTraining, Standard, Trainer
from unmask.training.pretraining import last_layer

from .conftest import PLAIN, flat, seed, small_network

THREAT = Linf(epsilon=0.05)


@dataclass(frozen=True, kw_only=True)
class Witness(Trainer):
    """Notes what it is given; where it is told to, the network's biases become one."""

    seen: list = field(default_factory=list)
    bias: float | None = None

    def fit(self, network, data, threat, *, generator, validation=None, checkpoint=None, progress=None):
        self.seen.append(({k: t.clone() for k, t in network.state_dict().items()}, data, threat))
        if self.bias is not None:
            for name, p in network.named_parameters():
                if name.endswith("bias"):
                    p.data.fill_(self.bias)
        return History()


def test_the_body_goes_on_and_the_head_starts_anew(few):
    chosen = few.y < 7
    source = few[chosen]
    before, after = Witness(bias=1.0), Witness()
    network = small_network()
    fresh = {k: t.clone() for k, t in network.state_dict().items()}
    Pretraining(source=source, before=before, after=after).fit(network, few, THREAT, generator=seed())
    (first, data, threat), (then, _, _) = before.seen[0], after.seen[0]
    assert data is source
    assert threat is THREAT
    name, _ = last_layer(network)
    assert first[f"{name}.weight"].shape == (7, 16)
    assert torch.equal(then["layers.1.bias"], torch.ones(16))  # learnt on the source
    assert torch.equal(then["layers.1.weight"], fresh["layers.1.weight"])
    for key in (f"{name}.weight", f"{name}.bias"):
        assert torch.equal(then[key], fresh[key])


def test_the_teacher_names_what_has_no_label(few):
    student = Witness()
    unlabelled = load("digits", examples=90).x
    recipe = SelfTraining(
        unlabelled=unlabelled,
        teacher=Standard(**PLAIN | {"epochs": 30}),
        student=student,
        labelled_share=0.25,
    )
    network = small_network()
    recipe.fit(network, few, THREAT, generator=seed())
    weights, both, threat = student.seen[0]
    assert threat is THREAT
    assert torch.equal(weights["layers.1.weight"], small_network().state_dict()["layers.1.weight"])
    assert len(both) == 120  # 90 / (1 - 0.25)
    assert torch.equal(both.x[30:], unlabelled)
    assert torch.equal(both.y[:30], few.y[:30])
    truth = load("digits", examples=90).y
    assert 0.5 < float((both.y[30:] == truth).float().mean()) < 1.0  # guessing: 0.1


@pytest.mark.parametrize("which", ["pretraining", "selftraining"])
def test_interrupted_training_ends_where_whole_training_does(which, few, tmp_path):
    options = PLAIN | {"pad": 1}
    inner = AdversarialTraining(**options)
    recipe = (
        Pretraining(source=few, before=inner, after=inner)
        if which == "pretraining"
        else SelfTraining(unlabelled=few.x[:40], teacher=Standard(**options), student=inner)
    )
    whole = small_network()
    history = recipe.fit(whole, few, THREAT, generator=seed())

    class Stopped(Exception):
        pass

    calls = []

    def stop(history):
        calls.append(history)
        if len(calls) == stops:
            raise Stopped

    file = tmp_path / "checkpoint.safetensors"
    for stops in (1, 2):
        calls.clear()
        with suppress(Stopped):
            recipe.fit(small_network(), few, THREAT, generator=seed(), checkpoint=file, progress=stop)
    resumed = small_network()
    continued = recipe.fit(resumed, few, THREAT, generator=seed(), checkpoint=file)
    assert torch.equal(flat(whole), flat(resumed))
    assert [e.loss for e in continued.epochs] == [e.loss for e in history.epochs]
    assert len(history.epochs) == (4 if which == "pretraining" else 2)


def test_unusable_input_is_named(few):
    wide = Data(torch.rand(4, 1, 9, 9), torch.zeros(4).long(), "wide", "train", torch.arange(4))
    with pytest.raises(UnusableInput, match=r"images of wide have shape \[1, 9, 9\]"):
        Pretraining(source=wide).fit(small_network(), few, THREAT, generator=seed())
    with pytest.raises(UnusableInput, match="this network has none"):
        last_layer(torch.nn.Flatten())
    with pytest.raises(UnusableInput, match="labelled_share=1"):
        SelfTraining(unlabelled=wide.x, labelled_share=1.0)
    with pytest.raises(UnusableInput, match=r"unlabelled images have shape \[1, 9, 9\]"):
        SelfTraining(unlabelled=wide.x).fit(small_network(), few, THREAT, generator=seed())
