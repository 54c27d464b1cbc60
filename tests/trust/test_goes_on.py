"""What fails beside the attacks is left out with a warning; modes around the call do not matter."""

import sys
import warnings
from contextlib import nullcontext

import pytest
import torch
from torch import nn

import unmask.audit.prepare as prepare
from unmask.attacks import APGD
from unmask.audit.run import audit
from unmask.bounds import Bracketing, Clever
from unmask.bounds.nearest import NearestSearch
from unmask.claim.claim import Claim
from unmask.classifier import Classifier
from unmask.cli.main import main
from unmask.data import load
from unmask.diagnostics import OneStep, RandomNoise, Unbounded
from unmask.threat import Linf

from .networks import AUDIT, write

CLAIM = Claim(norm="linf", epsilon=0.1, budget="quick")


def made():
    """A linear classifier of digits, and eight of them."""
    train = load("digits", split="train")
    means = torch.stack([train.x[train.y == c].mean(0).flatten() for c in range(10)])
    linear = nn.Linear(64, 10)
    linear.weight.data, linear.bias.data = 2 * means, -means.square().sum(1)
    return nn.Sequential(nn.Flatten(), linear).eval(), load("digits", examples=8)


class Off:
    """Gradients globally off, as `torch.set_grad_enabled(False)` at the top of a script leaves them."""

    def __enter__(self):
        torch.set_grad_enabled(False)

    def __exit__(self, *_):
        torch.set_grad_enabled(True)


MODES = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode, "globally off": Off}


@pytest.fixture(scope="module")
def undisturbed():
    return audit(*made(), CLAIM).robust_accuracy


@pytest.mark.parametrize(
    ("mode", "where"),
    [
        ("no_grad", "around the call"),
        ("inference_mode", "around everything"),
        ("globally off", "around the call"),
        *(
            pytest.param(mode, where, marks=pytest.mark.slow)
            for mode, where in (
                ("no_grad", "around everything"),
                ("inference_mode", "around the call"),
                ("globally off", "around everything"),
            )
        ),
    ],
)
def test_gradients_off_around_the_call(mode, where, undisturbed):
    with MODES[mode]() if where == "around everything" else nullcontext():
        network, data = made()
    with MODES[mode]():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        report = audit(network, data, CLAIM)
        assert before == (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    assert report.robust_accuracy == undisturbed < 1
    assert not report.masking
    assert report.certified_accuracy is not None


def test_shared_tensors_stay_shared():
    with torch.inference_mode():
        network, data = made()
        twice = nn.ModuleDict({"a": network[1], "b": nn.Linear(64, 10)})
        twice["b"].weight = network[1].weight
    from unmask.audit.runtime.inference import released

    released(twice, data)
    assert twice["a"].weight is twice["b"].weight
    assert not twice["a"].weight.is_inference()


def test_bracketing_without_gradients():
    network, data = made()
    few = Bracketing(
        clever=Clever(batches=10, samples=2),
        methods=(),
        search=NearestSearch(steps=3, restarts=1, queries=50),
    )
    with torch.no_grad():
        found = few.run(
            Classifier(network), data.x[:1], data.y[:1], Linf(epsilon=0.3), generator=torch.Generator()
        )
    assert found.examples[0].clever.score > 0


@pytest.mark.parametrize("command", ["audit", "bound"])
def test_a_file_that_turns_gradients_off(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(tmp_path, "\ntorch.set_grad_enabled(False)\n")
    more = AUDIT[6:] if command == "audit" else ["--budget", "quick", "--batches", "10", "--samples", "8"]
    try:
        assert (
            main([command, "own.py:sound", "--norm", "linf", "--epsilon", "0.1", "--examples", "4", *more])
            == 0
        )
    finally:
        torch.set_grad_enabled(True)
        sys.modules.pop("own", None)
    assert "masked" not in capsys.readouterr().out


# what raises beside the attacks

ERRORS = [ZeroDivisionError("unlikely"), KeyError("layer"), RuntimeError("view"), SystemExit(0)]


class Rounds(nn.Module):
    """Masked, so that repairs enter the race."""

    def __init__(self):
        super().__init__()
        self.inner = made()[0]

    def forward(self, x):
        return self.inner((x * 8).round() / 8)


@pytest.mark.parametrize(
    ("part", "error"), [("learn_surrogate", ERRORS[0]), ("with_detector", ERRORS[1])], ids=repr
)
def test_parts_of_the_trace(monkeypatch, part, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(prepare, part, fails)
    network, data = made()
    report = audit(network, data, CLAIM)
    said = any(type(error).__name__ in w for w in report.warnings)
    assert said == (part == "learn_surrogate")  # there is no detector


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("race", ERRORS[3]),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in (("race", ERRORS[1]), ("race", ERRORS[2]), ("campaign", ERRORS[1]))
        ),
    ],
    ids=repr,
)
def test_a_repair_that_raises_is_left_out(monkeypatch, where, error):
    run = APGD.run
    steps = 10 if where == "race" else 0

    def fails(self, classifier, x, y, threat, *, generator):
        if type(self.gradient).__name__ == "Repaired" and (self.steps <= steps or where == "campaign"):
            raise error
        return run(self, classifier, x, y, threat, generator=generator)

    monkeypatch.setattr(APGD, "run", fails)
    report = audit(Rounds().eval(), made()[1][:4], CLAIM)
    assert 0 <= report.robust_accuracy <= 1
    if not isinstance(error, RuntimeError):
        assert any("does not run on this network" in w for w in report.warnings)


@pytest.mark.parametrize(
    "error",
    [ERRORS[1], *(pytest.param(e, marks=pytest.mark.slow) for e in (ERRORS[0], *ERRORS[2:]))],
    ids=repr,
)
def test_a_control_that_raises_is_said_and_open(monkeypatch, error):
    """Nobody knows what it would have shown: not breaking proves nothing then."""

    def fails(self, *_, **__):
        raise error

    monkeypatch.setattr(RandomNoise, "examine", fails)
    report = audit(*made(), CLAIM)
    (control,) = [c for c in report.controls if c.name == "random noise of the same size"]
    assert control.passed is False
    assert control.role == "open"
    assert type(error).__name__ in control.explanation
    assert [
        w
        for w in report.warnings
        if w.startswith("the control “random noise of the same size” tells nothing")
    ]
    assert report.verdict == "inconclusive"


def test_controls_that_raise_alike_are_named_together_and_the_reason_once(monkeypatch):
    def fails(self, *_, **__):
        raise ValueError("no such thing")

    for kind in (RandomNoise, Unbounded, OneStep):
        monkeypatch.setattr(kind, "examine", fails)
    said = [w for w in audit(*made(), CLAIM).warnings if "tell nothing" in w or "tells nothing" in w]
    assert len(said) == 1, said
    assert said[0].startswith("the controls “")
    assert said[0].count("“") == 3
    assert said[0].count("no such thing") == 1


def hook_error(*_):
    raise LookupError("in backward")


@pytest.mark.parametrize(
    "how", [pytest.param("full backward hook", marks=pytest.mark.slow), "tensor hook", "function"]
)
def test_a_backward_pass_that_raises(how):
    class Hooked(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = made()[0]
            if how == "full backward hook":
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self.inner[1].register_full_backward_hook(hook_error)

        def forward(self, x):
            z = self.inner(x)
            if how == "tensor hook" and z.requires_grad:
                z.register_hook(hook_error)
            return Raises.apply(z) if how == "function" else z

    class Raises(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            return z.clone()

        @staticmethod
        def backward(ctx, grad):
            raise LookupError("in backward")

    report = audit(Hooked().eval(), made()[1], CLAIM)
    assert report.robust_accuracy < 1  # searches without gradients find what there is


WANDERS = {
    "goes to the root": "os.chdir(os.sep)",
    "goes to a folder that is gone": "import tempfile; d = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d)",
    "goes a folder up": "os.chdir(os.pardir)",
}


BACKWARDS = """class Wanders(Means):
    def forward(self, x):
        y = x * 1
        if y.requires_grad:
            y.register_hook(lambda g: (os.chdir(os.sep), g)[1])
        return super().forward(y)


"""
FORWARDS = (
    "class Wanders(Means):\n    def forward(self, x):\n        {}\n        return super().forward(x)\n\n\n"
)
TEXTS = {name: FORWARDS.format(line) for name, line in WANDERS.items()} | {"in its backward pass": BACKWARDS}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_network_that_changes_the_working_directory_loses_no_file(tmp_path, monkeypatch, capsys, text):
    write(tmp_path, text + "def wanders():\n    return Wanders().eval()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own", raising=False)
    status = main(["audit", "own.py:wanders", *AUDIT, "--claim", "0.1", "--out", "out"])
    assert status in (0, 1), capsys.readouterr().err
    assert {"report.json", "report.html", "evidence.safetensors"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }
    assert main(["verify", "out", "--target", "own.py:wanders"]) == 0, capsys.readouterr().out
