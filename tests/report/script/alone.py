"""Running a script as a stranger would: a fresh process in which unmask cannot be imported."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import unmask

HOUSE = Path(unmask.__file__).parent
ROOT = Path(__file__).parents[3]


def environment(folder: Path) -> dict[str, str]:
    """An environment for the process. The fixtures build their networks of `unmask.zoo` and answer with
    `unmask.Outputs`: these two alone, which need torch only, are there under that name."""
    package = folder / "only_the_zoo" / "unmask"
    if not package.exists():
        package.mkdir(parents=True)
        shutil.copytree(HOUSE / "zoo", package / "zoo", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(HOUSE / "types.py", package / "types.py")
        (package / "__init__.py").write_text("from .types import Outputs\n")
    return {**os.environ, "PYTHONPATH": str(package.parent), "OMP_NUM_THREADS": "1"}


def run(scripts: list[Path], folder: Path, *options: str) -> list[dict[str, float]]:
    """What each script prints, percentages by their line's beginning; all in one fresh process."""
    code = (
        "import importlib.util, runpy, sys\n"
        "assert importlib.util.find_spec('unmask.audit') is None, 'unmask is here'\n"
        f"for script in {[str(s) for s in scripts]!r}:\n"
        f"    sys.argv = [script, *{list(options)!r}]\n"
        "    print('=====')\n"
        "    runpy.run_path(script, run_name='__main__')\n"
    )
    process = subprocess.run(
        [sys.executable, "-W", "error", "-P", "-c", code],
        cwd=ROOT, env=environment(folder), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    return [
        {m[1].strip(): float(m[2]) for m in re.finditer(r"^(\D+?) +([\d.]+) % of \d+$", part, re.MULTILINE)}
        for part in process.stdout.split("=====\n")[1:]
    ]
