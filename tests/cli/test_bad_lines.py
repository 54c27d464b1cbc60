"""Whatever is typed, a command that cannot run it says so in a line or two, with status 2 (or 1), and never crashes."""

import shutil
import sys

import numpy as np
import pytest
from tests.audit.small_audit import small_audit
from tests.cli.bad_lines import COMMANDS, lines, words
from tests.trust.networks import write

from unmask.cli.main import main
from unmask.data import load

LINES = list(lines())
OWN = """
SIZE = 3


def raises():
    raise RuntimeError("no weights here\\nand a second line")


def needs(width):
    return Means()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with everything that the lines name, or break."""
    folder = tmp_path_factory.mktemp("lines")
    own = write(folder, OWN)
    digits = load("digits", examples=20)
    np.savez(folder / "small.npz", x=digits.x.numpy(), y=digits.y.numpy())
    split = {
        f"{name}_{part}": value
        for part, value in (("x", digits.x.numpy()), ("y", digits.y.numpy()))
        for name in ("train", "test")
    }
    np.savez(folder / "both.npz", **split)  # pyright: ignore[reportArgumentType]
    (folder / "claim.toml").write_text('target = "own.py:sound"\nnorm = "linf"\nepsilon = 0.1\n')
    np.savez(folder / "empty.npz", x=digits.x.numpy()[:0], y=digits.y.numpy()[:0])
    np.savez(folder / "flat.npz", x=digits.x.numpy(), y=digits.x.numpy())
    for name in ("broken.npz", "broken.safetensors", "broken.pt", "broken.onnx"):
        (folder / name).write_bytes(b"PK\x03\x04 and no more")
    (folder / "broken.toml").write_text("norm = ")
    (folder / "text.csv").write_text("no table;\n1")
    (folder / "hollow").mkdir()
    (folder / "ruined").mkdir()
    for name in ("report.json", "command.json", "evidence.safetensors"):
        (folder / "ruined" / name).write_text("{")
    small_audit(folder / "done", f"{own}:sound")
    shutil.copytree(folder / "done", folder / "again")
    return folder


@pytest.fixture
def there(place, monkeypatch):
    monkeypatch.chdir(place)
    (place / "new.toml").unlink(missing_ok=True)  # or each `claim new` would be refused for that
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("sys.stdin", None)
    return place


@pytest.mark.parametrize(
    "command", ["train", "verify", "export", "compare", "claim check", "claim new", "reproduce"]
)
def test_the_words_that_are_spoilt_here_would_do(there, capsys, command):
    """So that each line is refused for what is wrong in it. Those of `audit` and `bound` take seconds."""
    more = ["--csv"] if command == "export" else []
    assert main([*command.split(), *words(COMMANDS[command][0]), *more]) == (command == "claim check")
    assert "unmask: " not in capsys.readouterr().err


def test_there_are_enough():
    assert len({tuple(line) for line in LINES}) >= 300
    assert len({line[0] for line in LINES}) >= 9


@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(line).replace("\0", "NUL"))
def test_refused(there, capsys, line):
    status = main(line)
    _, said = capsys.readouterr()
    assert status == 2 or (status == 1 and line[0] in ("verify", "claim"))
    assert "Traceback" not in said
    assert 1 <= len(said.strip().splitlines()) <= 2
    assert said.startswith("unmask: ")
