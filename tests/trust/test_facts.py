"""Nothing is accused that hides nothing: randomness and backward passes of one's own are facts until they mislead."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.fixtures.digits_networks import trained
from tests.tracing.named import BY_NAME
from torch import nn
from torch.utils.checkpoint import checkpoint

from unmask.audit.campaign.race import credited
from unmask.audit.findings import GradientState, confirmed, harmless, unlocated
from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.data import load
from unmask.report import html, words
from unmask.threat import Linf
from unmask.tracing.intercept.sites import Site
from unmask.tracing.suspect import Suspect


def audited(network, examples=24):
    return audit(
        network.eval(), load("digits", examples=examples), claim_about(Linf(epsilon=0.1), budget="quick")
    )


class Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = trained("plain_mlp")


class FilmGrain(Around):
    def forward(self, x):
        return self.base(x + 0.01 * torch.randn_like(x))  # here


class Flicker(Around):
    def forward(self, x):
        light = torch.empty(len(x), 1, 1, 1).uniform_(0.97, 1.03)  # here
        return self.base(x * light)


class Shaken(Around):
    def forward(self, x):
        grain = np.random.standard_normal(tuple(x.shape))  # here
        return self.base(x + 0.01 * torch.from_numpy(grain).to(x.dtype))


@pytest.mark.parametrize(
    "network",
    [
        FilmGrain,
        pytest.param(Flicker, marks=pytest.mark.slow),
        pytest.param(Shaken, marks=pytest.mark.slow),
    ],
)
def test_a_little_noise_is_a_fact_with_a_line(network):
    report = audited(network(), examples=8)
    assert report.stochastic
    assert "stochastic" not in {m.mechanism for m in report.masking}, report.masking
    (fact,) = [f for f in report.facts if "draws random numbers" in f.statement]
    assert "hides nothing" in fact.statement
    assert "# here" in fact.code
    sentence = words.fact_sentence(fact)
    assert f"test_facts.py:{fact.line}" in sentence
    assert "hides nothing" in html.render(report)


class Recomputed(Around):
    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x):
        return checkpoint(self.base, x, use_reentrant=self.reentrant)


class RecomputedInPieces(Around):
    def forward(self, x):
        for layer in self.base.children():
            x = checkpoint(layer, x, use_reentrant=True)
        return x


@pytest.fixture(scope="module")
def plain():
    return audited(trained("plain_mlp"))


@pytest.mark.parametrize("network", [lambda: Recomputed(True), lambda: Recomputed(False), RecomputedInPieces])
def test_checkpointing_is_honest(network, plain):
    report = audited(network())
    assert report.masking == []
    assert report.facts == []
    assert report.warnings == plain.warnings
    assert report.naive_robust_accuracy == pytest.approx(plain.naive_robust_accuracy, abs=1 / 24 + 1e-6)
    assert report.robust_accuracy == pytest.approx(plain.robust_accuracy, abs=1 / 24 + 1e-6)


STATE = GradientState(0.0, 0.0, 0.0, torch.zeros(1))
NOTHING = {"deterministic": False, "gap": 0.0, "naive_gap": 0.0, "gained": 0.0, "steady": 0.0}


def suspect(symptom, line=3, kind="torch"):
    return Suspect(
        BY_NAME[symptom], "torch.op", Site("net.py", line), ("op", "net.py", line), kind=kind, share=0.9
    )


@pytest.mark.parametrize(
    ("symptom", "measured", "named"),
    [
        ("random", {"gained": 0.2, "steady": 0.4}, True),
        ("random", {"gained": 0.2, "steady": 0.95}, False),  # any draw's gradient would have done
        ("random", {"gained": 0.0, "naive_gap": 0.2}, False),  # luck
        ("random", {"gained": 0.03}, False),
        ("random", {"gained": 0.2, "deterministic": True}, False),
        ("wrong", {"gap": 0.1}, True),
        ("wrong", {"gained": 0.3}, True),
        ("wrong", {"gained": 0.1, "naive_gap": 0.1}, False),  # as much as more restarts take off anybody
        ("wrong", {}, False),
    ],
)
def test_named_where_something_is_gained_and_a_fact_elsewhere(symptom, measured, named):
    analysis = SimpleNamespace(everywhere=(suspect(symptom),))
    options = NOTHING | measured
    kept = confirmed(analysis, STATE, **options)
    facts = harmless(analysis, kept, STATE, deterministic=options["deterministic"])
    assert bool(kept) == named
    silent = named or (symptom == "random" and options["deterministic"])
    assert [(f.file, f.line) for f in facts] == ([] if silent else [("net.py", 3)])


def test_a_place_that_is_named_is_no_fact_as_well():
    analysis = SimpleNamespace(everywhere=(suspect("random"), suspect("zero"), suspect("wrong", line=9)))
    kept = confirmed(analysis, STATE, **NOTHING | {"gap": 0.04})
    assert kept == []
    kept = [analysis.everywhere[1]]
    assert [f.line for f in harmless(analysis, kept, STATE, deterministic=False)] == [9]


def test_gains_are_credited_only_where_luck_does_not_explain_them():
    assert credited(torch.tensor([1.0, 0, 0])) == 0
    assert credited(torch.tensor([1.0, 1, 1])) == 0
    assert credited(torch.tensor([1.0, 1, 1, 1])) == 1
    assert credited(torch.tensor([1.0, 1, 1, 1, -1, -1])) == 0
    assert credited(torch.zeros(50)) == 0


def test_one_image_says_nothing_about_the_evaluation():
    few = credited(torch.tensor([1.0, 0.0, 0.0]))
    assert unlocated(few, [], STATE, detector=False) == []
    many = credited((torch.arange(30) < 12).float())
    assert [m.mechanism for m in unlocated(many, [], STATE, detector=False)] == ["evaluation"]
    assert [m.mechanism for m in unlocated(many, [], STATE, detector=True)] == ["detector"]
