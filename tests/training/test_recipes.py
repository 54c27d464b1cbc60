"""What all recipes promise: resumption to the bit, validation that steers, refusals in one line, robustness."""

import shutil
from dataclasses import dataclass, replace

import pytest
import torch

from unmask.attacks import APGD, FGSM, Attack
from unmask.data import load
from unmask.errors import UnusableInput
from unmask.gradients import EOT, Exact
from unmask.threat import L2, Linf
from unmask.training import (
    TRADES,
    YOPO,
    AdversarialTraining,
    Epoch,
    FastTraining,
    FreeTraining,
    History,
    Standard,
)
from unmask.training.validation import accuracies
from unmask.zoo import CNN

from .conftest import PLAIN, flat, seed, small_network

THREAT = Linf(epsilon=0.1)
RECIPES = {
    "standard": Standard(**PLAIN),
    "pgd": AdversarialTraining(**PLAIN),
    "fgsm": FastTraining(**PLAIN, guard_every=1, guard_examples=32),
    "free": FreeTraining(**PLAIN | {"epochs": 4}, replays=2),
    "yopo": YOPO(**PLAIN, full=2),
    "trades": TRADES(**PLAIN),
}


class Stopped(Exception):
    pass


def stop(history):
    raise Stopped


@pytest.mark.parametrize("name", RECIPES)
def test_interrupted_training_ends_where_whole_training_does(name, few, tmp_path):
    recipe = replace(RECIPES[name], pad=1, mirror=True)
    whole = small_network()
    history = recipe.fit(whole, few, THREAT, generator=seed(), validation=few)
    assert len(history.epochs) == 2
    file = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Stopped):
        recipe.fit(
            small_network(), few, THREAT, generator=seed(), validation=few, checkpoint=file, progress=stop
        )
    resumed = small_network(7)
    continued = recipe.fit(resumed, few, THREAT, generator=seed(), validation=few, checkpoint=file)
    assert torch.equal(flat(whole), flat(resumed))
    seconds = {"seconds": 0.0}
    assert [e | seconds for e in continued.record()] == [e | seconds for e in history.record()]


@pytest.mark.parametrize("name", ["pgd", "fgsm", "trades", "yopo", "free"])
def test_radius_zero_is_standard_training(name, few):
    """Without room to move every recipe sees the images as they are; replays are steps on the same minibatch."""
    options = {**PLAIN, "epochs": 1, "average": 0.0}
    recipe = replace(RECIPES[name], epochs=1, average=0.0)
    if name == "fgsm":
        recipe = replace(recipe, guard_every=0)
    if name == "free":
        recipe = replace(recipe, replays=1)
    found, truth = small_network(), small_network()
    recipe.fit(found, few, Linf(epsilon=0.0), generator=seed())
    Standard(**options).fit(truth, few, None, generator=seed())
    # One epoch, so the randomness that an attack draws between minibatches changes nothing after.
    assert torch.allclose(flat(found), flat(truth), atol=1e-5)


@pytest.mark.parametrize("name", ["pgd", "free", "yopo", "trades", "fgsm"])
def test_every_norm(name, few):
    history = replace(RECIPES[name], epochs=1).fit(small_network(), few, L2(epsilon=0.5), generator=seed())
    assert 0 < history.epochs[0].loss < 20


def test_any_attack_and_estimator_is_an_inner_maximiser(few):
    attacks = (FGSM(), APGD(steps=3), FGSM(gradient=EOT(Exact(), draws=2)))
    for attack in attacks:
        recipe = AdversarialTraining(**PLAIN | {"epochs": 1}, attack=attack)
        assert recipe.fit(small_network(), few, THREAT, generator=seed()).epochs[0].loss > 0


def test_bfloat16_passes_and_global_random_state(few):
    state = torch.random.get_rng_state()
    for name, recipe in RECIPES.items():
        net = small_network()
        history = replace(recipe, half=True).fit(net, few, THREAT, generator=seed())
        assert torch.isfinite(flat(net)).all(), name
        assert history.epochs[0].loss == pytest.approx(
            recipe.fit(small_network(), few, THREAT, generator=seed()).epochs[0].loss, rel=0.05
        )
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit, which the compiler imports
def test_compiled_passes_train_the_same_network(few):
    recipe = RECIPES["pgd"]
    losses = [
        [e.loss for e in r.fit(small_network(), few, THREAT, generator=seed()).epochs]
        for r in (recipe, replace(recipe, compiled=True))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@dataclass(frozen=True)
class Moving(Attack):
    """Fools every image whose index, counted over all calls, is at least a number that rises and falls."""

    shares: tuple[float, ...]
    calls: list

    def run(self, classifier, x, y, threat, *, generator):
        self.calls.append(len(x))
        share = self.shares[len(self.calls) - 1]
        kept = torch.arange(len(x)) < share * len(x)
        # Uniform images of either end of the box: what the toy network below tells apart.
        return torch.where(kept[:, None, None, None], x, 1 - x)


class Sign(torch.nn.Module):
    """Class of bright and dark images; one weight that training moves and the class does not hang on."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, x):
        score = (x.flatten(1).mean(1) - 0.5) * (1 + self.scale.square())
        return torch.stack([-score, score], 1)


def test_best_epoch_stays_and_patience_ends():
    y = torch.arange(40) % 2
    x = y.float()[:, None, None, None].expand(40, 1, 2, 2).contiguous()
    data = replace(load("digits", examples=1), x=x, y=y, index=torch.arange(40))
    attack = Moving((0.2, 0.5, 0.4, 0.5, 0.9), [])
    recipe = Standard(
        **PLAIN | {"epochs": 5, "batch_size": 40, "average": 0.0}, validation_attack=attack, patience=2
    )
    after = []
    network = Sign()
    recipe.fit(
        network,
        data,
        Linf(epsilon=1.0),
        generator=seed(),
        validation=data,
        progress=lambda history: after.append(
            (history.epochs[-1].robust_accuracy, float(network.scale.detach()))
        ),
    )
    assert [accuracy for accuracy, _ in after] == [0.2, 0.5, 0.4, 0.5]  # the fifth epoch never comes
    scales = [scale for _, scale in after]
    assert len(set(scales)) == 4
    assert float(network.scale.detach()) == scales[1]


def test_best_is_the_first_of_equals():
    epochs = [Epoch(1, 1, 1, 1, robust) for robust in (0.1, 0.4, 0.4, 0.3)]
    assert History(epochs).best == 1
    assert History([Epoch(1, 1, 1)]).best is None


def test_validation_is_what_the_attack_leaves():
    test = load("digits", examples=60)
    net = small_network()
    clean, robust = accuracies(net, test, THREAT, APGD(steps=10), 17, 0)
    assert clean == pytest.approx(float((net(test.x).argmax(1) == test.y).float().mean()))
    assert robust is not None
    assert robust <= clean
    assert accuracies(net, test, Linf(epsilon=0.0), APGD(steps=10), 17, 0) == (clean, clean)
    assert accuracies(net, test, None, APGD(), 17, 0) == (clean, None)


@pytest.mark.parametrize(
    ("recipe", "threat", "message"),
    [
        (RECIPES["pgd"], None, "no threat model"),
        (RECIPES["pgd"], Linf(epsilon=0.1, goal="targeted"), "targeted"),
        (replace(RECIPES["fgsm"], guard_examples=90), THREAT, "guard_examples=90"),
    ],
)
def test_unusable_input_is_named(recipe, threat, message, few):
    with pytest.raises(UnusableInput, match=message):
        recipe.fit(small_network(), few, threat, generator=seed())


def test_fields_out_of_range_are_named():
    for build, message in (
        (lambda: FreeTraining(replays=0), "replays=0"),
        (lambda: YOPO(inner=0), "inner=0"),
        (lambda: YOPO(compiled=True), "compiled=False"),
        (lambda: TRADES(beta=-1.0), "beta=-1"),
        (lambda: Standard(patience=0), "patience=0"),
    ):
        with pytest.raises(UnusableInput, match=message):
            build()


def test_another_recipes_checkpoint_is_refused(few, tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    RECIPES["standard"].fit(small_network(), few, None, generator=seed(), checkpoint=file)
    with pytest.raises(UnusableInput, match="belongs to the recipe `Standard`"):
        RECIPES["pgd"].fit(small_network(), few, THREAT, generator=seed(), checkpoint=file)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_hardens_digits(name):
    """The same network, 10 epochs (free: 40 in its own count), judged by an attack that no recipe trained against."""
    data, test = load("digits", split="train"), load("digits", split="test")
    threat = Linf(epsilon=0.15)
    recipe = replace(RECIPES[name], epochs=10, batch_size=64, average=0.98)
    if name == "free":
        recipe = replace(recipe, epochs=40, replays=4)
    if name == "fgsm":
        recipe = replace(recipe, guard_every=50)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = CNN(8)
    recipe.fit(network, data, threat, generator=seed())
    clean, robust = accuracies(network, test, threat, APGD(steps=50), 250, 0)
    assert clean > 0.93
    assert robust is not None
    assert robust < 0.3 if name == "standard" else robust > 0.55


def test_the_attack_asks_for_no_gradient_of_the_weights_and_leaves_them_as_they_were(few):
    network, seen = small_network(), []
    frozen = next(network.parameters())
    frozen.requires_grad_(False)

    @dataclass(frozen=True)
    class Watching(Attack):
        def run(self, classifier, x, y, threat, *, generator):
            seen.append(any(p.requires_grad for p in network.parameters()))
            return x

    before = frozen.clone()
    recipe = AdversarialTraining(**PLAIN | {"weight_decay": 0.0}, attack=Watching())
    recipe.fit(network, few, Linf(epsilon=0.1), generator=seed())
    assert seen
    assert not any(seen)
    assert [p.requires_grad for p in network.parameters()] == [False] + [True] * (
        len(list(network.parameters())) - 1
    )
    assert torch.equal(before, next(network.parameters()))
