"""`--defense` texts: what they build, and what is refused in one line."""

import pytest

from unmask.defenses import JPEG, InputNoise, KWinners, TotalVariation
from unmask.defenses.names import NAMED, parse
from unmask.errors import UnusableInput


@pytest.mark.parametrize(
    ("text", "defense"),
    [
        ("jpeg", JPEG()),
        ("jpeg()", JPEG()),
        (" jpeg(quality = 50) ", JPEG(quality=50)),
        ("total_variation(drop=0, weight=0.1)", TotalVariation(drop=0, weight=0.1)),
        ("k_winners(share=0.2)", KWinners(share=0.2)),
        ("input_noise(sigma=.05, passes=3)", InputNoise(sigma=0.05, passes=3)),
    ],
)
def test_built(text, defense):
    assert parse(text) == defense


@pytest.mark.parametrize("name", sorted(set(NAMED) - {"reformer", "defense_gan", "diff_pure"}))
def test_every_name_stands_alone(name):
    assert type(parse(name)) is NAMED[name]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("jpg", "no defence 'jpg'; choose one of bit_depth, jpeg"),
        ("jpeg(75)", r"write jpeg\(quality=75\)"),
        ("jpeg(level=1)", r"no 'level'; write jpeg\(quality=75\)"),
        ("jpeg(**{'quality': 3})", r"no None; write jpeg"),
        ("jpeg(quality=0)", "quality=0; give 1 to 95"),
        ("jpeg(quality='high')", "quality of jpeg is 'high'"),
        ("jpeg(quality=7.5)", "quality of jpeg is 7.5"),
        ("jpeg(quality=__import__('os').getpid())", "quality of jpeg is __import__"),
        ("__import__('os').getpid()", "is no defence"),
        ("jpeg(", "is no defence"),
        ("", "is no defence"),
        ("reformer", "reformer.*autoencoder=…"),
        ("defense_gan", "defense_gan.*generator=…"),
        ("diff_pure(denoiser='none.safetensors', time=1.5)", "time=1.5; give a number between 0 and 1"),
    ],
)
def test_refused(text, words):
    with pytest.raises(UnusableInput, match=words) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
