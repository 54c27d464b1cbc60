"""`assert_claim`, what the package hands out, and the examples that use both."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import unmask
from unmask import Linf, Outputs, assert_claim
from unmask.claim.claim import read_claim
from unmask.data import load
from unmask.errors import UnusableInput
from unmask.target.target import load_target

EXAMPLES = Path(unmask.__file__).parents[2] / "examples"


def nearest_mean() -> nn.Module:
    """A linear classifier of digits, without defence."""
    data = load("digits", split="train")
    means = torch.stack([data.x[data.y == c].mean(0).flatten() for c in range(10)])
    linear = nn.Linear(64, 10)
    linear.weight.data, linear.bias.data = 2 * means, -(means**2).sum(1)
    return nn.Sequential(nn.Flatten(), linear).eval()


class Rounded(nn.Module):
    """The same behind a step without a gradient."""

    def __init__(self):
        super().__init__()
        self.inner = nearest_mean()

    def forward(self, x):
        return self.inner(torch.round(x * 15) / 15)


def exact_accuracy(network: nn.Module, epsilon: float, examples: int) -> float:
    """Accuracy of a linear classifier against every perturbation in the ball, ignoring the box: a lower bound."""
    data = load("digits", examples=examples, seed=0)
    weight = network[1].weight.data  # type: ignore[index]
    logits = network(data.x)
    gaps = logits.gather(1, data.y[:, None]) - logits
    reach = epsilon * (weight[data.y][:, None] - weight[None]).abs().sum(2)
    return float(((gaps > reach).sum(1) == 9).float().mean())


def test_a_claim_that_holds_returns_the_report_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    network = nearest_mean()
    truth = exact_accuracy(network, 0.02, 40)
    report = assert_claim(network, "digits", Linf(epsilon=0.02), at_least=truth, examples=40, budget="quick")
    assert report.examples == 40
    assert report.robust_accuracy >= truth
    assert report.verdict in ("certified", "not_refuted")
    assert not list(tmp_path.glob("unmask-*"))


def test_a_false_claim_fails_with_what_one_has_to_know(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(AssertionError) as raised:
        assert_claim(Rounded(), "digits", Linf(epsilon=0.2), at_least=0.8, examples=40, budget="quick")
    message = str(raised.value)
    (folder,) = tmp_path.glob("unmask-*")
    assert message.startswith("Refuted: The claim of 80 % does not hold.")
    assert "95 % interval" in message
    assert "masked: shattered gradient · " in message
    assert "test_testing.py:" in message
    assert "return self.inner(torch.round(x * 15) / 15)" in message
    assert f"report: {folder}/report.html" in message
    assert "seed 0, batch size 256, budget quick" in message
    assert {"report.html", "report.json", "evidence.safetensors"} <= {f.name for f in folder.iterdir()}


def test_these_examples_count_where_the_interval_would_still_allow_the_claim(tmp_path):
    network = nearest_mean()
    data = load("digits", examples=20)
    epsilon = 0.08
    measured = assert_claim(network, data, Linf(epsilon=epsilon), at_least=0, budget="quick").robust_accuracy
    assert 0 < measured < 1
    with pytest.raises(AssertionError, match=r"at least .* were claimed") as raised:
        assert_claim(
            network,
            data,
            Linf(epsilon=epsilon),
            at_least=measured + 0.01,
            budget="quick",
            out=tmp_path / "here",
        )
    assert "95 % interval for other examples" in str(raised.value)
    assert (tmp_path / "here" / "report.json").is_file()


def test_a_target_by_name_gets_the_command_that_repeats_it(tmp_path, monkeypatch):
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(
        AssertionError, match=r"again:  unmask audit digits_network\.py:network --data digits"
    ):
        assert_claim(
            "digits_network.py:network", "digits", Linf(epsilon=0.3), at_least=0.9, examples=20,
            budget="quick", out=tmp_path / "out",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"at_least": 45}, "at_least is 45"),
        ({"examples": 0}, "examples is 0"),
        ({"examples": 11}, "examples is 11; give a number from 1 to 10"),
        ({"data": (torch.zeros(2, 1, 8, 8), torch.zeros(3, dtype=torch.int64))}, "2 images but 3 labels"),
        ({"budget": "huge"}, "budget of the call is 'huge'"),
    ],
)
def test_unusable_input_is_no_failed_assertion(change, told, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    given = {"data": load("digits", examples=10), "at_least": 0.1, **change}
    with pytest.raises(UnusableInput, match=told):
        assert_claim(nearest_mean(), given.pop("data"), Linf(epsilon=0.1), **given)
    assert not list(tmp_path.glob("unmask-*"))


def test_importing_the_package_loads_nothing():
    code = (
        "import sys, unmask; print([m for m in ('torch', 'numpy', 'pydantic', 'scipy') if m in sys.modules]);"
        "unmask.Outputs; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "True"]


def test_every_name_that_is_handed_out_is_there():
    assert unmask.Outputs is Outputs
    for name in dir(unmask):
        assert getattr(unmask, name) is not None
    with pytest.raises(
        AttributeError, match="no attribute 'assert_claims'; it has L0, L0Elements, L1, L2, Linf"
    ):
        unmask.assert_claims


def test_the_examples_claim_is_about_the_examples_weights():
    claim = read_claim(EXAMPLES / "claim.toml")
    assert load_target(claim.target).checkpoint_hash == claim.checkpoint_hash


@pytest.mark.slow
def test_the_example_as_its_readme_runs_it(tmp_path):
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLES])
    assert done.returncode == 0
    argv = [sys.executable, "-m", "unmask", "audit", EXAMPLES / "claim.toml", "--out", tmp_path / "audit"]
    assert subprocess.run(argv).returncode == 0


def test_the_workflow_uses_options_that_exist():
    workflow = yaml.safe_load((EXAMPLES / "ci" / "robustness.yml").read_text())
    commands = [step["run"] for step in workflow["jobs"]["claim"]["steps"] if "run" in step]
    from unmask.cli.main import parser

    for command in commands:
        words = command.split(" > ")[0].removesuffix("|| true").split()
        if words[0] == "unmask":
            parser().parse_args(words[1:])
