"""Whether what a claim file states about the network is so, before hours are spent on attacking it."""

from __future__ import annotations

import torch
from torch import nn

from ..classifier import Classifier
from ..data import Data
from ..errors import UnusableInput
from ..randomness import Streams
from ..state import State
from ..statistics import clopper_pearson
from .claim import Claim
from .units import as_claimed, in_units


def check_scope(claim: Claim) -> None:
    """Refuses threat models under which an audit would test something else than the claim."""
    if claim.box != [0.0, 1.0]:
        raise UnusableInput(
            f"box is {claim.box}, which belongs to the data: give it to unmask.data.load as SPEC(box=…), or to "
            "unmask.audit as box="
        )
    _check_goal(claim)
    _check_knowledge(claim)
    if not claim.adaptive:
        raise UnusableInput(
            "adaptive is false; an audit adapts to the defence, so it would refute what was not claimed: set "
            "adaptive = true to learn what holds against an adversary who has read the paper"
        )


def _check_goal(claim: Claim) -> None:
    if claim.goal == "targeted" and claim.targets is None:
        raise UnusableInput(
            'goal is "targeted", but targets is not stated; say which class each image is to be taken for: targets = '
            '"random", "least-likely" or a class'
        )
    if claim.goal == "untargeted" and claim.targets is not None:
        raise UnusableInput(
            f'targets is {claim.targets!r}, but the goal is untargeted; set goal = "targeted", or leave targets out'
        )


def _check_knowledge(claim: Claim) -> None:
    if claim.knowledge == "transfer":
        raise UnusableInput(
            "knowledge is 'transfer'; an audit has no other network that the adversary could have: set knowledge = "
            '"labels" for one who learns his own from the answers, or "white-box" to learn what holds without secrets'
        )
    if claim.knowledge == "white-box" and claim.queries is not None:
        raise UnusableInput(
            f"queries is {claim.queries}, but who sees the network need not ask it; leave queries out, or set "
            'knowledge = "scores" or "labels"'
        )
    if claim.knowledge == "labels" and claim.goal == "targeted":
        raise UnusableInput(
            "knowledge is 'labels' and goal is 'targeted'; an audit has no attack that reaches a given class by labels "
            'alone: set knowledge = "scores", or goal = "untargeted"'
        )
    if claim.knowledge == "labels" and claim.norm in ("l0", "l0-elements", "patch"):
        raise UnusableInput(
            f"knowledge is 'labels' and norm is {claim.norm!r}; an audit has no attack that finds few pixels by labels "
            'alone: set knowledge = "scores", or a norm of linf, l2 or l1'
        )
    if claim.queries is not None and claim.attack:
        raise UnusableInput(
            f"queries is {claim.queries}, and nobody can say how often {claim.attack[0]} asks about one image; leave "
            "out attack or queries"
        )


def check_checkpoint(stated: str | None, found: str, target: str) -> None:
    """Refuses other weights than the claim was made about."""
    if stated is None or stated == found:
        return
    has = f"hash to {found}" if found else "cannot be hashed, for it is no torch.nn.Module"
    raise UnusableInput(
        f"checkpoint_hash is {stated}, but the weights of {target} {has}; load the weights the claim is about, or "
        "leave checkpoint_hash out"
    )


def check_clean(
    claim: Claim, network: nn.Module | Classifier, data: Data, *, device: torch.device | str
) -> None:
    """Refuses a network that is less accurate, or rejects more, on clean images than the claim says, beyond chance.

    Accuracy counts predictions, rejected or not: the false-positive rate tells of the rejections.

    **Cost**: one prediction of every example, if either is stated.
    """
    if claim.clean_accuracy is None and claim.false_positive_rate is None:
        return
    classifier = as_claimed(in_units(network, data.box), claim)
    if isinstance(classifier.network, nn.Module):
        classifier.network.to(device)
    held = State(classifier.network)
    streams = Streams.seeded(claim.seed, data.index.to(device), "claim")
    right = rejected = 0
    has_detector = True
    for part in torch.arange(len(data)).split(claim.batch_size):
        outputs = classifier.predict(data.x[part].to(device), generator=streams[part])
        if outputs.logits.ndim != 2 or not torch.isfinite(outputs.logits).all():
            return  # the audit's preflight says what is wrong with these
        right += int((outputs.logits.argmax(1).cpu() == data.y[part]).sum())
        has_detector &= outputs.detector_score is not None
        if outputs.detector_score is not None:
            rejected += int((outputs.detector_score > 0).sum())
    held.only(held.changes()).restore()  # who comes next finds a network that nobody has asked
    if claim.clean_accuracy is not None:
        _check_accuracy(claim.clean_accuracy, right, len(data))
    if claim.false_positive_rate is None:
        return
    if not has_detector:
        raise UnusableInput(
            f"false_positive_rate is {claim.false_positive_rate:g}, but the network returns no detector score; "
            "return unmask.Outputs(logits, detector_score), or leave false_positive_rate out"
        )
    _check_rejections(claim.false_positive_rate, rejected, len(data))


def _check_accuracy(stated: float, right: int, n: int) -> None:
    highest = clopper_pearson(right, n)[1]
    if highest < stated:
        raise UnusableInput(
            f"clean accuracy is {right / n:.1%} ({right} of {n}, at most {highest:.1%} with 95 % confidence), "
            f"below the claimed clean_accuracy of {stated:.1%}; check preprocessing, label order and weights, or "
            "lower the claim"
        )


def _check_rejections(stated: float, rejected: int, n: int) -> None:
    lowest = clopper_pearson(rejected, n)[0]
    if lowest > stated:
        raise UnusableInput(
            f"the detector rejects {rejected / n:.1%} of the clean images ({rejected} of {n}, at least "
            f"{lowest:.1%} with 95 % confidence), more than the claimed false_positive_rate of {stated:.1%}; raise "
            "its threshold"
        )
