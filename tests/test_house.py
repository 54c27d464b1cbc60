"""The house stays one that a person can walk through: short functions, short files, rooms of about a dozen files."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "unmask"

COMPLEXITY, LINES, FILES = 15, 250, 12

LONG = {
    "audit/records.py": "a flat list of records: the report's keys, one after the other",
    "sources/onnx_operators.py": "a flat table: one short function for each operator of ONNX",
    "threat/lp.py": "three norms side by side, so that a change to one is seen beside the others",
}
FLAT = {  # lists of one file a thing, as long as there are things
    "attacks": "one file a paper",
    "cli": "one file a subcommand",
    "diagnostics": "one file a control",
    "training": "one file a recipe",
}


def files() -> list[Path]:
    return [path for path in SOURCE.rglob("*.py") if "templates" not in path.parts]


def test_no_function_is_too_complex():
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "C901",
        "--output-format",
        "json",
    ]
    command += ["--config", f"lint.mccabe.max-complexity={COMPLEXITY}", str(SOURCE)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
    new = []
    for one in found:
        file = Path(one["filename"]).relative_to(SOURCE).as_posix()
        new.append(f"{file}: {one['message']}")
    assert not new, "split what it does into steps with names: " + "; ".join(new)


def test_no_file_is_too_long():
    lengths = {path.relative_to(SOURCE).as_posix(): len(path.read_text().splitlines()) for path in files()}
    new = {f"{file} ({n} lines)" for file, n in lengths.items() if n > LINES and file not in LONG}
    assert not new, f"look for a second idea in {', '.join(sorted(new))}, or say in LONG why it is one"


def test_no_room_is_too_full():
    rooms: dict[str, int] = {}
    for path in files():
        if path.name != "__init__.py":
            room = path.parent.relative_to(SOURCE).as_posix().replace(".", "")
            rooms[room] = rooms.get(room, 0) + 1
    new = {f"{room} ({n} files)" for room, n in rooms.items() if n > FILES and room not in FLAT}
    assert not new, f"make a room of its own for a part of {', '.join(sorted(new))}"
