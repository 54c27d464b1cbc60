"""An attack of the user's own: it can change nothing but its proposals, and what it breaks is its own failure."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...attacks import Attack
from ...attacks.base import Images, Labels
from ...attacks.foreign import Foreign
from ...attacks.queried import Queried
from ...classifier import Classifier, Meter, seeded
from ...errors import AttackFailed, UnmaskError
from ...foreign import failure, wants_to_stop
from ...randomness import Streams
from ...target.source_files import description
from ...threat import ThreatModel
from ...types import per_example
from ..runtime.children import Children
from ..runtime.snapshot import Snapshot
from ..runtime.threads import Threads


def own_name(attack: Attack) -> str:
    """What the report calls it."""
    own = attack.inner if isinstance(attack, Queried) else attack
    return own.name if isinstance(own, Foreign) else type(own).__name__


def own_source(attack: Attack) -> str:
    """Hash of the code behind it: another one does not go on where this one stopped."""
    return description(attack.inner if isinstance(attack, Foreign) else attack)


@dataclass(frozen=True)
class OwnAttack(Attack):
    """Runs an attack that is not ours on copies, under a seed, and puts everything else back as it was.

    **Fields**
    - `inner`: the user's attack.
    - `told`: is given what each call had changed, in words; nothing where it kept the contract.

    **Raises** `AttackFailed` with the user's file and line where it raises, returns no batch of images, or leaves a
    thread or a process of its own running, which could change anything later.
    """

    inner: Attack
    told: Callable[[list[str]], None]

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        streams = Streams.of(generator, len(x))
        own = classifier.replace(meter=Meter())
        given = x.clone(), y.clone()
        state, changed, threads, children = Snapshot(classifier, x.device), [], Threads(), Children()
        try:
            # Global random numbers are seeded, so that an attack that draws from them is repeatable.
            global_seed = streams.fork("global").batch_seed()
            with seeded(global_seed, x.device), torch.enable_grad(), children.kept():
                inside = Snapshot(None, x.device)
                try:
                    found = self.inner.run(own, *given, threat, generator=streams)
                    left = _left(threads, children)
                finally:
                    changed += inside.put_back()
        except (UnmaskError, torch.OutOfMemoryError):
            raise
        except BaseException as error:
            if wants_to_stop(error):
                raise
            raise AttackFailed(f"{self._who} raised {failure(error)}; make it run by itself first") from error
        finally:
            changed += state.put_back()
            classifier.meter.forwards += max(0, own.meter.forwards)
            classifier.meter.backwards += max(0, own.meter.backwards)
            classifier.meter.judge_forwards += max(0, own.meter.judge_forwards)
        if left:
            raise AttackFailed(f"{self._who} left {left} before you return")
        changed += [
            f"the {what} it was given"
            for what, was, now in (("images", x, given[0]), ("labels", y, given[1]))
            if not torch.equal(was, now)
        ]
        proposals = self._checked(found, x)
        finite = torch.isfinite(proposals).flatten(1).all(1)
        if not finite.all():
            changed.append("proposals that are not finite")
            proposals = torch.where(per_example(finite, x), proposals, x)
        if changed:
            self.told(sorted(set(changed)))
        return proposals

    @property
    def _who(self) -> str:
        return f"the attack {own_name(self.inner)}"

    def _checked(self, found: object, x: Images) -> Tensor:
        """The proposals. **Raises** `AttackFailed` for anything but a tensor like `x`."""
        wanted = f"a tensor like x: {_described(x)}"
        if not isinstance(found, Tensor):
            said = f"a {type(found).__name__}"
        elif found.layout != torch.strided or found.is_nested:
            layout = str(found.layout).removeprefix("torch.").strip("_")
            said = f"a {'nested' if found.is_nested else layout} tensor"
        elif (found.shape, found.dtype, found.device) != (x.shape, x.dtype, x.device):
            said = _described(found)
        else:
            return found.detach()
        raise AttackFailed(f"{self._who} returned {said}{self._where()}; return {wanted}")

    def _where(self) -> str:
        inner = self.inner.inner if isinstance(self.inner, Queried) else self.inner
        code = _code(inner.inner) if isinstance(inner, Foreign) else type(inner).run
        try:
            return f" ({inspect.getsourcefile(code)}:{inspect.getsourcelines(code)[1]})"
        except (OSError, TypeError):  # made on the fly: there is no source
            return ""


def _left(threads: Threads, children: Children) -> str:
    """What goes on, and what to do about it; empty where nothing does."""
    if (thread := threads.left()) is not None:
        return f"the thread {thread} running, which could change anything later; join it"
    if (process := children.left()) is not None:
        later = "which could change files and shared memory later"
        return f"the process {process} running, {later}; end it, or shut its pool down,"
    return ""


def _code(found: Any) -> Any:
    """The function or class that somebody wrote, of an attack that is no `Attack`."""
    while isinstance(found, partial):
        found = found.func
    return found if inspect.isroutine(found) or inspect.isclass(found) else type(found)


def _described(x: Tensor) -> str:
    return f"shape {list(x.shape)}, {str(x.dtype).removeprefix('torch.')}, on {x.device}"
