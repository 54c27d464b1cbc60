"""A claim as an assertion, for the test suite of the network it is about."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .attacks import Attack
from .audit.records import Report
from .audit.run import audit
from .claim.claim import Claim, claim_about
from .claim.target_classes import load_for
from .classifier import Classifier, Network
from .data import Data, check
from .data.sample import mixed
from .errors import UnusableInput
from .report import words
from .report.html import place, write_html
from .report.json import write_json
from .target.target import Target, load_target
from .threat import ThreatModel


def assert_claim(
    model: str | Target | Classifier | nn.Module | Network,
    data: str | Data | tuple[Tensor, Tensor],
    threat: ThreatModel,
    *,
    at_least: float,
    examples: int | None = None,
    out: str | os.PathLike[str] | None = None,
    attacks: Sequence[Attack] = (),
    **options: Any,
) -> Report:
    """Audits and fails unless at least this share of the examples survives every attack tried.

    The assertion is about these very examples, so it compares the measured accuracy itself: it may fail where the
    verdict of an audit, which speaks of the distribution behind them, is still `not_refuted`. It fails too where
    a control shows that the attacks prove nothing (`inconclusive`).

    **Arguments**
    - `model`: a network (input `[0, 1]` NCHW float32, output logits), a `Classifier`, or `file.py:callable`;
      only for the last can the failure message give a command that repeats the audit.
    - `data`: what `unmask.data.load` takes, a `Data`, or `(x, y)`.
    - `examples`: how many are attacked, all by default: of a set's name a random sample by `seed`, stratified by class,
      as `unmask audit` takes; else the first, or by lot where they come by class.
    - `at_least`: accuracy under attack, in [0, 1].
    - `out`: folder for report and evidence. Without it they are written to a folder of their own, which is removed
      if the assertion holds and named in the message if it fails.
    - `attacks`: of your own, run beside the audit's.
    - `options`: the other fields of `unmask.claim.claim.Claim`, such as `passes`, `budget` or `seed`.

    **Raises** `AssertionError` with the verdict, the accuracy and its interval, the masked line, and how to
    reproduce it; `UnusableInput` or `ModelFailed` with one line where nothing can be audited.
    """
    __tracebackhide__ = True  # pytest shows the caller's line, not ours
    if not 0 <= at_least <= 1:
        raise UnusableInput(f"at_least is {at_least}; give an accuracy between 0 and 1")
    claim = claim_about(threat, claim=at_least, **options)
    target = load_target(model) if isinstance(model, str) else model
    chosen = _data(data, examples, claim)
    folder = Path(tempfile.mkdtemp(prefix="unmask-") if out is None else out)
    try:
        report = audit(target, chosen, claim, out=folder, attacks=attacks)
    except BaseException:
        if out is None:
            shutil.rmtree(folder)
        raise
    write_json(folder, report)
    write_html(folder, report)
    if report.robust_accuracy < at_least or report.verdict == "inconclusive":
        raise AssertionError(_message(report, folder, again=isinstance(model, str | Target)))
    if out is None:
        shutil.rmtree(folder)
    return report


def _data(data: str | Data | tuple[Tensor, Tensor], examples: int | None, claim: Claim) -> Data:
    if isinstance(data, str):
        return load_for(
            claim.targets, data, split=None, examples=examples, seed=claim.seed, allow_pickle=False
        )
    if not isinstance(data, Data):
        x, y, notes, box = check(*data, name="the data")
        data = Data(x, y, "tensors", "", torch.arange(len(x)), notes=notes, box=box)
    if examples is None:
        return data
    if not 1 <= examples <= len(data):
        raise UnusableInput(
            f"examples is {examples}; give a number from 1 to {len(data)}, as many as there are"
        )
    return data[mixed(data.y)[:examples]]


def _message(report: Report, folder: Path, *, again: bool) -> str:
    lines = [f"{words.headline(report)}: {words.verdict_sentence(report)}"]
    if (
        report.verdict == "not_refuted"
    ):  # fewer examples than claimed survive, though the interval reaches the claim
        measured, claimed = words.percent(report.robust_accuracy), words.percent(report.claim)
        lines = [
            f"At most {measured} of these {report.examples} examples survive, at least {claimed} were claimed."
        ]
        low, high = report.robust_accuracy_interval
        lines.append(f"95 % interval for other examples: {words.percent(low)} to {words.percent(high)}")
    lines.append(f"clean accuracy {words.percent(report.clean_accuracy)}. {words.naive_sentence(report)}")
    for finding in report.masking:
        operation = f" · {finding.operation}" if finding.operation else ""
        lines.append(f"masked: {words.MECHANISMS[finding.mechanism].lower()}{operation} · {place(finding)}")
        lines += [f"    {finding.code.strip()}"] if finding.code else []
    lines.append(f"report: {folder / 'report.html'}")
    if again:
        lines += [f"again:  {command}" for command in words.reproduce_commands(report, "DIR")[:1]]
        lines.append(f"check:  unmask verify {folder}")
    else:
        seed, size = report.environment.seed, report.environment.batch_size
        lines.append(f"again:  the same call; seed {seed}, batch size {size}, budget {report.budget}")
        lines.append(f"check:  unmask verify {folder} --target file.py:callable --data DATA")
    return "\n".join(lines)
