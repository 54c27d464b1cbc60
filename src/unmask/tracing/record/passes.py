"""One forward pass of a network, bare or recorded."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from ...classifier import Classifier, lent, seeded
from ...state.checkpointing import differentiable_checkpoints
from ...state.process import back_afterwards
from ...state.settings import modes
from ...types import Outputs
from ..intercept.draws import generator_states, watching_draws
from ..intercept.graph_hooks import watching_saves
from .backward import Valued
from .recorder import Keep, Recorder, everything
from .values import Trace


def run_network(classifier: Classifier, x: Tensor) -> Tensor:
    """One bare pass, read as logits `[batch, classes]`; the frame at which every recorded stack ends."""
    with back_afterwards(modes()), differentiable_checkpoints():
        outputs = Outputs.of(classifier.network(x))
    assert outputs is not None, "it ran before, and was read"
    return outputs.logits


def record(
    classifier: Classifier,
    x: Tensor,
    *,
    seed: int,
    uncut: bool = True,
    written: Collection[int] = (),
    keep: Keep = everything,
) -> Trace:
    """Runs the network once on `x`, `[batch, …]`, with gradient, under a seed.

    **Arguments**
    - `uncut`, `keep`: as of `Recorder`.
    - `written`: the memory (`untyped_storage().data_ptr()`) of weights that the network overwrites in each pass: what
      the graph needs of them is copied, so that it outlives the next pass.

    **Cost**: one forward, metered; the graph is kept by the trace.
    """
    classifier.meter.forwards += len(x)
    classifier.put_back()
    leaf = x.detach().clone().requires_grad_()
    recorder, logits, states = _recorded(classifier, lent(leaf), seed, uncut, written, keep)
    return Trace(recorder.records, logits, leaf, recorder.draws, states, recorder.differentiates, seed)


def _recorded(
    classifier: Classifier, given: Tensor, seed: int, uncut: bool, written: Collection[int], keep: Keep
) -> tuple[Recorder, Tensor, tuple[Any, ...]]:
    def packed(tensor: Tensor) -> Tensor:
        return tensor.clone() if tensor.untyped_storage().data_ptr() in written else tensor

    saved = torch.autograd.graph.saved_tensors_hooks(packed, lambda t: t) if written else nullcontext()
    recorder = Recorder(classifier.network, given, uncut=uncut, written=written, keep=keep)
    with torch.enable_grad(), seeded(seed, given.device), saved:
        with (
            watching_draws(recorder.saw_draw),
            recorder,
            watching_saves(left_out=False, saw=recorder.saw_hooks),
        ):
            logits = run_network(classifier, given)
        states = generator_states()
        whole = recorder.shadows.of(logits)
        joined = logits if whole is logits else Valued.apply(logits.detach(), whole)
        return recorder, classifier.as_logits(Outputs(joined)).logits, states
