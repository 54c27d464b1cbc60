"""Runs the notebooks of docs/ and keeps what they say: `make notebooks`. With --check nothing is written.

Each runs in an empty folder of its own, as a reader's would; an exception or a failed assertion in a cell is an error.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "notebooks"
CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def as_left(text: str) -> str:
    r"""What a terminal shows in the end: no colours, no line that was written over, no bar of progress.

    >>> as_left("attack ━━━ 1/2\r\x1b[2Kattack ━━━ 2/2\r\x1b[2Kdone  \r\n")
    'done\n'
    """
    lines = [
        line.split("\r")[-1].rstrip() for line in CONTROLS.sub("", text).replace("\r\n", "\n").split("\n")
    ]
    return "\n".join(line for line in lines if "━" not in line)


def joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Outputs without standard error, and what was printed piece by piece as one."""
    found: list[nbformat.NotebookNode] = []
    for output in outputs:
        if output.get("name") == "stderr":
            continue
        if found and output.output_type == found[-1].output_type == "stream":
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def run(path: Path) -> nbformat.NotebookNode:
    """The notebook with what its cells say now. **Raises** `CellExecutionError` where one fails."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        # Its `python` and `unmask` are those of this process.
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        os.environ["COLUMNS"] = "100"
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}}).execute()
        where = re.compile(rf"(/private)?{re.escape(folder)}/?")
    notebook.metadata = {"language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = joined(cell.outputs)
        for output in cell.get("outputs", []):
            output.pop("execution_count", None)
            if output.output_type == "stream":
                output.text = where.sub("", as_left(output.text))
            else:
                output.output_type, output.metadata = "display_data", {}
    return notebook


def main() -> None:
    """All, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="reviewer, engineer, researcher, ci; all by default")
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    for path in sorted(FOLDER.glob("*.ipynb")):
        if arguments.names and path.stem not in arguments.names:
            continue
        notebook = run(path)
        if not arguments.check:
            nbformat.write(notebook, path)
        print(f"{path.name}: {len(notebook.cells)} cells")


if __name__ == "__main__":
    main()
