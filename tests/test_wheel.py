"""What is handed out as a wheel runs by itself: unpacked, with the repository out of reach."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="needs hatchling")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The wheel's contents in a folder, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("unmask-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def run(unpacked, folder, *arguments):
    """`unmask` of the wheel, in a process that finds no other one."""
    code = (
        "import sys, unmask\n"
        f"assert unmask.__file__.startswith({str(unpacked)!r}), unmask.__file__\n"
        "from unmask.cli.main import command\n"
        "sys.exit(command())\n"
    )
    kept = {name: value for name, value in os.environ.items() if name != "UNMASK_DATA"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_file_of_the_package_and_every_reproduction_is_in_it(unpacked):
    made = ("__pycache__", "runs")
    for folder, inside in (("src/unmask", "unmask"), ("reproductions", "unmask/reproductions")):
        ours = {p.relative_to(ROOT / folder) for p in (ROOT / folder).rglob("*") if p.is_file()}
        ours = {path for path in ours if not set(path.parts) & set(made)}
        theirs = {p.relative_to(unpacked / inside) for p in (unpacked / inside).rglob("*") if p.is_file()}
        assert ours - theirs == set()


def test_nothing_else_is_in_it(unpacked):
    """No test, no script of ours, no file that somebody left lying about."""
    assert {p.name for p in unpacked.iterdir() if not p.name.endswith(".dist-info")} == {"unmask"}
    suffixes = {p.suffix for p in (unpacked / "unmask").rglob("*") if p.is_file()}
    assert suffixes <= {".py", ".jinja", ".js", ".typed", ".md", ".png", ".json", ".safetensors", ""}


def test_the_reproductions_are_listed_with_their_rows(unpacked, tmp_path):
    names = run(unpacked, tmp_path, "reproduce", "--list").split()
    assert {"sap", "clever", "saturation", "lecture-defenses", "lecture-training"} <= set(names)
    assert "|" in run(unpacked, tmp_path, "reproduce", "sap", "--list")


def test_the_demo_its_page_and_its_script(unpacked, tmp_path):
    """All templates are used: the page, the script, the claim file."""
    out = " ".join(run(unpacked, tmp_path, "demo", "--out", "demo").split())
    assert "refuted" in out.lower()
    assert "Verified" in out
    page = (tmp_path / "demo" / "audit" / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "data:image/png" in page
    run(unpacked, tmp_path, "export", "demo/audit", "--script", "attack.py", "--sarif", "--junit")
    assert (
        "straight" in (tmp_path / "attack.py").read_text()
        or "@repair" in (tmp_path / "attack.py").read_text()
    )
    claim = ["--target", "demo/demo_defence.py:defended", "--norm", "linf", "--epsilon", "8/255"]
    run(unpacked, tmp_path, "claim", "new", *claim, "--claim", "0.83", "--no-hash")
    assert (tmp_path / "claim.toml").exists()
