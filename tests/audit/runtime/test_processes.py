"""Two processes find what one finds."""

import json
import os
import subprocess
import sys

import pytest
import torch
from tests.fixtures import BROKEN

from unmask.audit.evidence import read_evidence
from unmask.audit.runtime.processes import Processes

TARGET = next(case.target for case in BROKEN if case.name == "bit_depth")


WORDS = [
    "audit",
    TARGET,
    "--data",
    "digits",
    "--quiet",
    "--examples",
    "9",
    "--norm",
    "linf",
    "--epsilon",
    "0.1",
]
WORDS += ["--budget", "quick", "--out"]


def by_torchrun(*words, cwd):
    launcher = ["torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "unmask"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *launcher, *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


def run(out, command):
    done = command(*WORDS, str(out), cwd=out.parent)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "report.json").read_text()), read_evidence(out), done.stdout


def test_two_processes_find_what_one_finds(tmp_path, begun):
    """Nine examples: the shares differ in size. Each is attacked with its own random numbers, wherever it is."""
    one, evidence, said = run(tmp_path / "one", begun)
    two, shared, said_by_two = run(tmp_path / "two", by_torchrun)
    assert said == said_by_two  # once
    assert (one["environment"]["processes"], two["environment"]["processes"]) == (1, 2)
    for key in (
        "verdict",
        "robust_accuracy",
        "naive_robust_accuracy",
        "clean_accuracy",
        "masking",
        "controls",
    ):
        assert one[key] == two[key], key
    passes = ("forwards", "backwards", "judge_forwards")
    assert [one["cost"][k] for k in passes] == [two["cost"][k] for k in passes]
    assert [(a["recipe"], a["newly_broken"]) for a in one["attacks"]] == [
        (a["recipe"], a["newly_broken"]) for a in two["attacks"]
    ]
    assert torch.equal(evidence.index, shared.index)
    assert torch.equal(evidence.prediction, shared.prediction)
    assert torch.allclose(evidence.x_adv, shared.x_adv, atol=1e-4)


def test_alone_everything_is_ones_own():
    alone = Processes()
    chosen = torch.arange(5)
    assert torch.equal(alone.share(chosen), chosen)
    assert alone.gather("a") == ["a"]
    assert alone.first(lambda: 3) == 3
    with pytest.raises(KeyError):
        alone.attempt(lambda: {}["nothing"])


def test_shares_are_a_partition():
    chosen = torch.tensor([4, 8, 15])
    parts = [Processes(rank, 5).share(chosen) for rank in range(5)]
    assert torch.equal(torch.cat(parts), chosen)
    assert max(len(p) for p in parts) == 1


LEAVES = """
import glob
from unmask.audit.runtime.processes import of_torchrun

with of_torchrun() as processes:
    import torch.distributed.nn.functional
    assert processes.gather(processes.rank) == [0, 1]
names = [open(name).read().strip() for name in glob.glob("/proc/self/task/*/comm")]
assert not [name for name in names if "gloo" in name], names
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="threads are not listed here")
def test_no_thread_of_the_group_outlives_it(tmp_path):
    """A thread of gloo's that ends with the interpreter can abort the process, after the audit's work is done."""
    script = tmp_path / "leaves.py"
    script.write_text(LEAVES)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run([*launcher, str(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
