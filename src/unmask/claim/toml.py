"""The text of a claim file, and its published schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from textwrap import wrap
from typing import Any

from .record import REQUIRED, SECTIONS, Claim


def schema() -> dict[str, Any]:
    """The JSON schema that `docs/claim.schema.json` publishes."""
    whole = Claim.model_json_schema()
    whole["properties"]["target"].pop(
        "default"
    )  # from Python the network itself is given; a file must name it
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **whole,
        "description": "What a defence's author claims. Every key is honoured or refused.",
        "required": list(REQUIRED),
    }


def example_of(name: str) -> str:
    """How the value of a field may look, as TOML."""
    examples = Claim.model_fields[name].examples
    assert examples
    return toml_value(examples[0])


def toml_value(value: Any) -> str:
    """A TOML value. JSON's strings, numbers, booleans and lists are TOML's too."""
    return json.dumps(value, ensure_ascii=False)


def to_toml(values: Mapping[str, Any]) -> str:
    """The text of a claim file: every key with its comment, those not in `values` commented out."""
    lines = ["# A claim about a defence. Audit it with: unmask audit claim.toml", ""]
    for title, names in SECTIONS.items():
        lines += [f"# --- {title}", ""]
        for name in names:
            lines += [f"# {line}" for line in wrap(Claim.model_fields[name].description or "", 108)]
            stated = name in values
            lines.append(
                f"{name} = {toml_value(values[name])}" if stated else f"# {name} = {example_of(name)}"
            )
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"
