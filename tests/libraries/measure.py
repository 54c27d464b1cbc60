"""Measures networks of libraries: `python -m tests.libraries.measure [NAME ...]`, from the repository's root.

Prints a row of `docs/libraries.md` for each: library and version, network, clean and naive accuracy, what the attack by
hand and the audit at `quick` leave of `Case.images` digits in L-inf 0.1, the line that the audit names first, forwards,
seconds.
"""

import argparse
import time
import warnings
from dataclasses import dataclass
from importlib.metadata import version

import torch
from tests.libraries.by_hand import hand
from tests.libraries.cases import Case, cases
from tests.libraries.digits import held_out

import unmask
from unmask.audit.records import Report
from unmask.target.target import load_target

EPSILON = 0.1


@dataclass(frozen=True)
class Measured:
    """What attack by hand and audit leave, as shares of the images; and the audit's report."""

    by_hand: float
    report: Report
    seconds: float

    @property
    def misled(self) -> float:
        """By how much the exact gradient is left behind."""
        naive = self.report.naive_robust_accuracy
        return (self.report.clean_accuracy if naive is None else naive) - self.report.robust_accuracy

    def row(self, case: Case) -> str:
        report = self.report
        named = [f"{f.mechanism}: `{(f.code or '').split('# guilty')[0].strip()}`" for f in report.masking]
        name = case.name if case.images == 50 else f"{case.name} ({case.images} images)"
        figures = (report.clean_accuracy, report.naive_robust_accuracy, self.by_hand, report.robust_accuracy)
        return (
            f"| {case.library} {version(case.library).split('+')[0]} | {name} | "
            + " | ".join(f"{100 * v:.1f}" for v in figures if v is not None)
            + f" | {'; '.join(named) or 'nothing'} | {report.cost.forwards:,} | {self.seconds:.0f} |"
        )


def measured(case: Case) -> Measured:
    """Builds the network as the command line does, and runs both attacks on the same images."""
    torch.set_num_threads(1)
    x, y = held_out(case.images)
    target = load_target(case.target)
    left, _ = hand(target.network, case.ways(target.network), x, y, EPSILON, random=case.random)
    target = load_target(case.target)  # as nobody has asked it: some keep what they have seen
    start = time.perf_counter()
    report = unmask.audit(target, x, y, norm="linf", epsilon=EPSILON, budget="quick")  # pyright: ignore
    return Measured(left, report, time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for case in cases():
        if not options.names or case.name in options.names:
            print(measured(case).row(case), flush=True)


if __name__ == "__main__":
    main()
