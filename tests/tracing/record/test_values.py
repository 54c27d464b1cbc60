"""Digests tell tensors apart as comparing them does."""

import pytest
import torch

from unmask.classifier import Classifier
from unmask.tracing.record.compare import changed, equal
from unmask.tracing.record.keeping import Recording, let_go, nothing
from unmask.tracing.record.values import SMALL, digest, value_of

N = 200_000  # several blocks of a digest


def drawn(seed=0, dtype=torch.float32):
    x = torch.rand(N, generator=torch.Generator().manual_seed(seed))
    return (x * 100).to(dtype)


DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.uint8,
    torch.complex64,
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_numbers_have_equal_digests_and_others_do_not(dtype):
    x = drawn(dtype=dtype)
    assert digest(x) == digest(x.clone())
    for place in (0, 70_000, N - 1):
        other = x.clone()
        other[place] += 1
        assert digest(other) != digest(x)


def test_order_shape_and_type_count():
    x = drawn()
    others = [x.flip(0), x.roll(65536), x.reshape(2, -1), x.double(), x.reshape(2, -1).flip(0).reshape(-1)]
    assert len({digest(x), *(digest(o) for o in others)}) == 6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masks_that_differ_in_a_few_places_differ(dtype):
    """Zeros and ones: their bits differ in the exponent alone, which a sum modulo a power of two may lose."""
    masks = (torch.rand(3000, 2000, generator=torch.Generator().manual_seed(1)) < 0.5).to(dtype)
    assert len({digest(mask) for mask in masks}) == len(masks)


def test_signs_of_zero_and_nan_are_as_in_a_comparison():
    x = torch.zeros(2 * SMALL)
    assert digest(x) == digest(-x) == digest(x / 0)
    assert digest(x) != digest(x + torch.inf)


def test_strides_do_not_count():
    x = drawn().reshape(400, 500)
    assert digest(x) == digest(x.T.contiguous().T)
    assert digest(torch.ones(()).expand(N)) == digest(torch.ones(N))


def test_a_kept_value_equals_its_digest():
    x = drawn()
    kept, printed = value_of(x, 0, None), value_of(x, 0, None)
    kept.keep(x)
    other = value_of(x + 1, 0, None)
    assert equal(kept, printed)
    assert not equal(kept, other)
    with pytest.raises(AssertionError):
        _ = printed.data


def test_a_run_without_numbers_or_graph_still_tells_what_changed():
    recording = Recording(Classifier(lambda x: torch.relu(x - 0.5).flatten(1)[:, :4000]))
    x = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    one, two, other = (let_go(recording(z, seed=0, keep=nothing)) for z in (x, x, x + 0.1))
    for a, b, c in zip(one.records, two.records, other.records, strict=True):
        assert not changed(a, b)
        assert changed(a, c)
    assert all(v.kept is None and v.edge is None and v.carries for r in one.records for v in r.outputs)


def test_what_is_asked_for_is_recorded_again_and_nothing_else():
    recording = Recording(Classifier(lambda x: torch.relu(x - 0.5).flatten(1)))
    trace = let_go(recording(torch.rand(2, 1, 64, 64), seed=0))
    (step,) = (r for r in trace.records if r.name == "relu")
    again = recording.again(trace, {step.key})
    assert torch.equal(again.records[step.index].outputs[0].data, (again.x - 0.5).relu())
    assert all(
        v.kept is None for r in again.records if r.name != "relu" for v in r.outputs if r.index > step.index
    )
    before = recording.classifier.meter.forwards
    assert recording.again(again, {step.key}) is again
    assert recording.classifier.meter.forwards == before
