"""One gradient of an audit as source: an expression, and the functions that it asks the script for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .surrogates import surrogate_source

# Draws of a mean over the network's randomness, and directions of finite differences. Ours.
DRAWS, DIRECTIONS = 24, 256


@dataclass
class Source:
    """What the gradients ask of the script, gathered while they are written."""

    uses: set[str] = field(default_factory=set)
    functions: list[str] = field(default_factory=list)
    bridged: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    setup: list[str] = field(default_factory=list)
    own_forward: set[str] = field(default_factory=set)


class CannotWrite(Exception):
    """There is no plain code for a part of this gradient."""


def gradient_source(told: Mapping[str, Any], variant: str, source: Source, audit: Mapping[str, Any]) -> str:
    """The expression that makes it."""
    kind, inner = told["kind"], told.get("inner", {})
    if kind == "Exact":
        return "exact"
    if kind == "Repaired":
        if inner["kind"] != "Exact":
            raise CannotWrite
        return _repaired(told["rewrite"], variant, source, audit)
    if kind == "FiniteDifference":
        source.uses.add("differences")
        return f"finite_differences({told['delta']:.4g}, {DIRECTIONS})"
    if kind == "LogitScale":  # the margin loss, which is the script's first loss, needs no scale
        return gradient_source(inner, variant, source, audit)
    if kind in ("Float64", "Widened") and inner["kind"] == "Exact":
        name = {"Float64": "float64", "Widened": "widened"}[kind]
        source.uses.add(name)
        return {"float64": "in_float64", "widened": "in_float32"}[name]
    if kind == "EOT":
        code = gradient_source(inner, variant, source, audit)
        source.uses.add("eot")
        return f"mean_over_draws({code}, {min(DRAWS, told.get('draws') or told['max_draws'])})"
    if kind == "Smoothing":
        code = gradient_source(inner, variant, source, audit)
        source.uses.add("smoothed")
        return f"smoothed({code}, {told['sigma']:.4g}, {told['draws']})"
    raise CannotWrite


def _repaired(rewrite: Mapping[str, Any], variant: str, source: Source, audit: Mapping[str, Any]) -> str:
    source.uses.add("mode")
    if rewrite["heal_cuts"]:
        source.uses.add("uncut")
    exits = [place["operation"] for place in audit["leaves_torch"]]
    if exits and not rewrite["bridges"]:
        raise CannotWrite  # what goes on in NumPy itself is followed by the audit, not by plain code
    for rule in rewrite["rules"]:
        _rule(rule, variant, source)
    for bridge in rewrite["bridges"]:
        if bridge["learned"] or bridge["alone"] or bridge["argument"] is not None:
            raise CannotWrite
        source.uses.add("bridges")
        ends = {end: _at(bridge[end]) for end in ("source", "target")}
        kept = {
            "slope": float(f"{bridge['slope']:.4g}"),
            "fit": _tuples(bridge["fit"]),
            "output": bridge["output"],
            "pairing": bridge["pairing"],
        }
        source.bridged.setdefault(variant, []).append({**ends, **kept})
    return (
        f"repaired({python(variant)}, uncut=True)" if rewrite["heal_cuts"] else f"repaired({python(variant)})"
    )


def _rule(rule: Mapping[str, Any], variant: str, source: Source) -> None:
    """Writes one operation's surrogate."""
    place = rule["at"]
    if rule["kind"] == "Redifferentiate":
        source.uses.add("own_forward")
        source.own_forward.add(place["operation"])
        source.setup = [f"differentiate_what_it_computes({python(tuple(sorted(source.own_forward)))})"]
        return
    if place["kind"] == "opaque":
        raise CannotWrite  # the script meets no such call: it sees what the function does inside
    if rule["kind"] == "PassThrough" and place["kind"] == "opaque module":
        source.uses.add("opaque")
        source.setup.append("straight_through_opaque(network)")
        return
    if rule["kind"] == "Keep" and place["kind"] == "hook":
        source.uses.add("hooks")
        source.setup.append("without_hooks(network)")
        return
    surrogate = surrogate_source(dict(rule))
    if surrogate is None:
        raise CannotWrite
    source.uses |= surrogate.needs
    values = {"w": f"{rule.get('width', 0):.4g}", "g": f"{rule.get('gain', 1):.4g}"}
    where = ", ".join(python(part) for part in _at(place)[:3])
    if place["module"]:
        source.uses.add("modules")
        where += f", module={python(place['module'])}"
    name = re.sub(r"\W", "", place["operation"]).strip("_")
    number = sum(f"def {name}_" in f for f in source.functions)
    name = f"{name}_at_{int(place['line'])}" + (f"_{number}" if number else "")
    code = " ".join(place["code"].split("  #")[0].split())  # one line, whatever the record holds
    note = f"  # {code}"[:90] if code else ""
    source.functions.append(
        f"@repair({python(variant)}, {where}){note}\n"
        f"def {name}(op, {surrogate.signature}):\n"
        f'    """{_filled(surrogate.says, values)}"""\n'
        f"    {_filled(surrogate.body, values)}"
    )


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _at(place: Mapping[str, Any]) -> tuple[Any, ...]:
    """Operation, file, line and module, as the script compares them."""
    if place["inside"] is not None:
        raise CannotWrite
    return place["operation"], place["file"], place["line"], place["module"]


def python(value: Any) -> str:
    """A value as source, strings in double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return f"({', '.join(python(v) for v in value)}{',' * (len(value) == 1)})"
    return repr(value)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
