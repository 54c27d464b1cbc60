"""Three radii of each example: proved from below, estimated by CLEVER, found by attacks from above."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..classifier import Classifier
from ..errors import Unsupported
from ..foreign import failure
from ..randomness import Streams
from ..threat import ThreatModel
from .certified import certified_radius
from .clever.estimate import Clever
from .clever.marks import Mark, Marked, mark
from .clever.score import CleverScore
from .nearest import NearestSearch
from .regional import Method
from .relaxation.graph import read_graph
from .relaxation.operations import Activation

Images = Float[Tensor, "batch *dims"]

# Linear relaxations of more hidden elements than this take minutes an example. Ours.
RELAXABLE = 5_000


@dataclass(frozen=True)
class Bracket:
    """One example's three radii, in the threat's norm.

    **Fields**
    - `certified`: no adversarial example lies nearer: proved, up to the threat's epsilon. None where no bound applies.
    - `clever`: the estimate and what it rests on.
    - `attack`: an adversarial example lies here; +inf where none was found in the box.
    - `marked`: what the estimate is worth, and why.
    """

    certified: float | None
    clever: CleverScore
    attack: float
    marked: Marked


@dataclass(frozen=True)
class Brackets:
    """All examples' radii.

    **Fields**
    - `examples`: one `Bracket` each, in their order.
    - `masking`: where the network masks its gradient, in words; empty if no masking was found.
    - `uncertified`: why there is no certified radius; empty where there is one.
    - `x_adv`: the adversarial examples of `attack`.
    """

    examples: list[Bracket]
    masking: str
    uncertified: str
    x_adv: Images

    def counts(self) -> dict[Mark, int]:
        """How many scores bear each mark."""
        counted = Counter(b.marked.mark for b in self.examples)
        marks: tuple[Mark, ...] = ("refuted", "unreliable", "unrefuted")
        return {name: counted[name] for name in marks}

    def medians(self) -> tuple[float | None, float, float]:
        """Medians over the examples of the certified, the estimated and the attacks' radius."""
        certified = [b.certified for b in self.examples if b.certified is not None]
        return (
            median(certified) if certified else None,
            median(b.clever.score for b in self.examples),
            median(b.attack for b in self.examples),
        )


@dataclass(frozen=True, kw_only=True)
class Bracketing:
    """Brackets each example's distance to the decision boundary, and marks CLEVER between the two bounds.

    **Fields**
    - `clever`: how the estimate is made.
    - `search`: how adversarial examples are looked for.
    - `methods`: certificates, cheapest first; without CROWN on networks of more than 5,000 hidden elements. Empty for
      none.
    - `halvings`: of the certified radius, which is known to `epsilon * 2**-halvings`.

    **Cost**: that of the parts; CLEVER is nearly all of it.
    """

    clever: Clever = Clever()
    search: NearestSearch = NearestSearch()
    methods: tuple[Method, ...] = ("interval", "crown")
    halvings: int = 10

    @torch.inference_mode(False)
    @torch.enable_grad()
    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Int[Tensor, " batch"],
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
        progress: Callable[[str, int], None] = lambda stage, done: None,
    ) -> Brackets:
        """`threat.epsilon` is the radius in which CLEVER samples and up to which is certified.

        `progress` is told the stage that begins and, during CLEVER, how many examples are done.

        **Raises** `Unsupported` for a random network.
        """
        streams = Streams.of(generator, len(x))
        progress("attacks", 0)
        nearest = self.search.run(classifier, x, y, threat, generator=streams.fork("attack"))
        progress("certificates", 0)
        certified, why = self._certified(classifier, x, y, threat)
        own = streams.fork("clever")
        examples = []
        for i in range(len(x)):
            progress("CLEVER", i)
            part = slice(i, i + 1)
            score = self.clever.run(classifier, x[part], y[part], threat, generator=own[part])[0]
            distance = float(nearest.distance[i])
            lower = None if certified is None else float(certified[i])
            assert lower is None or lower <= distance, f"certified to {lower}, but broken at {distance}"
            zero_at_x = bool(nearest.zero_at_x[i])
            marked = mark(score, distance, certified=lower, masking=nearest.masking, zero_at_x=zero_at_x)
            examples.append(Bracket(lower, score, distance, marked))
        return Brackets(examples, nearest.masking, why, nearest.x_adv)

    def _certified(
        self, classifier: Classifier, x: Images, y: Tensor, threat: ThreatModel
    ) -> tuple[Tensor | None, str]:
        if not self.methods:
            return None, "not asked for"
        network = classifier.network
        if not isinstance(network, nn.Module) or classifier.passes > 1:
            return None, "bounds need one pass of a torch.nn.Module"
        if classifier.alone or classifier.state is not None:
            return (
                None,
                "bounds need a network that keeps nothing between calls and looks at one image at a time",
            )
        try:
            graph = read_graph(network, x)
            bends = sum(
                torch.Size(n.shape).numel() for n in graph.nodes if isinstance(n.operation, Activation)
            )
            methods = self.methods if bends <= RELAXABLE else self.methods[:1]
            return certified_radius(network, x, y, threat, methods=methods, halvings=self.halvings), ""
        except Unsupported as error:
            return None, str(error)
        except Exception as error:  # somebody's network, followed where it was not written for
            return None, f"the certificate raised {failure(error)}"
