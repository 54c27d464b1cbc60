"""Values that pass for numbers, devices or folders and are none: one line, never a defect of ours."""

import pytest
from tests.trust.networks import AUDIT, write

from unmask.cli.main import main


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--seed", "-1"], "--seed is -1"),
        (["--seed", str(2**63)], "--seed is 9223372036854775808"),
        (["--seed", "99999999999999999999"], "--seed is 99999999999999999999"),
        (["--device", "meta"], "--device meta cannot be used"),
        (["--device", "meta:0"], "--device meta:0 cannot be used"),
        (["--device", "gpu"], "--device gpu cannot be used (torch knows no device of this name); give cpu"),
        (["--out", "a\0b"], "is no name of a folder"),
    ],
)
def test_refused_in_one_line(tmp_path, capsys, more, says):
    assert main(["audit", f"{write(tmp_path, '')}:sound", *AUDIT, *more]) == 2
    said = capsys.readouterr().err.strip()
    assert says in said
    assert said.count("\n") == 0


def test_the_largest_seed_is_one(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out"), "--seed", str(2**63 - 1)]
    assert main(["audit", f"{write(tmp_path, '')}:sound", *AUDIT, *out]) == 0
    capsys.readouterr()
