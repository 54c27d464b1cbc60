"""What `unmask verify` can prove again of a certified accuracy: the same certifier on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...bounds.proving import Proved, prove
from ...bounds.regional import Goal, Method, certify_region
from ...bounds.relaxation.crown import Region
from ...bounds.relaxation.size import measured
from ...data import Data
from ...errors import UnmaskError
from ...foreign import failure, wants_to_stop
from ..evidence import Evidence
from ..records import Report, ThreatRecord
from .evidence_checks import Check

# Hidden elements times examples that are relaxed linearly: five times what a standard audit buys. Ours.
BUDGET = 2_000_000
# Dual of each norm whose ball bounds are known for.
DUALS = {"linf": 1.0, "l2": 2.0, "l1": torch.inf}
NAME = "certified accuracy"


@dataclass(frozen=True)
class Recertified:
    """One of these: a check, or why there is none; neither where nothing is stated."""

    check: Check | None = None
    why_not: str = ""


def recertified(
    report: Report, evidence: Evidence, data: Data, aim: Tensor, built: Any, network: Any, device: str
) -> Recertified:
    """Proves again what the report states as `certified_accuracy`, on the images that no evidence breaks.

    **Arguments**
    - `aim`: `[n]`, classes to stay in, or to stay out of where the goal is targeted.
    - `built`: what the target's callable returned. `network`: what of it is asked, in units of the data's box.

    **Cost**: intervals for every image, and linear relaxations for at most `BUDGET` hidden elements times images.
    """
    stated = report.certified_accuracy
    if stated is None:
        return Recertified()
    if reason := _out_of_reach(report, built, network):
        return Recertified(why_not=reason)
    left = (~torch.isin(data.index, evidence.index)).nonzero()[:, 0]
    if not len(left):
        return Recertified(Check(NAME, stated <= 0, f"stated {stated:.4f}, and no image is left to prove"))
    try:
        found = _proved(report, data.x.to(device), aim.to(device), left, network)
    except UnmaskError as error:
        return Recertified(why_not=str(error))
    except BaseException as error:  # somebody's network is asked in ways for which it was not written
        if wants_to_stop(error):
            raise
        return Recertified(why_not=f"bounding the network raised {failure(error)}")
    share = found.proved / report.examples
    if share < stated - 1e-9 and found.cut:
        return Recertified(
            why_not=f"verify's budget proves {share:.4f}, with linear bounds on {found.tried} of {found.left} images"
        )
    words = f"stated {stated:.4f}, proved again for {found.proved} of {report.examples}"
    return Recertified(Check(NAME, share >= stated - 1e-9, words))


def _out_of_reach(report: Report, built: Any, network: Any) -> str | None:
    if not isinstance(built, nn.Module) and getattr(built, "certificate", None) is not None:
        return "the defence's own certificate"
    if report.stochastic or report.passes > 1:
        return "the network is random"
    if report.environment.state:
        return "the network keeps state between calls"
    if report.threat.norm not in DUALS:
        return f"no bounds are known for {report.threat.norm}"
    return None if isinstance(network, nn.Module) else "the network is no torch module"


def _proved(report: Report, x: Tensor, aim: Tensor, left: Tensor, network: nn.Module) -> Proved:
    hidden, classes = measured(network, x[:1])
    goal: Goal = "targeted" if report.threat.goal == "targeted" else "untargeted"

    def certified(part: Tensor, method: Method) -> Tensor:
        region = _region(x[part], report.threat, DUALS[report.threat.norm])
        return certify_region(network, region, aim[part], goal=goal, methods=(method,)).certified.cpu()

    return prove(certified, left, hidden=hidden, classes=classes, budget=BUDGET)


def _region(x: Tensor, threat: ThreatRecord, dual_p: float) -> Region:
    """The ball around each image, in the box [0, 1]; where radii differ, the box around it."""
    center = x.double()
    reach = center.new_tensor(threat.radii or [threat.epsilon]).reshape(1, -1, *[1] * (x.ndim - 2))
    lower, upper = (center - reach).clamp(0, 1), (center + reach).clamp(0, 1)
    if dual_p == 1.0 or threat.radii is not None:
        return Region(lower, upper)
    return Region(lower, upper, center, center.new_full((len(x),), threat.epsilon), dual_p)
