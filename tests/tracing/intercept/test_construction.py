import gc
from inspect import currentframe

import pytest
import torch
from torch import nn

from unmask import built_at
from unmask.built_at import built_as, site_of
from unmask.tracing.intercept.construction import construction_sites


def line() -> int:
    frame = currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


class Round(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.ReLU()
        self.line_of_inner = line() - 1


class Finer(Round):
    def __init__(self):
        super().__init__()


def test_the_line_that_builds_is_named_and_not_a_super_call():
    with construction_sites():
        plain, here = nn.Linear(2, 2), line()
        own, there = Finer(), line()
    assert site_of(plain) == (__file__, here)
    assert site_of(own) == (__file__, there)
    assert site_of(own.inner) == (__file__, own.line_of_inner)


def test_layers_that_torch_builds_belong_to_the_users_line():
    with construction_sites():
        layer, here = nn.TransformerEncoderLayer(8, 2, 8), line()
    assert site_of(layer.self_attn) == (__file__, here)
    assert all(site_of(module) == (__file__, here) for module in layer.modules())


def test_nothing_is_recorded_outside_and_the_patch_goes_away():
    original = nn.Module.__init__
    with pytest.raises(RuntimeError, match="user"), construction_sites():
        raise RuntimeError("user")
    assert nn.Module.__init__ is original
    assert site_of(nn.Linear(2, 2)) is None


def test_nested_blocks_and_copies():
    import copy

    with construction_sites():
        with construction_sites():
            inner, here = nn.ReLU(), line()
        outer, there = nn.ReLU(), line()
    assert site_of(inner) == (__file__, here)
    assert site_of(outer) == (__file__, there)
    assert site_of(copy.deepcopy(inner)) is None


def test_a_module_that_is_gone_is_forgotten():
    gc.collect()
    before = len(built_at._sites)
    with construction_sites():
        module = nn.Linear(2, 2)
    assert len(built_at._sites) == before + 1
    del module
    gc.collect()
    assert len(built_at._sites) == before


def test_the_network_is_the_same_with_and_without():
    torch.manual_seed(0)
    with construction_sites():
        watched = nn.Linear(3, 3)
    torch.manual_seed(0)
    assert torch.equal(watched.weight, nn.Linear(3, 3).weight)


class Coarse(torch.Tensor):
    """A weight of a type of its own."""


def test_a_layer_whose_weight_is_exchanged_belongs_to_the_line_that_did_it():
    with construction_sites():
        layer, other = nn.Linear(2, 2), nn.Linear(2, 2)
        layer.weight, here = nn.Parameter(layer.weight.detach().as_subclass(Coarse)), line()
        other.weight = nn.Parameter(other.weight.detach() / 2)
    assert type(layer.weight) is Coarse
    assert site_of(layer) == (__file__, here)
    assert site_of(other) == (__file__, here - 1)
    assert "register_parameter" not in nn.Linear.__dict__


def test_what_is_no_module_and_the_module_that_stands_for_it():
    class Step:
        def __init__(self):
            self.size = 3

    with construction_sites(Step):
        step, here = Step(), line()
    ours = nn.Identity()
    built_as(ours, step)
    built_as(nn.Identity(), Step())  # nobody watched: nothing is said
    assert site_of(step) == site_of(ours) == (__file__, here)
