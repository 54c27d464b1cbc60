"""Streams belong to examples, whatever the batch."""

import pytest
import torch
from scipy import stats

from unmask.randomness import SampleStreams, Streams


@pytest.fixture
def streams() -> Streams:
    return Streams.seeded(3, torch.arange(500), "test")


def test_a_part_draws_what_the_whole_draws_for_it(streams):
    part = streams[torch.tensor([4, 40, 400])]
    for draw in ("uniform", "normal", "signs"):
        assert torch.equal(getattr(streams, draw)(2, 3)[[4, 40, 400]], getattr(part, draw)(2, 3))


def test_a_batch_that_shrinks_goes_on_with_the_same_numbers(streams):
    streams.uniform(4)
    streams.uniform(4)
    part = streams[torch.tensor([7, 8])]
    assert torch.equal(streams.uniform(4)[[7, 8]], part.uniform(4))


def test_examples_draws_seeds_and_tags_are_independent(streams):
    first, second = streams.uniform(200), streams.uniform(200)
    other_seed = Streams.seeded(4, torch.arange(500), "test").uniform(200)
    other_tag = Streams.seeded(3, torch.arange(500), "other").uniform(200)
    forked = streams.fork("part").uniform(200)
    for another in (second, other_seed, other_tag, forked, first.roll(1, 0), first.roll(1, 1)):
        correlation = torch.corrcoef(torch.stack([first.flatten(), another.flatten()]))[0, 1]
        assert abs(correlation) < 5 / first.numel() ** 0.5


@pytest.mark.parametrize(
    ("draw", "cdf"), [("uniform", stats.uniform.cdf), ("normal", stats.norm.cdf)], ids=["uniform", "normal"]
)
def test_draws_follow_their_law(streams, draw, cdf):
    values = getattr(streams, draw)(100).flatten().double().numpy()
    assert stats.kstest(values, cdf).pvalue > 1e-4


def test_uniform_never_reaches_one_and_integers_cover_their_range(streams):
    values = streams.uniform(200)
    assert 0 <= values.min() < 1e-3
    assert 1 - 1e-3 < values.max() < 1
    counts = torch.bincount(streams.integers(2, 7, 200).flatten(), minlength=8)
    assert counts[:2].sum() == counts[7:].sum() == 0
    assert stats.chisquare(counts[2:7].numpy()).pvalue > 1e-4


def test_many_draws_large_seeds_and_forks_do_not_overflow():
    streams = Streams.seeded(2**62, torch.tensor([0, 2**40]))
    for _ in range(5):
        streams = streams.fork("again")
        streams.uniform(3)
        assert 0 <= streams.batch_seed() < 2**63


def test_a_generator_gives_the_same_streams_again():
    first, second = (Streams.of(torch.Generator().manual_seed(1), 3).uniform(4) for _ in range(2))
    assert torch.equal(first, second)
    assert len(first.unique()) == 12


def test_sample_streams_follow_their_law_and_repeat_for_one_example():
    example = Streams.seeded(3, torch.tensor([7]))
    for draw, cdf in (("uniform", stats.uniform.cdf), ("normal", stats.norm.cdf)):
        values = getattr(SampleStreams(example.fork("points"), 300), draw)(100)
        again = getattr(SampleStreams(example.fork("points"), 300), draw)(100)
        other = getattr(SampleStreams(example.fork("other"), 300), draw)(100)
        assert torch.equal(values, again)
        assert stats.kstest(values.flatten().double().numpy(), cdf).pvalue > 1e-4
        for another in (other, values.roll(1, 0), values.roll(1, 1)):
            correlation = torch.corrcoef(torch.stack([values.flatten(), another.flatten()]))[0, 1]
            assert abs(correlation) < 5 / values.numel() ** 0.5


def test_indexing_and_forking_sample_streams_gives_a_stream_for_each_point():
    points = SampleStreams(Streams.seeded(3, torch.tensor([7])), 5)
    assert len(points.seeds.unique()) == 5
    whole, part = points.fork("step").uniform(4), points[2:4].fork("step").uniform(4)
    assert torch.equal(whole[2:4], part)


def test_signs_of_many_points_are_fair_and_do_not_depend_on_each_other():
    signs = SampleStreams(Streams.seeded(3, torch.tensor([7])), 2000).signs(5, 3)  # two bytes, one bit over
    assert signs.shape == (2000, 5, 3)
    assert signs.dtype == torch.float32
    assert signs.abs().eq(1).all()
    flat = signs.flatten(1)
    assert stats.chi2.sf((flat.sum(0) ** 2 / len(flat)).sum().item(), 15) > 1e-4  # fair, each of them
    products = flat.T @ flat / len(flat)
    assert (products - torch.eye(15)).abs().max() < 5 / len(flat) ** 0.5
    assert SampleStreams(Streams.seeded(3, torch.tensor([7])), 4).signs().shape == (4,)
