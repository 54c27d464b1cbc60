"""`unmask bound`: three radii of each example, and what the estimate between the two bounds is worth."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
from dataclasses import replace
from typing import Any

from ..cli import options as opt
from ..errors import UnusableInput
from .bound_table import show
from .device import choose_device
from .pipes import readers_may_leave

# Maxima and points per maximum. The last is the paper's; the others are ours.
BUDGETS = {"quick": (50, 64), "standard": (100, 256), "thorough": (500, 1024)}
CERTIFICATES = {
    "none": (),
    "interval": ("interval",),
    "crown": ("interval", "crown"),
    "alpha_crown": ("interval", "crown", "alpha_crown"),
}
TARGETS = ("runner-up", "random", "least-likely")
EXAMPLES = 20


def add_parser(commands: Any) -> None:
    """Adds the subcommand."""
    command = commands.add_parser(
        "bound",
        help="certified radius, CLEVER estimate and nearest adversarial example, side by side",
        description="Brackets the distance to the decision boundary, and marks each CLEVER score: refuted (an "
        "adversarial example lies inside it), unreliable (its assumptions do not hold) or unrefuted. This runs the "
        "Python file that TARGET names.",
    )
    command.add_argument(
        "target",
        nargs="?",
        metavar="TARGET",
        help="path/to/file.py:callable, package.module:callable, or claim.toml, which holds the options",
    )
    opt.add_loading_options(command, examples=str(EXAMPLES))
    opt.add_source_options(command)
    command.add_argument(
        "--targeted", choices=TARGETS, help="the class to reach (default: untargeted, any other)"
    )
    command.add_argument(
        "--budget",
        choices=BUDGETS,
        help="CLEVER's maxima and points for each: 50 x 64, 100 x 256 (default) or the paper's 500 x 1024",
    )
    command.add_argument("--batches", type=int, metavar="N_B", help="number of maxima, at least 10")
    command.add_argument("--samples", type=int, metavar="N_S", help="points per maximum")
    command.add_argument(
        "--half",
        action="store_true",
        help="CLEVER's backward passes in bfloat16, where that leaves the gradients' norms as they are",
    )
    command.add_argument(
        "--certify", choices=CERTIFICATES, default="crown", help="certificate (default: crown)"
    )
    command.add_argument("--json", action="store_true", help="print the numbers as JSON")
    command.add_argument("--quiet", action="store_true", help="print the totals only")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """0 once everything is measured."""
    with contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext():
        record = perform(arguments)
    with readers_may_leave(sys.stdout):
        if arguments.json:
            print(json.dumps(record, indent=2, allow_nan=False))
        else:
            show(record, quiet=arguments.quiet)
    return 0


def perform(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures and returns what `--json` prints: radii in the norm's own units, null where there is none."""
    claim = opt.gather(arguments, None)
    batches, samples = BUDGETS[claim.budget]
    batches = batches if arguments.batches is None else arguments.batches
    samples = samples if arguments.samples is None else arguments.samples

    # Here, so that a wrong option is told before torch is loaded.
    import torch

    from ..bounds import Bracketing, Clever
    from ..claim.stated import check_checkpoint, check_clean, check_scope
    from ..claim.units import in_units, threat_of
    from ..classifier import Classifier
    from ..data import load
    from ..data.sample import mixed
    from ..diagnostics import preflight
    from ..randomness import Streams
    from ..state import State
    from ..target.class_names import in_order_of
    from ..target.target import load_target
    from ..threat import norm_ball, threat_model
    from .terminal import TerminalProgress

    if claim.epsilon == 0:
        raise UnusableInput("--epsilon is 0; give the radius in which CLEVER samples, for instance 0.3")
    goal = "targeted" if arguments.targeted else "untargeted"
    norm_ball(threat_model(claim.norm, claim.epsilon), "`unmask bound`")  # before anything is loaded
    bracketing = Bracketing(
        clever=Clever(batches=batches, samples=samples, half=arguments.half),
        methods=CERTIFICATES[arguments.certify],  # pyright: ignore[reportArgumentType]
    )
    device = choose_device(claim.device)
    check_scope(claim)
    if claim.goal == "targeted" or claim.knowledge != "white-box":
        raise UnusableInput(
            f"the claim's goal is {claim.goal} and its knowledge {claim.knowledge}; a distance is measured by one who "
            "sees the network, to any wrong class or to that of --targeted: leave goal and knowledge out"
        )
    target = load_target(claim.target)
    check_checkpoint(claim.checkpoint_hash, target.checkpoint_hash, target.spec)
    data = load(
        claim.data,
        split=claim.split,
        examples=claim.examples,
        seed=claim.seed,
        allow_pickle=claim.allow_pickle,
    )
    data = in_order_of(target.network, data)
    threat = norm_ball(threat_of(claim, data.x.shape[1:], goal=goal), "`unmask bound`")
    check_clean(claim, target.network, data, device=device)
    chosen = slice(None) if claim.examples else mixed(data.y)[:EXAMPLES]
    x, y, index = (t[chosen].to(device) for t in (data.x, data.y, data.index))
    network = in_units(target.network, data.box, target.spec)
    classifier = network if isinstance(network, Classifier) else Classifier(network)
    if isinstance(classifier.network, torch.nn.Module):
        classifier.network.to(device)
    streams = Streams.seeded(claim.seed, index, "bound")
    with TerminalProgress(quiet=arguments.quiet) as progress:
        progress.stage("preflight")
        held = State(classifier.network)
        facts = preflight(
            classifier,
            x,
            y,
            threat=replace(threat, goal="untargeted"),
            batch_size=claim.batch_size,
            state=held,
            generator=streams.fork("preflight"),
        )
        if not facts.deterministic or not facts.seedable or classifier.passes > 1:
            raise UnusableInput(
                f"{claim.target} is random, so that no example has a fixed distance; use unmask audit, which "
                "judges it on fresh draws"
            )
        for warning in facts.warnings:
            progress.note(warning)
        classifier = classifier.replace(
            deterministic=True,
            alone=facts.batch_dependent,
            state=held.only(facts.state) if facts.state else None,
            undisturbed=facts.undisturbed,
        )
        aims = _targets(classifier, x, y, arguments.targeted, streams) if arguments.targeted else y

        def told(stage: str, done: int) -> None:
            if done == 0:
                progress.stage(stage)
            else:
                progress.advance(done, len(x))

        found = bracketing.run(classifier, x, aims, threat, generator=streams, progress=told)
    certified, clever, attack = found.medians()
    return {
        "target": claim.target,
        "data": data.name,
        "split": data.split,
        "threat": {"norm": threat.norm, "epsilon": threat.epsilon, "radii": threat.radii, "goal": goal},
        "seed": claim.seed,
        "clever": {"batches": batches, "samples": samples, "half": arguments.half},
        "masking": found.masking,
        "uncertified": found.uncertified,
        "counts": found.counts(),
        "medians": {"certified": certified, "clever": _finite(clever), "attack": _finite(attack)},
        "examples": [
            {
                "index": int(index[i]),
                "label": int(y[i]),
                "target": bracket.clever.target,
                "certified": bracket.certified,
                "clever": _finite(bracket.clever.score),
                "attack": _finite(bracket.attack),
                "mark": bracket.marked.mark,
                "reason": bracket.marked.reason,
                "capped": bracket.clever.capped,
                "degenerate": bracket.clever.degenerate,
                "zero_gradient_share": bracket.clever.zero_gradient_share,
                "spread": _finite(bracket.clever.spread),
                "ks_statistic": bracket.clever.fit and _finite(bracket.clever.fit.ks_statistic),
                "ks_pvalue": bracket.clever.fit and _finite(bracket.clever.fit.ks_pvalue),
            }
            for i, bracket in enumerate(found.examples)
        ],
    }


def _targets(classifier: Any, x: Any, y: Any, how: str, streams: Any) -> Any:
    """The class to reach `[batch]`: the likeliest or least likely other than the predicted one, or a random one."""
    import torch

    with torch.no_grad():
        logits = classifier(x, generator=streams.fork("targets")).logits
    order = logits.argsort(1, descending=True)
    if how == "runner-up":
        return order[:, 1]
    if how == "least-likely":
        return order[:, -1]
    place = streams.fork("target").integers(1, logits.shape[1], device=x.device)
    return order.gather(1, place[:, None])[:, 0]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
