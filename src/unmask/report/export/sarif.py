"""Findings as SARIF 2.1.0, so that code review shows them at the line that masks the gradient."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ...audit.records import MaskingFinding, Report
from ..words import MECHANISMS, verdict_sentence

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
# What each mechanism means, in a sentence; the taxonomy is that of Athalye et al. 2018 (arXiv:1802.00420).
MEANINGS = {
    "shattered": "The gradient is zero, cut or wrong, while the output does change.",
    "vanishing": "The gradient dies of saturation or underflow.",
    "exploding": "The gradient becomes NaN or infinite.",
    "stochastic": "The gradient is that of one random draw.",
    "detector": "A detector rejects what attacks on the classifier alone find.",
    "evaluation": "A standard attack is misled although no operation was found to falsify its gradient.",
}


def sarif(report: Report, *, root: str | os.PathLike[str] = ".") -> str:
    """One result a finding; paths below `root` are written relative to it, as code review wants them."""
    run = {
        "tool": {"driver": _driver(report)},
        "results": [_result(found, report, Path(root).resolve()) for found in report.masking],
        "invocations": [{"executionSuccessful": True, "exitCode": report.exit_status}],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _driver(report: Report) -> dict[str, Any]:
    return {
        "name": "unmask",
        "version": report.environment.versions.get("unmask", ""),
        "rules": [
            {
                "id": mechanism,
                "name": "".join(word.capitalize() for word in title.split()),
                "shortDescription": {"text": title},
                "fullDescription": {"text": MEANINGS[mechanism]},
            }
            for mechanism, title in MECHANISMS.items()
        ],
    }


def _result(found: MaskingFinding, report: Report, root: Path) -> dict[str, Any]:
    repair = f" The audit attacked through it by: {found.repair}." if found.repair else ""
    # A claim that its gradient kept alive is an error; masking beside a claim that stands is worth a look.
    result: dict[str, Any] = {
        "ruleId": found.mechanism,
        "level": "error" if report.verdict == "refuted" else "warning",
        "message": {
            "text": f"{MECHANISMS[found.mechanism]}: {found.symptom}.{repair} {verdict_sentence(report)}"
        },
    }
    if found.file is not None:
        region: dict[str, Any] = {"startLine": found.line or 1}
        if found.end_line is not None:
            region["endLine"] = found.end_line
        if found.code:
            region["snippet"] = {"text": found.code}
        result["locations"] = [
            {"physicalLocation": {"artifactLocation": {"uri": _uri(found.file, root)}, "region": region}}
        ]
    return result


def _uri(file: str, root: Path) -> str:
    path = Path(file)
    if not path.is_absolute():
        return path.as_posix()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_uri()
