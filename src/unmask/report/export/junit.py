"""A report as JUnit XML: one case for the claim, one for each control."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from ...audit.records import Report
from ..words import number, percent, verdict_sentence


def junit(report: Report) -> str:
    """Failed: a refuted claim, a control that failed. Skipped: a control that does not apply. Error: inconclusive."""
    suite = ET.Element("testsuite", name=f"unmask audit of {report.target}", time=f"{report.cost.seconds:g}")
    claim = "measured" if report.claim is None else f"claim of {percent(report.claim)}"
    case = ET.SubElement(suite, "testcase", classname="unmask", name=claim)
    outcome = {"refuted": "failure", "inconclusive": "error"}.get(report.verdict)
    if outcome:
        ET.SubElement(case, outcome, message=verdict_sentence(report), type=report.verdict)
    for control in report.controls:
        case = ET.SubElement(suite, "testcase", classname="unmask.controls", name=control.name)
        if control.passed is None:
            ET.SubElement(case, "skipped", message=control.expected)
        elif not control.passed:
            found = f"{number(control.value)}, expected {control.expected}"
            ET.SubElement(case, "failure", message=found, type="control").text = control.explanation
    cases = suite.findall("testcase")
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("tests", str(len(cases)))
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
