"""Audits with a radius for each feature: from claim, command line and Python, to evidence, `verify` and report."""

import json

import pytest
import torch

import unmask
from unmask.audit.runtime.journal import Entry
from unmask.audit.runtime.readings import entry_of, reading_of
from unmask.audit.verify import verify
from unmask.audit.verifying.evidence_checks import lengths
from unmask.claim.claim import Claim, parse_claim, read_claim
from unmask.diagnostics import Reading, Tried
from unmask.errors import UnusableInput
from unmask.report import words
from unmask.threat import L2, Linf

RADII = [0.2, 0.0, 0.05]


def problem() -> tuple[torch.nn.Module, torch.Tensor]:
    """A plane between two classes, whose steepest feature may not move; margins from 0.001 to 0.45."""
    network = torch.nn.Linear(3, 2).eval()
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, 8.0, 2.0], [-1.0, -8.0, -2.0]]) / 2)
        network.bias.copy_(torch.tensor([-0.5, 0.5]))
    x = torch.tensor([[0.5, 0.0, 0.25]]).repeat(20, 1)
    x[:, 0] += torch.linspace(0.001, 0.45, 20)
    return network, x


def target(folder):
    network, x = problem()
    torch.save(network.state_dict(), folder / "w.pt")
    (folder / "net.py").write_text(
        "import torch\nfrom pathlib import Path\n\n\ndef network():\n    net = torch.nn.Linear(3, 2)\n"
        "    net.load_state_dict(torch.load(Path(__file__).parent / 'w.pt'))\n    return net.eval()\n"
    )
    import numpy as np

    np.savez(folder / "data.npz", x=x.numpy(), y=network(x).argmax(1).numpy())
    return folder / "net.py"


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_audit_breaks_exactly_what_the_radii_allow(norm):
    network, x = problem()
    y, margin = network(x).argmax(1), (network(x)[:, 0] - network(x)[:, 1]).abs()
    report = unmask.audit(network, x, y, norm=norm, epsilon=RADII, box=(0, 1), budget="quick")
    normal = torch.tensor([1.0, 8.0, 2.0])
    gains = normal * torch.tensor(RADII)
    reach = {"linf": gains.sum(), "l2": gains.norm()}[norm]
    assert report.robust_accuracy == pytest.approx(float((margin > reach).double().mean()), abs=0.051)
    assert report.threat.radii == RADII
    assert report.threat.epsilon == 0.2
    assert "--epsilon 0.2,0,0.05 " in words.reproduce_commands(report)[0]
    assert "radii 0 to 0.2" in words.verdict_sentence(report)
    assert all(c.passed is not False for c in report.controls)


def test_equal_radii_are_the_audit_of_one():
    network, x = problem()
    y = network(x).argmax(1)
    one, three = (
        unmask.audit(network, x, y, norm="linf", epsilon=e, box=(0, 1), budget="quick")
        for e in (0.1, [0.1] * 3)
    )

    def said(report):
        record = report.model_dump()
        for key in ("cost", "environment", "accuracy_against_cost"):
            record.pop(key)
        for attack in record["attacks"]:
            attack.pop("seconds", None)
        return record

    assert said(one) == said(three)
    assert three.threat.radii is None


def test_evidence_with_a_feature_moved_too_far_is_refused(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    from unmask.cli.main import main

    spec = f"{target(tmp_path)}:network"
    out = tmp_path / "out"
    told = ["--data", f"{tmp_path / 'data.npz'}", "--box", "0,1", "--norm", "linf", "--budget", "quick"]
    assert main(["audit", spec, *told, "--epsilon", "0.2,0,0.05", "--quiet", "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["threat"]["radii"] == RADII
    assert verify(out).holds
    path = out / "evidence.safetensors"
    with safe_open(path, "pt") as file:
        said = file.metadata()
    kept = {name: tensor.clone() for name, tensor in load_file(path).items()}
    kept["x_adv"][0, 2] = 0.9
    save_file(kept, path, said)
    found = {c.name: c.holds for c in verify(out).checks}
    assert not found["in the linf ball of radii 0 to 0.2"]


def test_lengths_know_the_radii():
    x = torch.full((1, 3), 0.5)
    moved = x + torch.tensor([[0.1, 0.0, 0.05]])
    assert lengths(moved, x, "linf", RADII).item() == pytest.approx(0.2, rel=1e-5)
    assert lengths(moved, x, "l1", RADII).item() == pytest.approx(0.3, rel=1e-5)
    assert lengths(moved, x, "l2", RADII).item() == pytest.approx((0.1**2 + 0.2**2) ** 0.5, rel=1e-5)
    assert lengths(x + torch.tensor([[0.0, 1e-6, 0.0]]), x, "l2", RADII).isinf().all()


@pytest.mark.parametrize(
    "stated", [[0.2, 0, "1/20"], "0.2,0,1/20", "radii.npy", "radii.csv"], ids=["list", "text", "npy", "csv"]
)
def test_a_claim_states_them_in_four_ways(stated, tmp_path):
    import numpy as np

    np.save(tmp_path / "radii.npy", np.array(RADII))
    (tmp_path / "radii.csv").write_text("0.2, 0\n0.05\n")
    path = tmp_path / "claim.toml"
    path.write_text(f'target = "a.py:b"\nnorm = "linf"\nepsilon = {json.dumps(stated)}\n')
    assert read_claim(path).epsilon == RADII


@pytest.mark.parametrize("stated", [[], [0.1, -0.1], "0.1,x", "nowhere.npy", [0.1, True, "a"], [0.1, "inf"]])
def test_a_claim_refuses_what_is_no_radius(stated):
    with pytest.raises(UnusableInput):
        parse_claim({"target": "a.py:b", "norm": "linf", "epsilon": stated}, "the call")


def test_the_journal_keeps_each_control_in_its_own_ball():
    threat, x = Linf(RADII), torch.zeros(2, 3)
    tried = tuple(
        Tried(by="a", threat=t, x_adv=x, failure_rate=torch.zeros(2), draws=1)
        for t in (threat, Linf(epsilon=1.0), threat.scaled(0.5))
    )
    reading = Reading(name="n", passed=True, value=0.0, expected="", explanation="", tried=tried)
    record, tensors = entry_of(reading)
    again = reading_of(Entry(json.loads(json.dumps(record)), tensors), threat, torch.device("cpu"))
    assert again is not None
    assert [t.threat for t in again.tried] == [t.threat for t in tried]
    assert [threat.covers(t.threat) for t in tried] == [True, False, True]


def test_python_takes_tuples_arrays_and_tensors():
    assert L2((0.2, 0.0, 0.05)) == L2(torch.tensor(RADII, dtype=torch.float64)) == L2(RADII)
    assert Claim(norm="l2", epsilon=RADII).epsilon == RADII
