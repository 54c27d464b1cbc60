"""Imports go one way: a room never imports one to its right."""

import ast
from pathlib import Path

import unmask

HOUSE = Path(unmask.__file__).parent
# From left to right; rooms of one step may import each other only where they are the same room.
STEPS = [
    {"types", "errors", "foreign", "built_at", "randomness", "state", "statistics", "worst_case"},
    {"objectives", "threat"},
    {"classifier"},
    {"tracing"},
    {"gradients", "judge"},
    {"attacks", "defenses", "zoo", "data", "sources", "claim", "target", "remedies"},
    {"diagnostics", "bounds", "training"},
    {"audit"},
    {"report", "reproducing"},
    {"cli", "testing", "__main__"},
]
LEVEL = {room: n for n, step in enumerate(STEPS) for room in step}
# These stand side by side and must not know each other.
STRANGERS = [{"attacks", "defenses"}]


def room_of(path):
    first = path.relative_to(HOUSE).parts[0]
    return first.removesuffix(".py")


def imported(path):
    """Rooms of this package that a file imports, at any depth."""
    package = ("unmask", *path.relative_to(HOUSE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
                full = [*base, *(node.module.split(".") if node.module else [])]
            else:
                full = (node.module or "").split(".")
            if full[0] != "unmask":
                continue
            names = [full[1]] if len(full) > 1 else [alias.name for alias in node.names]
            yield from names
        elif isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "unmask" and len(parts) > 1:
                    yield parts[1]


def test_imports_go_one_way():
    wrong = []
    for path in HOUSE.rglob("*.py"):
        room = room_of(path)
        if room == "__init__":
            continue
        assert room in LEVEL, f"{path} stands in no room: add it to STEPS"
        for other in imported(path):
            if other in LEVEL and LEVEL[other] > LEVEL[room]:
                wrong.append(f"{path.relative_to(HOUSE)} imports {other}")
    assert not wrong, wrong


def test_attacks_and_defenses_do_not_know_each_other():
    for strangers in STRANGERS:
        for path in HOUSE.rglob("*.py"):
            if room_of(path) in strangers:
                known = set(imported(path)) & (strangers - {room_of(path)})
                assert not known, f"{path.relative_to(HOUSE)} imports {known}"


def test_report_needs_no_torch():
    for path in (HOUSE / "report").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "torch" for name in names), path
