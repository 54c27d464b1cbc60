"""Mutates one file of `src/` and asks its tests whether they notice: `make mutate MODULE=src/unmask/judge.py`.

mutmut reads its configuration from the folder that it runs in; a scratch folder holds one for this file alone, so that
only the tests that pin it are run. A file without tests of its name there, or with more, is in `PINNED_BY`.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What pins a file, where that is not the test of its own name in the mirrored place.
PINNED_BY = {
    "threat/lp.py": ["tests/threat/test_lp.py", "tests/threat/test_radii.py"],
    "threat/patch.py": ["tests/threat", "tests/audit/test_few_pixels.py"],
    "attacks/batch.py": ["tests/attacks/test_apgd.py", "tests/attacks/test_fab.py"],
    "attacks/apgd.py": ["tests/attacks/test_apgd.py", "tests/attacks/test_apgd_l1.py"],
    "attacks/hyperplane.py": ["tests/attacks/test_fab.py", "tests/attacks/test_minimal_norm.py"],
    "attacks/square_moves.py": ["tests/attacks/test_square.py"],
    "attacks/fab.py": ["tests/attacks/test_fab.py", "tests/attacks/test_minimal_norm.py"],
    "attacks/boundary_walk.py": [
        "tests/attacks/test_boundary_walk.py",
        "tests/attacks/test_boundary_walk_steps.py",
    ],
    "attacks/coordinate_search.py": [
        "tests/attacks/test_coordinate_search.py",
        "tests/attacks/test_coordinate_search_steps.py",
    ],
    "attacks/sparse_moves.py": ["tests/attacks/test_sparse_rs.py"],
    "audit/campaign/rounds.py": ["tests/audit/test_standing.py"],
    "audit/campaign/standing.py": ["tests/audit/test_standing.py"],
    "audit/verify.py": ["tests/audit/test_verify.py", "tests/audit/test_verify_says.py"],
    "audit/verifying/recertified.py": ["tests/audit/test_recertified.py"],
    "statistics.py": ["tests/test_statistics.py", "tests/audit/test_random_interval.py"],
    "tracing/detect/flow.py": ["tests/tracing/detect"],
    "tracing/detect/slopes.py": ["tests/tracing/detect"],
    "tracing/detect/losses.py": ["tests/tracing/detect", "tests/tracing/test_analyse.py"],
    "tracing/detect/misleading.py": ["tests/tracing/detect", "tests/tracing/test_analyse.py"],
    "tracing/detect/vanishing.py": ["tests/tracing/detect", "tests/tracing/test_analyse.py"],
    **{
        f"tracing/symptoms/{name}.py": ["tests/tracing/symptoms", "tests/audit/test_findings.py"]
        for name in ("declared", "dying", "lost", "non_finite", "random", "underflow", "wrong")
    },
}


def tests_of(module: Path) -> list[str]:
    inside = module.relative_to("src/unmask")
    own = Path("tests", inside.parent, f"test_{inside.name}")
    found = PINNED_BY.get(inside.as_posix(), [own.as_posix()])
    missing = [path for path in found if not (ROOT / path).exists()]
    if missing:
        raise SystemExit(f"{module} has no {missing[0]}; name its tests with TESTS='tests/...'")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module", type=Path, help="for instance src/unmask/judge.py")
    parser.add_argument(
        "--tests", nargs="*", help="test files or folders, instead of those that mirror the module"
    )
    parser.add_argument("--sample", type=int, help="so many mutants of the file, the same ones in every run")
    parser.add_argument("--children", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=None, help="stop then, and say what is not checked")
    options = parser.parse_args()
    tests = options.tests or tests_of(options.module)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        place = Path(folder)
        for name in ("src", "tests"):
            shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        # Of pytest's settings only those that decide what passes.
        place.joinpath("pyproject.toml").write_text(
            f"""[tool.pytest.ini_options]
addopts = {project["addopts"]!r}
pythonpath = ["."]
markers = {project["markers"]!r}
filterwarnings = ["error"]
[tool.mutmut]
source_paths = ["src/"]
only_mutate = ["{options.module.as_posix()}"]
pytest_add_cli_args_test_selection = {tests!r}
process_isolation = "forkserver"
"""
        )
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
        mutmut = [sys.executable, "-m", "mutmut"]
        log = place / "mutmut.log"

        def run(names: list[str], minutes: float | None = None) -> None:
            """Runs those mutants, or all of them, until it is done or the minutes are over."""
            command = [*mutmut, "run", "--max-children", str(options.children), *names]
            with log.open("a") as out:
                process = subprocess.Popen(
                    command, cwd=place, env=environment, stdout=out, stderr=out, start_new_session=True
                )
            try:
                process.wait(minutes and 60 * minutes)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

        def outcomes() -> list[tuple[str, str]]:
            """Every mutant's name and what became of it."""
            listed = subprocess.run(
                [*mutmut, "results", "--all", "true"],
                cwd=place,
                env=environment,
                capture_output=True,
                text=True,
            )
            parts = [line.strip().rsplit(": ", 1) for line in listed.stdout.splitlines() if ": " in line]
            return [(name, how) for name, how in parts]

        chosen: list[str] = []
        if options.sample:
            run(["of no such name"])  # makes the mutants and times the tests, and has nothing to run
            names = sorted(name for name, _ in outcomes())
            chosen = random.Random(0).sample(names, min(options.sample, len(names)))
        if chosen or not options.sample:
            run(chosen, options.minutes)
        found = outcomes()
        if all(how == "not checked" for _, how in found):
            print(log.read_text()[-3000:])
            return 1
        if chosen:
            found = [(name, how) for name, how in found if name in chosen]
        print(f"{options.module} against {' '.join(tests)}: {dict(Counter(how for _, how in found))}")
        untested = Counter(name.split("__mutmut_")[0] for name, how in found if how == "no tests")
        for name, number in untested.items():
            print(f"no tests: {name} ({number})")
        for name, how in found:
            if how not in ("killed", "timeout", "not checked", "no tests"):
                shown = subprocess.run(
                    [*mutmut, "show", name], cwd=place, env=environment, capture_output=True, text=True
                )
                changed = [
                    line
                    for line in shown.stdout.splitlines()
                    if line[:1] in "+-" and line[:3] not in ("+++", "---")
                ]
                print(f"{how}: {name}", *changed, sep="\n    ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
