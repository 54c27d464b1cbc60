"""The only door to the user's network. Every forward and backward pass goes through it and is counted."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import GradientFailed, UnmaskError, said
from ..foreign import failure, user_line
from ..randomness import Streams
from ..state import State
from ..state.process import back_afterwards
from ..state.settings import modes
from ..threat import ThreatModel
from ..types import Average, Outputs, SelfCertificate
from .averaging import addend, check_average, finite_floats, logits_of_mean, of_its_class
from .call import Network, refuse_to_stop
from .meter import Meter
from .pace import Pace
from .seeding import seeded
from .undisturbed import undisturbed

Images = Float[Tensor, "batch *dims"]


@runtime_checkable
class Certify(Protocol):
    """Proves what it can about the deployed predictions (`passes` included) of the classifier that offers it."""

    def __call__(
        self,
        classifier: Classifier,
        x: Images,
        y: Int[Tensor, " batch"],
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> SelfCertificate:
        """**Raises** `Unsupported` for a threat model that it says nothing about."""
        ...


class Classifier:
    """A network, as the attacks and the judge see it.

    **Arguments**
    - `network`: input `[batch, channels, height, width]` in the box, output logits `[batch, classes]`, or what
      `Outputs.of` reads as such. It is never put in another mode, its parameters are never frozen, no `.grad` is left
      on them.
    - `passes`: the defence's own claim: a prediction is the mean over this many forward passes.
    - `average`: what it is a mean of, `logits` or `probabilities`; None for what the network returns.
    - `surrogate`: what is differentiated in the network's place (BPDA), or attacked (transfer), or None.
    - `deterministic`: True promises that equal inputs give equal outputs; then no seeds are set around a call.
    - `probabilities`: the network returns probabilities. Their logs are the logits; over several passes, the log of
      their mean unless `average` is `logits`. A probability of zero counts as 1e-35.
    - `alone`: every image is asked about in a batch of its own, whatever batch comes in.
    - `state`: what is put back before every pass, for a network that keeps something from one call to the next; the
      same object goes on to the classifiers that `replace` makes.
    - `undisturbed`: autograd keeps copies of what it saves, for a network that changes in place what backward needs.
    - `pace`: stops a network that becomes slower by being asked; it goes on as `meter` does.
    - `certificate`: for a defence that can prove its own robustness; an audit quotes it as the lower bound.

    What goes in is a copy and what comes out is a copy, so that a network may write into its input, keep it, or return
    the same buffer twice, without changing a tensor of the caller's. Under autograd the copy is no leaf: a layer that
    works in place may be the first. Gradient mode, default dtype and the like are afterwards as they were before.

    **Raises** `ModelFailed` with one line when the network raises or returns something else than logits.
    """

    def __init__(
        self,
        network: Network,
        *,
        passes: int = 1,
        average: Average | None = None,
        surrogate: Network | None = None,
        deterministic: bool = False,
        certificate: Certify | None = None,
        probabilities: bool = False,
        alone: bool = False,
        state: State | None = None,
        undisturbed: bool = False,
        meter: Meter | None = None,
        pace: Pace | None = None,
    ):
        if passes < 1:
            raise UnmaskError(f"passes is {passes}; give at least 1")
        check_average(average)
        self.network = network
        self.passes = passes
        self.average: Average | None = average
        self.surrogate = surrogate
        self.deterministic = deterministic
        self.certificate = certificate
        self.probabilities = probabilities
        self.alone = alone
        self.state = state
        self.undisturbed = undisturbed
        self.meter = Meter() if meter is None else meter
        self.pace = Pace() if pace is None else pace

    def replace(self, **changes: object) -> Classifier:
        """A classifier with other fields that shares this one's meter. Another network loses the certificate."""
        names = (
            "network",
            "passes",
            "average",
            "surrogate",
            "deterministic",
            "certificate",
            "probabilities",
            "alone",
            "state",
        )
        names = (*names, "undisturbed", "meter", "pace")
        if "network" in changes:
            changes.setdefault("certificate", None)
        return Classifier(**{**{k: getattr(self, k) for k in names}, **changes})  # type: ignore[arg-type]

    def with_surrogate(self, surrogate: Network) -> Classifier:
        """The classifier with a network that is differentiated in its place."""
        return self.replace(surrogate=surrogate)

    @property
    def device(self) -> torch.device:
        """Device of the first parameter or buffer; the CPU for networks without any."""
        if isinstance(self.network, nn.Module):
            for tensor in (*self.network.parameters(), *self.network.buffers()):
                return tensor.device
        return torch.device("cpu")

    def __call__(self, x: Images, *, generator: torch.Generator | Streams) -> Outputs:
        """One forward pass, differentiable, on fresh randomness from `generator`."""
        self.meter.forwards += len(x)
        return self.as_logits(self._once(x, generator))

    def as_logits(self, outputs: Outputs) -> Outputs:
        """What a pass or a mean over passes gave, as finite float logits as far as possible.

        Sixteen bits are widened to float32, and a class at minus infinity beside finite ones gets a finite number. The
        largest stays the largest.
        """
        read = self._read(outputs)
        if read.logits is outputs.logits or outputs.logits.ndim != 2:
            return read
        return Outputs(of_its_class(read.logits, outputs.logits), read.detector_score)

    def _read(self, outputs: Outputs) -> Outputs:
        return Outputs(finite_floats(outputs.logits, self.probabilities), outputs.detector_score)

    def predict(self, x: Images, *, generator: torch.Generator | Streams) -> Outputs:
        """The deployed prediction: the mean over `passes` passes, without gradient, counted as judging."""
        with torch.no_grad():
            total = self._addend(self._once(x, generator))
            for _ in range(self.passes - 1):
                more = self._addend(self._once(x, generator))
                score = total.detector_score
                if score is not None and more.detector_score is not None:
                    score = score + more.detector_score
                total = Outputs(total.logits + more.logits, score)
        self.meter.judge_forwards += len(x) * self.passes
        if self.passes == 1:
            return self.as_logits(total)
        found = self._mean(total)
        return Outputs(of_its_class(found.logits, total.logits), found.detector_score)

    def _mean(self, total: Outputs) -> Outputs:
        score = None if total.detector_score is None else total.detector_score / self.passes
        mean = total.logits / self.passes
        if self.converts:
            return Outputs(logits_of_mean(mean, self.averaged), score)
        return self._read(Outputs(mean, score))

    @property
    def averaged(self) -> Average:
        """What a mean over passes is a mean of: as was said, or else what the network returns."""
        return self.average or self._returned

    @property
    def _returned(self) -> Average:
        return "probabilities" if self.probabilities else "logits"

    @property
    def converts(self) -> bool:
        """Whether passes are averaged in another form than the network returns."""
        return self.passes > 1 and self.averaged != self._returned

    def _addend(self, outputs: Outputs) -> Outputs:
        if not self.converts:
            return outputs
        return Outputs(addend(self._read(outputs).logits, self.averaged), outputs.detector_score)

    def gradient(self, values: Float[Tensor, " batch"], x: Images, *, retain_graph: bool = False) -> Images:
        """Gradient of the sum of `values` with respect to `x`; zero where `x` is not reached. Counts backwards.

        `retain_graph` keeps the forward pass for another gradient of the same outputs.
        """
        self.meter.backwards += len(x)
        if not values.requires_grad:
            return torch.zeros_like(x)
        try:
            with back_afterwards(modes()):  # a hook or a Function of somebody's runs
                (grad,) = torch.autograd.grad(values.sum(), x, retain_graph=retain_graph, allow_unused=True)
        except UnmaskError:
            raise
        except BaseException as error:
            if "derivative for" in said(error) and "is not implemented" in said(error):
                return torch.zeros_like(x)  # `x // step` records a graph that autograd then refuses to walk
            refuse_to_stop(error)
            if isinstance(error, RuntimeError) and not user_line(error):
                raise  # autograd's own, about this graph
            raise GradientFailed(
                f"the network's backward pass raised {failure(error)}; run it once yourself to see the whole traceback"
            ) from error
        return torch.zeros_like(x) if grad is None else grad

    def put_back(self) -> None:
        """Puts back what the network keeps between calls, where it is judged so; for those who call it themselves."""
        if self.state is not None:
            self.state.restore()

    def _once(self, x: Images, generator: torch.Generator | Streams) -> Outputs:
        if not self.alone or len(x) < 2:
            return self._pass(x, generator)
        streams = Streams.of(generator, len(x)).spawn("alone")
        found = [self._pass(x[n : n + 1], streams[n : n + 1]) for n in range(len(x))]
        scores = [f.detector_score for f in found if f.detector_score is not None]
        return Outputs(torch.cat([f.logits for f in found]), torch.cat(scores) if scores else None)

    def _pass(self, x: Images, generator: torch.Generator | Streams) -> Outputs:
        if self.deterministic:
            return self._checked(x)
        if isinstance(generator, Streams):
            seed = generator.batch_seed()
        else:
            seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        with seeded(seed, x.device):
            return self._checked(x)

    def _checked(self, x: Tensor) -> Outputs:
        self.put_back()
        with undisturbed() if self.undisturbed else nullcontext():
            return self.pace.call(self.network, x)
