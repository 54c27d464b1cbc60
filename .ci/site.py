"""What the site has beside the pages of docs/: pages from elsewhere in the repository, commands, glossary, notebooks.

Hooks of MkDocs. The pages are written to be read in the repository, too, so links are bent here and not there.
"""

from __future__ import annotations

import html
import importlib.util
import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

LOG = logging.getLogger("mkdocs.hooks")
ROOT = Path(__file__).parent.parent
ELSEWHERE = ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "benchmarks/eot_draws.md")
REPRODUCTIONS = sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("reproductions/*/README.md"))
_LINK = re.compile(r"(!?)\[((?:[^\]\[]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are not in docs/, and those that are made."""
    docs = Path(config["docs_dir"])
    made = {name: (ROOT / name).read_text(encoding="utf-8") for name in (*ELSEWHERE, *REPRODUCTIONS)}
    made |= {"commands.md": commands(), "glossary.md": glossary(), "gallery/index.md": gallery(docs)}
    made["reproductions/index.md"] = (ROOT / "reproductions/README.md").read_text(encoding="utf-8")
    for path in sorted(docs.glob("notebooks/*.ipynb")):
        made[f"notebooks/{path.stem}.md"] = notebook(path)
        if (other := files.get_file_from_path(f"notebooks/{path.name}")) is not None:
            files.remove(other)
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    for name in REPRODUCTIONS:
        for picture in sorted((ROOT / name).parent.glob("*.png")):
            where = picture.relative_to(ROOT).as_posix()
            files.append(File.generated(config, where, abs_src_path=str(picture)))
    return files


def on_config(config: Any) -> Any:
    """Notebooks are pages of their own name here."""
    config["nav"] = json.loads(json.dumps(config["nav"]).replace(".ipynb", ".md"))
    return config


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Lists where Markdown's usual rules see them, and links that lead somewhere on the site, or are words."""
    return bent(lists(markdown), page.file.src_uri, files)


def lists(text: str) -> str:
    """An empty line before each list, which CommonMark does without and Python's Markdown does not."""
    found: list[str] = []
    fenced = False
    for line in text.split("\n"):
        fenced ^= line.lstrip().startswith("```")
        starts = re.match(r"([-*]|\d+\.) ", line) and not fenced
        before = found[-1] if found else ""
        if starts and before.strip() and not re.match(r"([-*]|\d+\.) |\s|#|<", before) and not _inside(found):
            found.append("")
        found.append(line)
    return "\n".join(found)


def _inside(lines: list[str]) -> bool:
    """Whether the paragraph that these lines end with is itself an item of a list."""
    for line in reversed(lines):
        if not line.strip():
            return False
        if re.match(r"([-*]|\d+\.) ", line):
            return True
    return False


def bent(text: str, source: str, files: Files) -> str:
    """Links to pages of the site lead there; to files that are only in the repository they are words."""

    def link(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        place, hash_, anchor = target.partition("#")
        if not place or re.match(r"[a-z]+:", target):
            return match[0]
        inside = (ROOT / "docs" / source).exists() or not (ROOT / source).exists()
        path = ((ROOT / ("docs" if inside else "") / source).parent / place).resolve()
        if not path.is_relative_to(ROOT):
            return words
        name = path.relative_to(ROOT).as_posix().removeprefix("docs/").replace(".ipynb", ".md")
        name = f"{name}/README.md" if f"{name}/README.md" in REPRODUCTIONS else name
        if files.get_file_from_path(name) is None:
            if not path.exists():
                LOG.warning("%s links to %s, which does not exist", source, target)
            return words
        up = "../" * source.count("/")
        return f"{picture}[{words}]({up}{name}{hash_}{anchor})"

    blocks = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(block if block.startswith("```") else _LINK.sub(link, block) for block in blocks)


def commands() -> str:
    """Every command, as its own `--help` says it."""
    sys.path.insert(0, str(ROOT / "src"))
    import argparse

    from unmask.cli.main import parser

    top = parser()
    (sub,) = (a for a in top._actions if isinstance(a, argparse._SubParsersAction))
    said = ["# Every command", "", f"```\n{_help(top)}```", ""]
    for name, command in sub.choices.items():
        said += [f"## unmask {name}", "", f"```\n{_help(command)}```", ""]
        for inner in command._actions:
            if isinstance(inner, argparse._SubParsersAction):
                for word, one in inner.choices.items():
                    said += [f"### unmask {name} {word}", "", f"```\n{_help(one)}```", ""]
    return "\n".join(said)


def _help(command: Any) -> str:
    import os

    os.environ["COLUMNS"] = "100"
    return command.format_help()


def glossary() -> str:
    """The words that every report explains, from the file that explains them there."""
    file = ROOT / "src" / "unmask" / "report" / "glossary.py"
    spec = importlib.util.spec_from_file_location("glossary_of_reports", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    said = ["# Glossary", "", "The words of a report, as its page explains them. What hides a gradient is in"]
    said += ["[mechanisms](mechanisms.md).", ""]
    for term, meaning in module.TERMS.items():
        said += [f"## {term.capitalize()}", "", meaning, ""]
    return "\n".join(said)


def gallery(docs: Path) -> str:
    """The reports that `make gallery` built, if it was run."""
    index = docs / "gallery" / "index.json"
    said = [
        "# Gallery",
        "",
        "Whole reports, as `unmask audit` writes them, of networks whose weights may be shown.",
    ]
    if not index.is_file():
        return "\n".join([*said, "", "`make gallery` builds them; this site was built without."])
    said += [
        "",
        "| report | verdict | clean | standard attack | under attack | what was found |",
        "|" + "---|" * 6,
    ]
    for row in json.loads(index.read_text(encoding="utf-8")):
        cells = [
            f"[{row['title']}]({row['file']})",
            row["verdict"],
            row["clean"],
            row["naive"],
            row["robust"],
        ]
        said.append(f"| {' | '.join([*cells, row['found'] or '–'])} |")
    return "\n".join(said)


def notebook(path: Path) -> str:
    """A notebook as a page: its text, its code and what the code said when it was run."""
    said = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            said.append(text)
            continue
        said.append(f"```python\n{text}\n```")
        for output in cell.get("outputs", []):
            shown = output.get("text") or output.get("data", {}).get("text/html")
            plain = output.get("text") or output.get("data", {}).get("text/plain")
            if "text/html" in output.get("data", {}):
                said.append(f'<div class="output">{"".join(shown)}</div>')
            elif plain:
                said.append(f"<pre><code>{html.escape(''.join(plain)).rstrip()}</code></pre>")
    return "\n\n".join([*said, f"The notebook is `docs/notebooks/{path.name}`."])
