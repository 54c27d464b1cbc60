"""Figures as inline SVG and PNG, with the page's own colours so that they follow light and dark."""

from __future__ import annotations

import base64
import io

import numpy as np
from markupsafe import Markup

from ..audit.records import AccuracyAtCost, AccuracyAtEpsilon, GradientHistogram, ImageTriple

# Placeholders that matplotlib accepts; `_svg` exchanges them for the page's CSS variables.
INK, FAINT, ACCENT, WARN = "#010203", "#040506", "#070809", "#0a0b0c"
VARIABLES = {INK: "var(--ink)", FAINT: "var(--line)", ACCENT: "var(--accent)", WARN: "var(--warn)"}
WIDTH, HEIGHT = 3.5, 2.4  # inches


def accuracy_against_epsilon(points: list[AccuracyAtEpsilon], epsilon: float, claim: float | None) -> Markup:
    """Robust accuracy (upper bound) against the radius; the audited radius and the claim are marked."""
    figure, axes = _figure()
    ordered = sorted(points, key=lambda p: p.epsilon)
    axes.plot(
        [p.epsilon for p in ordered], [100 * p.accuracy for p in ordered], "o-", color=ACCENT, ms=4, lw=1.8
    )
    axes.axvline(epsilon, color=INK, lw=0.8, ls=":")
    if claim is not None:
        axes.plot([epsilon], [100 * claim], "D", color=WARN, ms=5)
        axes.annotate("claim", (epsilon, 100 * claim), xytext=(6, 4), textcoords="offset points", color=WARN)
    axes.set_xlabel("radius ε")
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(-3, 103)
    axes.set_xlim(left=0)
    return _svg(figure, "Accuracy against the radius epsilon")


def accuracy_against_cost(points: list[AccuracyAtCost], examples: int, claim: float | None) -> Markup:
    """Upper bound against passes spent per example, forwards and backwards together."""
    figure, axes = _figure()
    ordered = sorted(points, key=lambda p: p.forwards + p.backwards)
    spent = [max(1.0, (p.forwards + p.backwards) / max(1, examples)) for p in ordered]
    axes.step(spent, [100 * p.accuracy for p in ordered], where="post", color=ACCENT, lw=1.8)
    if claim is not None:
        axes.axhline(100 * claim, color=WARN, lw=1, ls="--")
        axes.annotate(
            "claim",
            (0, 100 * claim),
            xycoords=("axes fraction", "data"),
            xytext=(4, -12),
            textcoords="offset points",
            color=WARN,
        )
    _readable_log(axes, spent)
    axes.set_xlabel("passes per example, forward and backward")
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(-3, 103)
    return _svg(figure, "Accuracy against compute spent")


def _readable_log(axes, values: list[float]) -> None:
    """A logarithmic axis with a few plain numbers: 1, 10, 100, or 1, 2, 5, 10 where that is too few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    wide = max(values, default=1.0) > 50 * min(values, default=1.0)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=7))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def gradient_histogram(histogram: GradientHistogram) -> Markup:
    """Sizes of the gradient's elements at the clean inputs, with the exact zeros as a bar of their own."""
    figure, axes = _figure()
    edges, counts = np.asarray(histogram.bin_edges), np.asarray(histogram.counts, dtype=float)
    filled = np.flatnonzero(counts)
    if len(filled):
        edges, counts = edges[filled[0] : filled[-1] + 2], counts[filled[0] : filled[-1] + 1]
    share = 100 * (1 - histogram.zero_share) * counts / max(1.0, counts.sum())
    axes.bar(edges[:-1], share, np.diff(edges), align="edge", color=ACCENT, lw=0)
    span = edges[-1] - edges[0]
    zero = edges[0] - 0.15 * span
    axes.bar([zero], [100 * histogram.zero_share], 0.06 * span, color=WARN, lw=0)
    if histogram.zero_share:
        axes.annotate(
            f"{100 * histogram.zero_share:.1f} % are exactly 0",
            (zero, 100 * histogram.zero_share),
            xytext=(0, 4),
            textcoords="offset points",
            color=WARN,
        )
    every = max(1, round(len(edges) / 4))
    ticks = edges[::every] if len(filled) else edges[:0]
    axes.set_xticks([zero, *ticks], ["0", *(f"10$^{{{e:g}}}$" for e in ticks)])
    axes.set_xlabel("size of a gradient element")
    axes.set_ylabel("share, %")
    axes.margins(y=0.18)
    return _svg(figure, "Histogram of gradient sizes")


def png(pixels: np.ndarray) -> str:
    """A data URI of one image, `[height, width]` or `[height, width, 3]`, values in [0, 1]."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def image_row(triple: ImageTriple) -> tuple[str, str, str, float]:
    """Clean, adversarial and difference as data URIs, and the largest change of a pixel.

    The difference is stretched so that its largest change fills the range; grey is no change.
    """
    if len(triple.clean[0]) == 1:
        return curve_row(triple)
    clean, adversarial = _shown(triple.clean), _shown(triple.adversarial)
    delta = adversarial - clean
    largest = float(np.abs(delta).max(initial=0))
    return png(clean), png(adversarial), png(0.5 + delta / (2 * largest or 1)), largest


def curve_row(triple: ImageTriple) -> tuple[str, str, str, float]:
    """As `image_row`, for vectors and signals: a curve for each channel, in units of the box."""
    clean, adversarial = (_numbers(side)[:, 0] for side in (triple.clean, triple.adversarial))
    delta = adversarial - clean
    largest = float(np.abs(delta).max(initial=0))
    span = 1.05 * (largest or 1)
    box, moved = (-0.02, 1.02), _curves(delta, (-span, span))
    return _curves(clean, box), _curves(adversarial, box), moved, largest


CURVES = 3  # channels of a signal that are drawn; more cannot be told apart at this size


def _curves(channels: np.ndarray, span: tuple[float, float]) -> str:
    """A data URI of `[channels, values]` as curves, or as bars where they are few features of a vector."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6, 1.6))
    FigureCanvasSVG(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_facecolor("white")
    places = np.arange(channels.shape[1])
    if len(channels) == 1 and channels.shape[1] <= 64:
        axes.bar(places, channels[0], 0.8, color="#1d4e89")
    else:
        for row, color in zip(channels[:CURVES], ("#1d4e89", "#c8553d", "#588157"), strict=False):
            axes.plot(places, row, color=color, lw=0.9)
    axes.axhline(0, color="#888888", lw=0.5)
    axes.set(ylim=span, xlim=(-0.6, len(places) - 0.4), xticks=[], yticks=[])
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "curves"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _shown(channels: list[list[list[float]]]) -> np.ndarray:
    """`[height, width, 3]` for three channels, else `[height, width]`: the only one, or their mean."""
    array = _numbers(channels)
    if array.shape[0] == 3:
        return array.transpose(1, 2, 0)
    return array.mean(0)


def _numbers(values: list[list[list[float]]]) -> np.ndarray:
    """What can be drawn: evidence that somebody changed may hold what is no number, which is black then, or white."""
    return np.nan_to_num(np.asarray(values, dtype=np.float64), nan=0.0, posinf=1.0, neginf=0.0)


def _figure():  # matplotlib is imported only here, for it takes a second
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, length=3, labelsize=9)
    axes.tick_params(which="minor", length=0)
    axes.grid(axis="y", color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, size=9)
    return figure, axes


def _svg(figure, title: str) -> Markup:
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif", "font.size": 9}
    ):
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Title": title, "Creator": None}
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    for placeholder, variable in VARIABLES.items():
        text = text.replace(placeholder, variable)
    return Markup(text)  # made of numbers and our own words only, so it may stand unescaped
