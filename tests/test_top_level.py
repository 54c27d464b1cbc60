"""What `import unmask` hands out, whatever else was imported before."""

import subprocess
import sys

import pytest
import torch

import unmask
from unmask.errors import UnusableInput

CALL = """
import torch
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
x = torch.rand(6, 1, 2, 2)
report = unmask.audit(network, x, network(x).argmax(1), norm="linf", epsilon=8 / 255, budget="quick")
assert report.clean_accuracy == 1, report
assert report.threat.epsilon == 8 / 255
assert callable(unmask.load) and callable(unmask.verify)
"""


@pytest.mark.parametrize(
    "before",
    [
        "import unmask",
        "import unmask.audit.run, unmask",
        "from unmask.audit.verify import verify; import unmask",
    ],
)
def test_audit_is_a_call_whatever_was_imported_before(before):
    done = subprocess.run([sys.executable, "-c", before + CALL], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_arrays_will_do_and_a_wrong_option_is_one_line():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    x, y = torch.rand(6, 1, 2, 2).numpy(), [0, 1, 0, 1, 0, 1]
    with pytest.raises(UnusableInput, match="unknown key 'budgett'"):
        unmask.audit(network, x, y, norm="linf", epsilon="8/255", budgett="quick")
    with pytest.raises(UnusableInput, match="epsilon of the call: 'wide' is no number"):
        unmask.audit(network, x, y, norm="linf", epsilon="wide")
    with pytest.raises(UnusableInput, match="6 images but 2 labels"):
        unmask.audit(network, x, y[:2], norm="linf", epsilon="8/255")


def test_rooms_are_imported_when_they_are_named_and_not_before():
    reached = """
import sys, unmask
assert "torch" not in sys.modules and "unmask.data" not in sys.modules
assert len(unmask.data.load("digits", examples=3)) == 3
assert unmask.defenses and unmask.attacks and unmask.gradients and callable(unmask.audit)
assert not hasattr(unmask, "nothing") and not hasattr(unmask, "__nothing__")
"""
    done = subprocess.run([sys.executable, "-c", reached], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
