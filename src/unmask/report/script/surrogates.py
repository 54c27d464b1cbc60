"""What is differentiated in the place of one operation, as source: a table by the operation's name.

The rules are those of `tracing/repair/surrogates`, in their commonest forms; what has no entry cannot be written out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SurrogateSource:
    """A surrogate's source.

    **Fields**
    - `signature`: its arguments behind the operation itself.
    - `body`: what it returns; `{w}` is the width of a soft step, `{g}` a gain.
    - `says`: why, in a sentence.
    - `needs`: parts of the script that it uses: `companions`, `choice`, `finite`.
    """

    signature: str
    body: str
    says: str
    needs: frozenset[str] = frozenset()


_TRUTH, _PLACE = frozenset(("companions",)), frozenset(("companions", "choice"))


def _each(names: str, surrogate: SurrogateSource) -> dict[str, SurrogateSource]:
    return dict.fromkeys(names.split(), surrogate)


_STRAIGHT = SurrogateSource(
    "x, *_, **__", "return x", "Its own gradient leads nowhere: straight through, as if it changed nothing."
)
_CAST = SurrogateSource(
    "x, *_, **__",
    "return x - 0.5 * bool((x != x.round()).any())",
    "A cast to whole numbers: straight through, half a step behind.",
    _PLACE,
)
_EXTREME = """choice = torch.softmax({sign}x / {w}, dim).movedim(dim, -1)
    return chosen(choice.unsqueeze(dim % x.ndim) if keepdim else choice)"""
_CURVES = {
    **dict.fromkeys(("sigmoid", "expit"), "torch.sigmoid"),
    **dict.fromkeys(("tanh", "hardtanh"), "torch.tanh"),
    **dict.fromkeys(("relu", "relu6", "threshold"), "F.softplus"),
    "logsigmoid": "F.logsigmoid",
    "erf": "torch.erf",
    "softsign": "F.softsign",
}

SMOOTH: dict[str, SurrogateSource] = {
    **_each(
        "round floor ceil trunc fix fake_quantize_per_tensor_affine fake_quantize_per_channel_affine",
        _STRAIGHT,
    ),
    **_each(
        "gt ge greater greater_equal __gt__ __ge__",
        SurrogateSource(
            "a, b", "return torch.sigmoid((a - b) / {w})", "A comparison, as a soft step.", _TRUTH
        ),
    ),
    **_each(
        "lt le less less_equal __lt__ __le__",
        SurrogateSource(
            "a, b", "return torch.sigmoid((b - a) / {w})", "A comparison, as a soft step.", _TRUTH
        ),
    ),
    **_each(
        "eq __eq__",
        SurrogateSource("a, b", "return 1 / (1 + ((a - b) / {w}) ** 2)", "Equality, as a soft peak.", _TRUTH),
    ),
    **_each(
        "ne not_equal __ne__",
        SurrogateSource(
            "a, b", "return 1 - 1 / (1 + ((a - b) / {w}) ** 2)", "Inequality, as a soft peak.", _TRUTH
        ),
    ),
    **_each("sign sgn", SurrogateSource("x", "return torch.tanh(x / {w})", "A step, as a soft one.")),
    "heaviside": SurrogateSource("x, *_", "return torch.sigmoid(x / {w})", "A step, as a soft one."),
    **_each(
        "remainder fmod frac __mod__",
        SurrogateSource("x, *_", "return x * 0", "A sawtooth goes up and down by the same amount."),
    ),
    **_each(
        "floor_divide __floordiv__ div divide",
        SurrogateSource("a, b, **_", "return a / b", "The quotient, without its rounding."),
    ),
    "__rfloordiv__": SurrogateSource("a, b", "return b / a", "The quotient, without its rounding."),
    **_each("to long int byte short char type type_as", _CAST),
    **_each("half bfloat16", _STRAIGHT),
    "argmax": SurrogateSource(
        "x, dim=-1, keepdim=False, **_",
        _EXTREME.replace("{sign}", ""),
        "The place of the largest, as a soft choice.",
        _PLACE,
    ),
    "argmin": SurrogateSource(
        "x, dim=-1, keepdim=False, **_",
        _EXTREME.replace("{sign}", "-"),
        "The place of the smallest, as a soft choice.",
        _PLACE,
    ),
    **_each(
        "bucketize",
        SurrogateSource(
            "x, edges, **_",
            "return torch.sigmoid((x[..., None] - edges) / {w}).sum(-1)",
            "Which bucket it is, counted by soft steps.",
            _PLACE,
        ),
    ),
    "searchsorted": SurrogateSource(
        "edges, x, **_",
        "return torch.sigmoid((x[..., None] - edges) / {w}).sum(-1)",
        "Which bucket it is, counted by soft steps.",
        _PLACE,
    ),
    "topk": SurrogateSource(
        "x, k, dim=-1, largest=True, *_, **__",
        """sign = 1 if largest else -1
    ordered = (sign * x).sort(dim, descending=True).values
    edge = ordered.narrow(dim, k - 1, min(2, x.shape[dim] - k + 1)).mean(dim, keepdim=True).detach()
    places = soft_order(x, sign * ordered.narrow(dim, 0, k), dim, {w})
    if places is None:
        places = op(x, k, dim, largest).indices.to(x.dtype)
    places.mask = torch.sigmoid((sign * x - edge) / {w})
    return places""",
        "Who belongs to the largest, as a soft step at their threshold, and at which place each of them stands.",
        _PLACE,
    ),
    "sort": SurrogateSource(
        "x, dim=-1, descending=False, **__",
        "return soft_order(x, x.sort(dim, descending=descending).values, dim, {w})",
        "Which of them stands at each place, as a soft choice.",
        _PLACE,
    ),
    "argsort": SurrogateSource(
        "x, dim=-1, descending=False, **__",
        "return soft_order(x, x.sort(dim, descending=descending).values, dim, {w})",
        "Which of them stands at each place, as a soft choice.",
        _PLACE,
    ),
}


_SATURATED = "Saturated: differentiated where its input is {g} times as large (Brendel & Bethge 2017)."
_COOLED = "The soft-max in it is saturated: differentiated where its scores are {g} times as large."
COOLER: dict[str, SurrogateSource] = {
    **_each(
        "softmax log_softmax",
        SurrogateSource("x, *more, **named", "return op({g} * x, *more, **named)", _SATURATED),
    ),
    **_each(
        "clamp clip clamp_min clamp_max hardshrink softshrink",
        SurrogateSource("x, *_, **__", "return {g} * x", _SATURATED),
    ),
    **{
        name: SurrogateSource("x, *_, **__", f"return {curve}({{g}} * x)", _SATURATED)
        for name, curve in _CURVES.items()
    },
    "glu": SurrogateSource(
        "x, dim=-1",
        """content, gate = x.chunk(2, dim)
    return content * torch.sigmoid({g} * gate)""",
        "Its gate is saturated: differentiated where what opens it is {g} times as large.",
    ),
    "scaled_dot_product_attention": SurrogateSource(
        "query, key, value, attn_mask=None, *more, **named",
        """if attn_mask is not None and attn_mask.is_floating_point():
        attn_mask = {g} * attn_mask
    return op({g} * query, key, value, attn_mask, *more, **named)""",
        _COOLED,
    ),
    "multi_head_attention_forward": SurrogateSource(
        "*given, **named",
        """attend, soft = F.scaled_dot_product_attention, F.softmax
    F.scaled_dot_product_attention = lambda query, *more, **kw: attend({g} * query, *more, **kw)
    F.softmax = lambda scores, *more, **kw: soft({g} * scores, *more, **kw)
    try:
        return op(*given, **named)[0]
    finally:
        F.scaled_dot_product_attention, F.softmax = attend, soft""",
        _COOLED,
        frozenset(("attention",)),
    ),
}


def surrogate_source(rule: dict[str, Any]) -> SurrogateSource | None:
    """The source for one rule of `gradients.json`; None where there is none."""
    kind, name = rule["kind"], rule["at"]["operation"]
    base = name if name.startswith("__") else name.rstrip("_")
    if kind == "PassThrough":
        return _STRAIGHT
    if kind == "Smooth":
        return SMOOTH.get(base)
    if kind == "Keep":
        body = "return op(FiniteGradient.apply(x), *more, **named)"
        says = "Its own derivative, where that is finite."
        return SurrogateSource("x, *more, **named", body, says, frozenset(("finite",)))
    if kind == "Gain":
        return COOLER.get(base)
    if kind == "Probabilities":
        body = """logs = torch.log_softmax(x, dim if dim is not None else -1)
    return (logs + (logs.clamp_min(-80.59) - logs).detach()).exp()"""
        return SurrogateSource(
            "x, dim=-1, **_", body, "Its log, which follows, has the gradient of a log-soft-max."
        )
    return None
