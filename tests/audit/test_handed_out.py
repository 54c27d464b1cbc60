"""What `report.json` leaves out, for it can be found elsewhere: pixels, and the folders of this machine."""

import json
import re
import sys

import pytest
import torch
from tests.audit.small_audit import small_audit, write_target

from unmask.audit.evidence import read_evidence
from unmask.cli.main import main
from unmask.data import load
from unmask.target.source_files import told

ROUNDING = """\
import torch
from tests.audit.small_audit import TARGET
exec(TARGET)


class Rounding(NearestMean):
    def forward(self, x):
        return super().forward(torch.round(x * 3) / 3)


def rounding():
    return Rounding().eval()
"""


@pytest.fixture(autouse=True)
def paths(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))


def audited(folder):
    """Audits `rounding` into `folder / "out"`; the text of the report."""
    (folder / "nets").mkdir()
    (folder / "nets" / "rounding_handed_out.py").write_text(ROUNDING)
    command = [
        "audit",
        f"{folder}/nets/rounding_handed_out.py:rounding",
        "--norm",
        "linf",
        "--epsilon",
        "0.2",
    ]
    command += ["--examples", "24", "--budget", "quick", "--quiet", "--out", str(folder / "out")]
    assert main(command) == 0
    return (folder / "out" / "report.json").read_text()


@pytest.mark.parametrize(
    ("where", "file"), [(".", "nets/rounding_handed_out.py"), ("elsewhere", "rounding_handed_out.py")]
)
def test_a_report_without_pixels_and_folders_and_its_page_with_both(
    tmp_path, monkeypatch, capsys, where, file
):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / where)
    text = audited(tmp_path)
    report = json.loads(text)
    assert str(tmp_path) not in text.replace(report["target"], "")  # as the user typed it
    assert report["masking"][0]["file"] == file
    assert len(report["images"]) == 8
    assert report["images"][0].keys() == {"index", "label", "clean_prediction", "adversarial_prediction"}
    assert len(text) < 32 * 1024
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png") == 3 * 8
    assert "guilty" in page  # the line with its neighbours, from wherever the audit was started
    assert "class Rounding" in page
    assert main(["verify", str(tmp_path / "out")]) == 0

    pictures = re.findall(r"data:image/png[^\"]*", page)
    (tmp_path / "out" / "report.html").write_text(page.replace(pictures[0], pictures[3]))
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "out")]) == 1
    assert "what fails: page" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("moved", "status"), [(0.0, 0), (0.25, 1)])
def test_pixels_of_earlier_reports_are_compared(tmp_path, monkeypatch, moved, status):
    monkeypatch.chdir(tmp_path)
    small_audit(tmp_path / "out", f"{write_target(tmp_path)}:linear")
    evidence, data = read_evidence(tmp_path / "out"), load("digits")
    clean = data.x[evidence.index[0]]
    picture = {
        "index": int(evidence.index[0]),
        "label": int(evidence.label[0]),
        "clean_prediction": int(evidence.label[0]),
        "adversarial_prediction": int(evidence.prediction[0]),
        "clean": (clean + moved * (torch.arange(8) == 3)).tolist(),
        "adversarial": evidence.x_adv[0].tolist(),
    }
    file = tmp_path / "out" / "report.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "images": [picture]}))
    assert main(["verify", str(tmp_path / "out")]) == status
    picture["adversarial"][0].append([0.0])  # rows of different lengths
    file.write_text(json.dumps({**json.loads(file.read_text()), "images": [picture]}))
    assert main(["verify", str(tmp_path / "out")]) == 1


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("/home/someone/nets/deep/a.py", "deep/a.py"),
        ("/home/someone/other/a.py:7", "other/a.py:7"),
        ("/venv/lib/python3.11/site-packages/timm/layers/drop.py:7", "timm/layers/drop.py:7"),
        ("/usr/lib/python3/dist-packages/six.py", "six.py"),
        ("<string>", "<string>"),
        ("net.py", "net.py"),
    ],
)
def test_a_file_is_told_without_the_folders_of_this_machine(file, said, tmp_path):
    assert told(file, type(tmp_path)("/home/someone/nets")) == said
    assert told(file, None).startswith("/") is False
