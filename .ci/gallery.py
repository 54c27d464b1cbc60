"""Audits networks whose weights may be shown, and keeps the pages for the site: `make gallery`.

They are the fixtures of the tests: one for each mechanism, and two honest ones.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GALLERY = ROOT / "docs" / "gallery"
# Fixture, its title, and what its author might have claimed.
SHOWN = {
    "bit_depth": ("Pixels rounded to a few grey values", 0.9),
    "numpy_trip": ("A step that leaves torch for NumPy", 0.9),
    "lying_zeros": ("A backward pass that declares zeros", 0.9),
    "saturated_sigmoid": ("Sigmoids of high gain", 0.9),
    "input_noise": ("Noise before every pass", 0.9),
    "reconstruction_detector": ("A detector by reconstruction", 0.9),
    "honest_adversarial": ("Adversarially trained, honest", 0.5),
    "honest_plain": ("Undefended, honest", 0.9),
}


def main() -> None:
    """Writes docs/gallery/NAME.html and the index that the site's page is made of."""
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    from tests.fixtures.catalogue import BROKEN, HONEST

    from unmask.cli.main import main as unmask
    from unmask.report.words import headline, percent

    cases = {case.name: case for case in BROKEN + HONEST}
    GALLERY.mkdir(exist_ok=True)
    rows = []
    for name, (title, claim) in SHOWN.items():
        case = cases[name]
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "audit")
            command = [
                "audit",
                f"tests/fixtures/{name}.py:build",
                "--norm",
                case.norm,
                "--epsilon",
                f"{case.epsilon:g}",
            ]
            command += ["--claim", f"{claim:g}", "--examples", "100", "--passes", f"{case.passes}", "--quiet"]
            status = unmask([*command, "--exhaustive", "--out", str(out)])
            if status not in (0, 1, 3):
                raise SystemExit(f"the audit of {name} ended with status {status}")
            page = (out / "report.html").read_text(encoding="utf-8")
            (GALLERY / f"{name}.html").write_text(page.replace(f"{out}", f"unmask-{name}"), encoding="utf-8")
            rows.append(_row(title, f"{name}.html", out, headline, percent))
    (GALLERY / "index.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    print(f"{len(rows)} reports in {GALLERY.relative_to(ROOT)}")


def _row(title, file, out, headline, percent):
    from unmask.audit.records import Report

    report = Report.model_validate_json((out / "report.json").read_bytes())
    found = [f"{m.mechanism}: `{m.operation}` at {m.file}:{m.line}" for m in report.masking]
    return {
        "title": title,
        "file": file,
        "verdict": headline(report),
        "clean": percent(report.clean_accuracy),
        "naive": percent(report.naive_robust_accuracy),
        "robust": percent(report.robust_accuracy),
        "found": "; ".join(found),
    }


if __name__ == "__main__":
    main()
