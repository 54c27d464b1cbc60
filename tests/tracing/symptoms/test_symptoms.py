"""Symptoms are types of their own: nothing outside their room tells them apart by a word, and each says all it must."""

import ast
from pathlib import Path

import pytest
from tests.tracing.named import BY_NAME

import unmask
from unmask.tracing.intercept.operations import SATURATING
from unmask.tracing.intercept.sites import Site
from unmask.tracing.repair.surrogates import CURVES, SHARES
from unmask.tracing.suspect import Measurements, Suspect

HOUSE = Path(unmask.__file__).parent
# Where a symptom's name as a bare string could only mean the symptom.
WINGS = ["tracing/analyse.py", "tracing/detect", "tracing/repair", "remedies.py", "bounds/nearest.py"]
WINGS += ["audit/findings.py", "audit/campaign/race.py", "audit/run.py", "audit/campaign/detector.py"]


def files(place):
    path = HOUSE / place
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def bare_names(tree):
    """Strings that name a symptom, but for what an operation's `kind` is compared with."""
    kinds = {
        id(side)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Attribute) and node.left.attr == "kind"
        for part in node.comparators
        for side in ast.walk(part)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in BY_NAME and id(node) not in kinds:
            yield node


def test_no_bare_symptom_strings():
    found = [
        f"{path.relative_to(HOUSE)}:{node.lineno} {node.value!r}"
        for place in WINGS
        for path in files(place)
        for node in bare_names(ast.parse(path.read_text()))
    ]
    assert not found, "ask the symptom instead: " + "; ".join(found)


def test_no_symptom_is_compared_with_a_string():
    """Anywhere in the package, whatever the word."""
    found = []
    for path in files("."):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Compare):
                continue
            sides = [node.left, *node.comparators]
            asked = any(isinstance(s, ast.Attribute) and s.attr == "symptom" for s in sides)
            words = (part.value for s in sides for part in ast.walk(s) if isinstance(part, ast.Constant))
            if asked and any(isinstance(word, str) for word in words):
                found.append(f"{path.relative_to(HOUSE)}:{node.lineno}")
    assert not found, found


@pytest.mark.parametrize(
    "source",
    ['s.symptom == "cut"', 'Suspect("zero", place)', 'x in ("random", "wrong")', 'where("declared")'],
)
def test_a_bare_name_is_seen(source):
    assert list(bare_names(ast.parse(source)))
    assert not list(bare_names(ast.parse('r.kind == "opaque" and r.kind in ("opaque", "function")')))


@pytest.mark.parametrize(("one", "other"), [("detect", "repair"), ("repair", "detect"), ("record", "detect")])
def test_finding_and_repairing_do_not_know_each_other(one, other):
    for path in files(f"tracing/{one}"):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = (node.module or "").split(".") if isinstance(node, ast.ImportFrom) else []
            assert other not in parts, f"{path.relative_to(HOUSE)}:{node.lineno}"


def test_symptoms_know_neither_who_finds_nor_who_repairs():
    for path in files("tracing/symptoms"):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = (node.module or "").split(".") if isinstance(node, ast.ImportFrom) else []
            assert not {"detect", "repair", "record"} & set(parts), f"{path.relative_to(HOUSE)}:{node.lineno}"


@pytest.mark.parametrize("name", BY_NAME)
def test_a_symptom_says_something_whatever_was_measured(name):
    symptom = BY_NAME[name]
    bare = Suspect(symptom, "torch.f", Site("net.py", 3), ("f", "net.py", 3))
    assert symptom.sentence(bare)
    assert not symptom.confirmed(bare, Measurements(deterministic=True))  # nothing was lost by it


def test_every_saturating_function_has_a_curve():
    assert {*CURVES, *SHARES} == SATURATING
