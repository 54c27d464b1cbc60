"""Networks that put another member in place at each call: random, though two passes may well agree."""

import os
import random
import secrets

import pytest
import torch
from tests.tracing.named import named
from tests.tracing.networks import linear
from tests.tracing.test_analyse import suspects
from torch import nn


class Members(nn.Module):
    def __init__(self, pick, count=2):
        super().__init__()
        self.pick = pick
        self.members = nn.ModuleList(
            nn.Sequential(nn.Flatten(), linear(16, 16, seed=n), nn.ReLU(), linear()) for n in range(count)
        )

    def forward(self, x):
        return self.pick(self.members)(x)


class Born(nn.Module):
    """A new member at each call."""

    def __init__(self, seed):
        super().__init__()
        self.seed, self.last = seed, linear()

    def forward(self, x):
        generator = torch.Generator().manual_seed(self.seed())
        member = nn.utils.skip_init(nn.Linear, 16, 16)
        with torch.no_grad():
            member.weight.normal_(0, 0.3, generator=generator)
            member.bias.zero_()
        return self.last(torch.relu(member(x.flatten(1))))


NETWORKS = {
    "one of two, by Python": (lambda: Members(lambda m: m[random.randrange(2)]), "random.randrange(2)"),
    "one of three, by torch": (
        lambda: Members(lambda m: m[int(torch.randint(3, ()))], 3),
        "int(torch.randint(3, ()))",
    ),
    "born at each call, by the system": (
        lambda: Born(lambda: int.from_bytes(os.urandom(4), "big")),
        "member.weight.normal_",
    ),
    "born at each call, by Python": (lambda: Born(lambda: random.getrandbits(30)), "member.weight.normal_"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_random_and_nothing_else(name):
    build, text = NETWORKS[name]
    analysis = suspects(build().eval())
    assert analysis.warning == ""
    assert not analysis.deterministic
    assert {s.symptom.name for s in analysis.suspects} == {"random"}
    (origin,) = analysis.where(*named("random"))
    assert text in origin.site.code


def test_a_member_by_the_system_is_called_random_though_its_passes_may_agree():
    traces = [suspects(Members(secrets.choice).eval()) for _ in range(5)]
    assert any(not trace.deterministic and trace.where(*named("random")) for trace in traces)
