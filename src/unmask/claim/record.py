"""The claim as a record: the formal threat model, the concrete claim of a defence, and how it is audited."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from .numbers import Radii, Share


class Claim(BaseModel):
    """What a defence's author claims, and how it is audited: the one record of options of this package.

    Command line, claim file, `--resume` and Python all end in it, and the audit reads nothing else, so that a new
    option is a field here and the place that honours it. The descriptions of the fields are the help of `unmask
    audit`, the comments of `unmask claim new` and the text of the published schema.

    From Python the network and the data are given themselves, and `target`, `data`, `split`, `examples` and
    `allow_pickle` say nothing.

    >>> Claim(norm="linf", epsilon=0.1, claim=0.9).budget
    'standard'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, title="claim.toml")

    target: str = Field(
        "",
        description="The network: file.py:callable or package.module:callable, called without arguments. "
        "Input [0, 1] NCHW float32, output logits.",
        examples=["my_defence.py:network"],
    )
    checkpoint_hash: str | None = Field(
        None,
        description="SHA-256 over all parameters and buffers, as in report.json; the audit refuses other weights.",
        pattern=r"^[0-9a-f]{64}$",
        examples=["0" * 64],
    )
    passes: int = Field(
        1,
        ge=1,
        description="A prediction is the mean over this many forward passes.",
        examples=[1],
    )
    average: Literal["logits", "probabilities"] | None = Field(
        None,
        description="What that mean is a mean of: logits, or probabilities, after a soft-max (default: what the "
        "network returns).",
        examples=["probabilities"],
    )
    false_positive_rate: Share | None = Field(
        None,
        description="Share of clean inputs that the defence's detector rejects, at most; leave out without a detector.",
        examples=[0.05],
    )
    data: str = Field(
        "digits",
        description="digits, mnist, cifar10, a Hugging Face data set, a folder of pictures by class, a .csv, or arrays "
        "(.npz, .npy, .safetensors).",
        examples=["cifar10"],
    )
    split: str | None = Field(None, description="Split of the data set (default: test).", examples=["test"])
    examples: int | None = Field(
        None,
        ge=1,
        description="So many examples of the split, a random sample stratified by class (default: all).",
        examples=[1000],
    )
    allow_pickle: bool = Field(
        False, description="Read pickled data, which runs the code inside.", examples=[False]
    )
    norm: Literal["linf", "l2", "l1", "l0", "l0-elements", "patch"] = Field(
        description="What the adversary may do: move within a norm, linf, l2 or l1; replace epsilon pixels (l0) or "
        "elements (l0-elements) by anything; or cover a square of epsilon by epsilon pixels at any place (patch).",
        examples=["linf"],
    )
    epsilon: Radii = Field(
        description="Its radius in units of the image range, or of each feature's box, as a number or a fraction; "
        "where pixels are counted, a whole number. Several, with commas or in a .npy, .csv or .txt file: one for each "
        "channel or feature, which does not move where it is 0.",
        examples=["8/255"],
    )
    box: Annotated[list[float], Field(min_length=2, max_length=2)] | str = Field(
        [0.0, 1.0],
        description="What 0 and 1 stand for, of which epsilon is a share: smallest and largest valid value; data, the "
        "range of the data, feature by feature; or a .npz file with low and high, one for each feature or channel.",
        examples=[[0.0, 1.0]],
    )
    goal: Literal["untargeted", "targeted"] = Field(
        "untargeted",
        description="The adversary's goal: untargeted, any wrong class; targeted, a given one. Then the claimed "
        "accuracy is the share of images that no attack brings there.",
        examples=["untargeted"],
    )
    targets: Literal["random", "least-likely"] | Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="Under a targeted goal, the class that each image is to be taken for: random, any other one, by "
        "the seed; least-likely, that of the smallest clean logit; or a class, and images of it are left out.",
        examples=["random"],
    )
    knowledge: Literal["white-box", "scores", "labels", "transfer"] = Field(
        "white-box",
        description="What the adversary knows: white-box, everything but the random draws; scores or labels, only "
        "the answers to queries; transfer, nothing but the data (not audited).",
        examples=["white-box"],
    )
    queries: int | None = Field(
        None,
        ge=1,
        description="Queries per image that an adversary who is told scores or labels may make; leave out for no "
        "limit.",
        examples=[10000],
    )
    adaptive: bool = Field(
        True, description="The adversary may adapt to this defence. Audits always do.", examples=[True]
    )
    clean_accuracy: Share | None = Field(
        None, description="Claimed accuracy when not under attack.", examples=[0.92]
    )
    claim: Share | None = Field(None, description="Claimed accuracy under attack.", examples=[0.45])
    attack: list[str] = Field(
        [],
        description="The author's own attacks, file.py:Name, run beside ours.",
        examples=[["my_attack.py:Mine"]],
    )
    budget: Literal["quick", "standard", "thorough"] = Field(
        "standard",
        description="How much the audit tries: quick, standard or thorough.",
        examples=["standard"],
    )
    exhaustive: bool = Field(False, description="Go on when the claim is already decided.", examples=[False])
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of all randomness.", examples=[0])
    batch_size: int = Field(256, ge=1, description="Examples per batch.", examples=[256])
    device: str | None = Field(
        None, description="cpu, cuda, cuda:1, … (default: cuda if there is one).", examples=["cpu"]
    )


# Without these, neither file nor command line says what is claimed.
REQUIRED = ("target", "norm", "epsilon")

SECTIONS: dict[str, tuple[str, ...]] = {
    "The model": ("target", "checkpoint_hash", "passes", "average", "false_positive_rate"),
    "The data": ("data", "split", "examples", "allow_pickle"),
    "The threat model": ("norm", "epsilon", "box", "goal", "targets", "knowledge", "queries", "adaptive"),
    "The claim": ("clean_accuracy", "claim"),
    "The audit": ("attack", "budget", "exhaustive", "seed", "batch_size", "device"),
}
