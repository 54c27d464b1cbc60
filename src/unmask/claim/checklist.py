"""A claim against the evaluation checklist of Carlini et al. 2019: what it states, what it leaves open.

**Source**: arXiv:1902.06705, section 3, its items in its order. Its first advice is not to follow the list mindlessly:
a claim that leaves nothing open may still be false, and only attacks can tell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .claim import Claim

Status = Literal["stated", "audited", "open", "yours"]
Part = Literal["severe", "pitfalls", "special"]


@dataclass(frozen=True)
class Item:
    """One item of the checklist.

    **Fields**
    - `part`: `severe` flaws, common `pitfalls`, or `special` cases, as in the paper.
    - `item`: what is asked.
    - `status`: `stated` in the file; `audited`, done by `unmask audit` on this claim; `open`, to be done in the
      file; `yours`, to be done where no file can see it.
    - `remark`: where it is settled, or the remedy.
    """

    part: Part
    item: str
    status: Status
    remark: str


def check(claim: Claim) -> list[Item]:
    """All items of the checklist for this claim. Reads the claim only: neither network nor data."""
    parts: tuple[tuple[Part, dict[str, Question]], ...] = (
        ("severe", SEVERE),
        ("pitfalls", PITFALLS),
        ("special", SPECIAL),
    )
    return [Item(part, item, *ask(claim)) for part, asked in parts for item, ask in asked.items()]


Answer = tuple[Status, str]
Question = Callable[[Claim], Answer]


def _audited(how: str) -> Question:
    return lambda claim: ("audited", how)


def _yours(remedy: str) -> Question:
    return lambda claim: ("yours", remedy)


def _threat_model(claim: Claim) -> Answer:
    needed = ("norm", "epsilon", "box", "goal", "knowledge", "adaptive")
    missing = [name for name in needed if name not in claim.model_fields_set]
    if missing:
        return "open", f"state {', '.join(missing)}, even where the default is meant"
    if claim.goal == "targeted" and claim.targets is None:
        return "open", 'state targets: which class each image is to be taken for, such as "random"'
    radii = claim.epsilon if isinstance(claim.epsilon, list) else [claim.epsilon]
    if max(radii) == 0:
        return "open", "epsilon is 0, which allows no perturbation; state the radius that the defence is for"
    aim = claim.goal if claim.targets is None else f"{claim.goal} ({claim.targets})"
    return "stated", f"{claim.norm} of {', '.join(f'{r:g}' for r in radii)}, {aim}, {claim.knowledge}"


def _knows_the_defence(claim: Claim) -> Answer:
    if claim.knowledge == "white-box":
        return "stated", "white-box"
    remedy = 'claim security against an adversary who knows the defence: knowledge = "white-box"'
    return "open", f"the adversary knows only {claim.knowledge}; {remedy}"


def _adaptive(claim: Claim) -> Answer:
    if not claim.adaptive:
        return "open", "set adaptive = true: a defence is broken by those who have read about it"
    if claim.knowledge != "white-box":
        return (
            "audited",
            "a substitute learns from the answers; masking is reported, but nothing that it hid is used",
        )
    return "audited", "the attack follows repaired gradients through the whole defence"


def _released(claim: Claim) -> Answer:
    if claim.checkpoint_hash is None:
        return (
            "open",
            "pin the weights by checkpoint_hash, which unmask claim new computes; publish them with the code",
        )
    return "stated", "checkpoint_hash names the weights; publish them with the code"


def _concrete(claim: Claim) -> Answer:
    if claim.claim is None:
        return "open", "state claim, the accuracy under attack; without it nothing can be refuted"
    if "data" not in claim.model_fields_set:
        return "open", "state data: on whose images the claimed accuracy is measured"
    return "stated", f"{claim.claim:.1%} under attack, on {claim.data}"


def _clean(claim: Claim) -> Answer:
    if claim.clean_accuracy is None:
        return "open", "state clean_accuracy, which the audit checks"
    return "stated", f"{claim.clean_accuracy:.1%}, checked before the audit"


def _rejections(claim: Claim) -> Answer:
    if claim.false_positive_rate is None:
        return "yours", "if the defence rejects inputs, state false_positive_rate and show a ROC curve"
    return (
        "stated",
        f"{claim.false_positive_rate:.1%} of clean inputs at most, checked before the audit; show a ROC curve",
    )


def _both_goals(claim: Claim) -> Answer:
    if claim.goal == "targeted":
        return "yours", "claim an untargeted accuracy too, in a file of its own: it says more"
    return _if_thorough("untargeted goal, reached over targeted attacks too")(claim)


def _strongest(claim: Claim) -> Answer:
    if claim.knowledge != "white-box":
        return "audited", "the worst over all attacks is kept for each example"
    return (
        "audited",
        "control: black box against white box; the worst over all attacks is kept for each example",
    )


def _if_thorough(how: str) -> Question:
    def ask(claim: Claim) -> Answer:
        if claim.budget == "quick":
            return "open", 'budget = "quick" is a first look; set "standard" or "thorough"'
        return "audited", how

    return ask


def _randomness(claim: Claim) -> Answer:
    if "passes" not in claim.model_fields_set:
        return "open", "state passes: over how many forward passes a prediction is averaged, 1 if it is not"
    return (
        "audited",
        f"gradients averaged over draws; judged on fresh draws, {claim.passes} passes a prediction",
    )


def _new_attacks(claim: Claim) -> Answer:
    if claim.attack:
        return "yours", "show that your attack breaks a defence that is known to be broken"
    return (
        "audited",
        "the attacks are tested on linear networks and broken defences; a planted example is a control",
    )


SEVERE: dict[str, Question] = {
    "precise threat model": _threat_model,
    "the adversary knows how the defence works": _knows_the_defence,
    "a concrete claim": _concrete,  # ours: without a number nothing can be refuted
    "adaptive attacks": _adaptive,
    "pre-trained model and source code": _released,
    "clean accuracy": _clean,
    "ROC curve of a defence that rejects": _rejections,
    "basic sanity tests of the attack": _audited(
        "controls: one step against many, larger epsilon, unbounded epsilon, null attack"
    ),
    "attack success against perturbation budget": _audited("curve in report.html"),
    "adaptive attacks beat all others, per example": _strongest,
    "attacks described with all hyperparameters": _audited("every recipe in report.json"),
}
PITFALLS: dict[str, Question] = {
    "a diverse set of attacks": _if_thorough("two losses, targets, restarts, random search"),
    "a gradient-free and a hard-label attack": _if_thorough(
        "random search on what is left; score- and decision-based attacks where gradients are suspect"
    ),
    "a transfer attack from a similar network": _yours(
        'train the same network without the defence and give attack = ["file.py:Name"] a Transfer from it'
    ),
    "randomness is averaged over": _randomness,
    "non-differentiable components are replaced": _audited(
        "the audit names their lines and rewrites their backward"
    ),
    "the attacks have converged": _if_thorough(
        "accuracy against cost in report.html; long runs on what is left"
    ),
    "hyperparameters of the attack": _if_thorough(
        "step sizes adapt; random starts and restarts; recipes in report.json"
    ),
    "comparison with prior work": _yours("say why similar defences fell and this one does not"),
    "broader threat models": _yours("claim another norm or corruption in a file of its own"),
}
SPECIAL: dict[str, Question] = {
    "provable bounds": _audited("certified_accuracy in report.json, where a bound applies to the network"),
    "random noise of the same norm": _audited("control: random noise of the same size"),
    "targeted and untargeted attacks": _both_goals,
    "ablation of the defence's parts": _yours(
        "audit the network without each part, under a claim file of its own"
    ),
    "new attacks are validated": _new_attacks,
    "domains other than images": _yours(
        "say for which kinds of data the defence is meant; audits take vectors, signals and volumes too"
    ),
    "success is counted per example": _audited(
        "robust_accuracy is the worst over all attacks for each example"
    ),
}
