"""What the audit measured, held against its own result: no part of it may have left less than the campaign."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from scipy.stats import fisher_exact, norm
from torch import Tensor

from ...diagnostics import Preflight, Reading
from ...errors import plural
from ...judge import Judgement
from ..campaign.standing import Standing
from ..context import Subject
from ..records import Control
from .reopening import Controlled
from .run import Examined

NAME = "no part of the audit left less than the campaign"
EXPECTED = "0: share of examples that a part of the audit broke and the campaign did not"
# Chance of an alarm where a random network's draws alone make the difference; of all comparisons together. Ours.
ALARM = 1e-3
# A margin loss smaller than this share of a usual one may change sign with the batch in which it is computed. Ours:
# float32 sums in another order differ by some 1e-6.
NEGLIGIBLE = 1e-4
# So many images that break in company alone are no accident of rounding. Ours.
BROKEN_IN_COMPANY = 2


@dataclass(frozen=True)
class Part:
    """What a part of the audit says of some examples.

    **Fields**
    - `words`: which part.
    - `rates`: `[k]`, failure rates of the first `k` examples.
    - `draws`: behind each rate.
    """

    words: str
    rates: Tensor
    draws: int


def parts(examined: list[Examined]) -> Iterator[Part]:
    """Everything that the controls judged inside the claimed ball."""
    for e in examined:
        for reading in filter(None, (e.reading, e.again)):
            yield from _of(e.check.name, reading)


def _of(name: str, reading: Reading) -> Iterator[Part]:
    for tried in reading.tried:
        if tried.failure_rate is not None:
            words = f"{name}, {tried.by}" if tried.by else name
            yield Part(words, tried.failure_rate, tried.draws)


def answers_everywhere(standing: Standing, final: Judgement) -> Control:
    """The control of that name: whether the network has answered at every point of the ball that was tried.

    NaN is no class. No attack may count it, for a defect of the network is not what was claimed to be absent; and who
    gives no answer beside an image has not been shown to be right there.
    """
    mute = standing.mute & (final.failure_rate < 0.5)
    count, passed = int(mute.sum()), not bool(mute.any())
    return Control(
        name="an answer at every point",
        passed=passed,
        value=count / len(mute),
        expected="0: share of surviving examples with NaN or infinite logits at a point that was tried",
        explanation="Logits were finite wherever a survivor was attacked."
        if passed
        else f"Of {count} surviving {plural(count, 'example', 'examples')} logits were NaN or infinite at a point "
        "inside the ball: a defect of the network (a log of 0, a division by 0?), which no attack may count as success "
        "and no survivor as an answer.",
        decisive=True,
        role=None if passed else "open",
    )


def in_company(subject: Subject, facts: Preflight, final: Judgement) -> list[Control]:
    """Whether who asks in a batch breaks what nobody breaks alone; nothing where batches change no answer.

    Every image of such a network is judged alone, as the report says. Where it is deployed in batches, the adversary
    is answered in one.
    """
    early = facts.early
    other_adversary = subject.outside or subject.threat.goal == "targeted"
    if not facts.batch_dependent or subject.random or other_adversary or not len(early.broken):
        return []
    kept = final.failure_rate[early.rows.to(final.failure_rate.device)] < 0.5
    count = int((early.broken.to(kept.device) & kept).sum())
    passed = count < BROKEN_IN_COMPANY
    return [
        Control(
            name="nothing breaks in a batch that holds alone",
            passed=passed,
            value=count / len(early.broken),
            expected="0: share of attacked examples that broke in a batch and survive alone",
            explanation="What broke in a batch breaks alone, too."
            if passed
            else f"Of {len(early.broken)} images that a short attack was run on in one batch, {count} broke there and "
            "survive every attack alone: the answers in a batch are those of another network.",
            decisive=True,
            role=None if passed else "open",
        )
    ]


def consistency(
    subject: Subject,
    standing: Standing,
    naive: Tensor | None,
    clean: Judgement,
    final: Judgement,
    draws: int,
    controlled: Controlled,
) -> Control:
    """The control of that name: the final judgement against every other one of the same examples.

    Of a network without randomness no example may have been broken by a part and count as right in the end. Of a
    random one no part's accuracy may be lower than noise explains. And where the controls broke examples that the
    campaign had missed, those that they did not look at must have followed: else only they are known.

    **Arguments**
    - `naive`: `[examples]`, failure rates under the standard attack; None where its adversary is another.
    - `clean`, `final`: judgements of the images as they came and of the worst points, on `draws` fresh draws.
    """
    known = (
        [Part("images as they came", clean.failure_rate, draws)]
        if subject.threat.goal == "untargeted"
        else []
    )
    # Under a limit on queries each control is an adversary of its own, who had the whole of it.
    known += list(parts(controlled.examined)) if subject.claim.queries is None else []
    if subject.random:
        worst = max(
            ((_beyond_noise(part, final, draws, standing.draws, len(known)), part) for part in known),
            key=lambda found: found[0],
        )
    else:
        known += [Part("what the attacks found when they found it", standing.rate.clamp_min(0), 1)]
        known += [Part("standard attack", naive, 1)] if naive is not None else []
        usual = float(clean.margin_loss.abs().median())
        worst = max(
            ((_missed(part, final, NEGLIGIBLE * usual), part) for part in known), key=lambda found: found[0]
        )
    value, part = worst
    words = "Nothing that any part of the audit broke counts as right."
    if value > 0:
        k = len(part.rates)
        left, kept = 1 - float(part.rates.mean()), 1 - float(final.failure_rate[:k].mean())
        words = (
            f"On the same {k} examples “{part.words}” leaves {left:.1%} and the campaign, which took in its points, "
            f"{kept:.1%}: the network does not answer the same question twice in the same way."
        )
    elif (found := _alone(controlled, final)) is not None:
        value, words = found
    return Control(
        name=NAME,
        passed=value <= 0,
        value=max(0.0, value),
        expected=EXPECTED,
        explanation=words,
        decisive=True,
        role="open" if value > 0 else None,
    )


def _missed(part: Part, final: Judgement, negligible: float) -> float:
    """Share of a part's examples that it broke and that count as right, by more than rounding."""
    k = len(part.rates)
    right = (final.failure_rate[:k] < 0.5) & ~(final.margin_loss[:k] > -negligible)
    return float(((part.rates > 0.5) & right).double().mean())


def _beyond_noise(part: Part, final: Judgement, draws: int, chosen_on: int, comparisons: int) -> float:
    """Accuracy that a part takes off the campaign's, if draws do not explain it; else 0."""
    k = len(part.rates)
    seen, kept = part.rates.double(), final.failure_rate[:k].double()
    pooled = (seen * part.draws + kept * draws + 1) / (part.draws + draws + 2)
    # The campaign's point was chosen among several on a few draws, so that it may be a little less bad than the best.
    each = float((pooled * (1 - pooled)).sum())
    # A network that draws once for a whole batch fails on many examples at once, and their mean varies by more.
    together = 0.0 if final.shared is None else float(final.shared[:k].double().sum())
    error = math.sqrt(max(each, together) * (1 / part.draws + 1 / draws + 1 / chosen_on)) / k
    gap = float((seen - kept).mean())
    return gap if gap > norm.isf(ALARM / max(1, comparisons)) * error else 0.0


def _alone(controlled: Controlled, final: Judgement) -> tuple[float, str] | None:
    """A part that broke its own examples and helped against no others: how many more it broke, and a sentence."""
    few, first = controlled.few, controlled.at_first
    broken = final.failure_rate > 0.5
    if (
        controlled.ahead
        and (gap := _did_not_follow(torch.arange(len(broken)) < few, broken.cpu())) is not None
    ):
        return gap, (
            f"The controls broke what the campaign had left, but only of the {few} examples on which they ran: "
            f"{gap:.1%} more of these are broken than of the others."
        )
    chosen = torch.isin(torch.arange(len(broken)), first.cpu())
    if len(first) and (gap := _did_not_follow(chosen, broken.cpu())) is not None:
        return gap, (
            f"Of the {len(first)} examples on which an attack of a few steps ran before anything else, {gap:.1%} more "
            "are broken than of the others, on which the whole campaign ran: the network no longer answers as it did."
        )
    return None


def _did_not_follow(chosen: Tensor, broken: Tensor) -> float | None:
    """How many more of the chosen examples are broken than of the others, if chance does not explain it."""
    first, rest = broken[chosen], broken[~chosen]
    if not len(rest):
        return None
    table = [[int(first.sum()), int((~first).sum())], [int(rest.sum()), int((~rest).sum())]]
    test = fisher_exact(table, alternative="greater")
    gap = float(first.double().mean() - rest.double().mean())
    return gap if float(test.pvalue) < ALARM else None  # type: ignore[attr-defined]
