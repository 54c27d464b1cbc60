"""The site's parts: every page has its place, notebooks are whole and say what they said when they ran."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
NOTEBOOKS = sorted(DOCS.glob("notebooks/*.ipynb"))


def pages(nav):
    for entry in nav:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from [value] if isinstance(value, str) else pages(value)


def test_every_page_of_docs_is_in_the_navigation_and_every_entry_is_a_page():
    listed = set(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    written = {p.relative_to(DOCS).as_posix() for kind in ("*.md", "*.ipynb") for p in DOCS.rglob(kind)}
    assert written <= listed
    made = {"commands.md", "glossary.md", "gallery/index.md", "reproductions/index.md"}
    assert not [p for p in listed - written - made if not (ROOT / p).is_file()]


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        made = target in ("commands.md", "glossary.md")
        assert made or re.match(r"[a-z]+:", target) or (page.parent / target).exists(), target


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_was_run(path):
    assert path.stat().st_size < 40_000
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    outputs = [o for cell in cells for o in cell.get("outputs", [])]
    assert outputs
    assert not [o for o in outputs if o["output_type"] == "error"]
    text = path.read_text(encoding="utf-8")
    assert "/tmp/" not in text
    assert "/home/" not in text


def test_there_is_one_for_each_kind_of_user():
    assert [path.stem for path in NOTEBOOKS] == ["ci", "engineer", "researcher", "reviewer"]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("nbclient") is None, reason="needs nbclient: make docs")
def test_the_notebooks_run():
    done = subprocess.run([sys.executable, ROOT / ".ci" / "notebooks.py", "--check"], check=False)
    assert done.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocstrings") is None, reason="needs mkdocs: make docs")
def test_the_site_is_built_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=False)
    assert done.returncode == 0
    assert "APGD" in (tmp_path / "site" / "api" / "attacks.html").read_text()
