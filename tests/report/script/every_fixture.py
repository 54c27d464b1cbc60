"""Every fixture's script beside its audit: `python -m tests.report.script.every_fixture [NAME …]` prints the table.

The script runs in a fresh process in which unmask cannot be imported. What an audit finds and a script does not is what
a reviewer could not show to an author; a script that finds more is an audit with room to grow.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.fixtures.case import Case
from tests.fixtures.catalogue import BROKEN, HONEST
from tests.report.script.alone import run

from unmask.cli.main import main as unmask

EXAMPLES = 64


@dataclass(frozen=True)
class Row:
    """Accuracies in percent: the audit's, the script's own attack's, and at the audit's points in the script."""

    name: str
    audit: float
    script: float
    replayed: float

    @property
    def difference(self) -> float:
        """Points by which the script leaves more than the audit; negative where it breaks more."""
        return self.script - self.audit

    def __str__(self) -> str:
        return f"| {self.name} | {self.audit:.1f} | {self.script:.1f} | {self.difference:+.1f} | {self.replayed:.1f} |"


HEAD = (
    "| fixture | audit, % | script, % | difference | the audit's points, replayed, % |\n|---|---|---|---|---|"
)


def measured(case: Case, folder: Path) -> Row:
    """One fixture audited on the quick budget, exported and run."""
    out = folder / "audit"
    command = ["audit", case.target, "--data", "digits", "--examples", str(EXAMPLES), "--norm", case.norm]
    command += ["--epsilon", repr(case.epsilon), "--passes", str(case.passes), "--budget", "quick"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert unmask([*command, "--out", str(out)]) in (0, 3), case.name
        assert unmask(["export", str(out), "--script", str(folder / "attack.py")]) == 0, case.name
    report = json.loads((out / "report.json").read_text())
    (said,) = run([folder / "attack.py"], folder)
    # A script that could write nothing of the repair replays, and has no attack of its own.
    replayed = said["the audit's own points, replayed"]
    audited = 100 * report["robust_accuracy"]
    return Row(case.name, audited, said.get("this attack", replayed), replayed)


def main() -> None:
    """Prints the table."""
    print(HEAD)
    rows = []
    for case in BROKEN + HONEST:
        if len(sys.argv) > 1 and case.name not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measured(case, Path(folder)))
            print(rows[-1], flush=True)
    print(f"\n{sum(r.difference <= 2 for r in rows)} of {len(rows)} within two points of the audit")


if __name__ == "__main__":
    main()
