import base64
import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image
from tests.report.sample import refuted

from unmask.audit.records import ImageTriple
from unmask.report import plots


def decode(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_images_show_the_pixels_and_the_difference(channels):
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, (channels, 4, 4)) / 255
    adversarial = clean.copy()
    adversarial[:, 1, 2] = np.where(clean[:, 1, 2] > 0.5, clean[:, 1, 2] - 0.2, clean[:, 1, 2] + 0.2)
    triple = ImageTriple(
        index=0, label=1, clean_prediction=1, adversarial_prediction=2,
        clean=clean.tolist(), adversarial=adversarial.tolist(),
    )  # fmt: skip
    first, second, difference, largest = plots.image_row(triple)
    if channels == 2:
        assert decode(first).shape == (4, 4)
        return
    shown = clean[0] if channels == 1 else clean.transpose(1, 2, 0)
    assert np.array_equal(decode(first), np.round(255 * shown).astype(np.uint8))
    assert (decode(first) != decode(second)).any(-1 if channels == 3 else ()).sum() == 1
    assert largest == pytest.approx(0.2)
    change = decode(difference).reshape(16, -1)
    assert (np.delete(change, 6, 0) == 128).all()
    assert set(change[6].tolist()) <= {0, 255}


def test_equal_images_have_a_grey_difference():
    flat = [[[0.5, 0.5], [0.5, 0.5]]]
    triple = ImageTriple(
        index=0, label=1, clean_prediction=1, adversarial_prediction=1, clean=flat, adversarial=flat
    )
    _, _, difference, largest = plots.image_row(triple)
    assert largest == 0
    assert (decode(difference) == 128).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("height", [1, 2])
def test_what_is_no_number_is_drawn_as_black_or_white(value, height):
    """`verify` draws evidence that somebody may have changed; warnings are errors here."""
    clean = [[[0.5, 0.5]] * height]
    changed = [[[0.5, value]] * height]
    triple = ImageTriple(
        index=0, label=1, clean_prediction=1, adversarial_prediction=1, clean=clean, adversarial=changed
    )
    assert plots.image_row(triple)[3] == 0.5


def test_figures_are_svg_in_the_pages_colours_and_repeatable(tmp_path):
    report = refuted(tmp_path / "s.py")
    assert report.gradient_histogram is not None
    for draw in (
        lambda: plots.accuracy_against_epsilon(report.accuracy_against_epsilon, 0.15, 0.83),
        lambda: plots.accuracy_against_cost(report.accuracy_against_cost, 500, 0.83),
        lambda: plots.gradient_histogram(report.gradient_histogram),
    ):
        text = draw()
        assert ElementTree.fromstring(text).tag.endswith("svg")
        assert "var(--accent)" in text
        assert not re.search("|".join(plots.VARIABLES), text)
        assert text == draw()


def test_the_curve_is_the_data(tmp_path):
    report = refuted(tmp_path / "s.py")
    text = plots.accuracy_against_epsilon(report.accuracy_against_epsilon, 0.15, None)
    path = max(re.findall(r'd="(M [^"]*)"[^>]*clip-path[^>]*stroke: var\(--accent\)', text), key=len)
    numbers = np.array(re.findall(r"-?[\d.]+", path), dtype=float).reshape(-1, 2)
    points = sorted((p.epsilon, p.accuracy) for p in report.accuracy_against_epsilon)
    drawn = (
        np.corrcoef(numbers[:, 0], [e for e, _ in points])[0, 1],
        np.corrcoef(numbers[:, 1], [a for _, a in points])[0, 1],
    )
    assert drawn == pytest.approx((1, -1), abs=1e-6)
