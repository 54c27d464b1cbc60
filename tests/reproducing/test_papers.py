"""Every reproduction takes a request, and every row has a name, a published figure and a measure."""

import re

import pytest

from unmask.cli.main import main
from unmask.errors import UnusableInput
from unmask.reproducing import papers
from unmask.reproducing.papers import chosen, names, paper
from unmask.reproducing.request import Request


@pytest.mark.parametrize("name", names())
def test_every_story_takes_a_request(name):
    module = paper(name)
    rows = module.rows(module.Story(Request(name=name, quick=True)))
    assert rows
    for published, measure in rows.values():
        assert isinstance(published, str)
        assert callable(measure)
    assert callable(module.describe)


def test_a_row_is_chosen_by_name_or_by_text():
    rows = {"clean": ("-", dict), "clean, SAP": ("-", dict), "BPDA": ("-", dict)}
    assert chosen(rows, None, "sap") == list(rows)
    assert chosen(rows, "clean", "sap") == ["clean"]  # the row itself, not all that contain its name
    assert chosen(rows, "clea", "sap") == ["clean", "clean, SAP"]
    with pytest.raises(UnusableInput, match="no row of sap contains 'x'; there are clean; "):
        chosen(rows, "x", "sap")


def test_an_installed_package_has_its_own(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "unmask"
    (package / "reproductions" / "one").mkdir(parents=True)
    (package / "reproductions" / "one" / "run.py").write_text("X = 1\n")
    monkeypatch.setattr(papers, "PACKAGE", package)
    assert names() == ["one"]
    assert paper("one").X == 1
    for name in ("two", "", "../one", "/", "one/run.py"):
        with pytest.raises(UnusableInput, match="choose one of one"):
            paper(name)


def test_rows_and_names_are_listed_without_measuring(capsys):
    assert main(["reproduce"]) == 0
    assert "sap" in capsys.readouterr().out.split()
    assert main(["reproduce", "sap", "--quick", "--list", "--only", "BPDA, targeted, 10 it"]) == 0
    assert capsys.readouterr().out == "no BPDA, targeted, 10 iterations | below 50 % success\n"
    assert main(["reproduce", "sap", "--device", "nowhere"]) == 2
    assert "--device nowhere cannot be used" in capsys.readouterr().err
    assert main(["reproduce", "clever", "--quick", "--forecast"]) == 2
    assert "has no forecast" in capsys.readouterr().err


def test_nothing_works_on_fewer_than_100_images_where_more_were_published():
    text = (papers.folder() / "README.md").read_text(encoding="utf-8")
    sections = text.split("\n## ")[1:]
    assert all(any(f"`{name.split('/')[0]}`" in s.split("\n")[0] for s in sections) for name in names())
    for section in sections:
        rows = [line.strip("|").split("|") for line in section.split("\n") if line.startswith("| ")][1:]
        assert rows
        for published, _, images, status in rows:
            word = status.strip(" *").split(":")[0]
            assert re.match(r"works|deviates|not reproduced|-$", word), status
            counts = [int(n.replace(",", "")) for n in re.findall(r"[\d,]*\d", images)]
            if word.startswith("works") and "no figures" not in section:
                assert all(n >= 100 for n in counts), published
