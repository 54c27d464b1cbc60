"""Audits other people's trained networks and prints their published and measured figures beside ours.

    UNMASK_DATA=../shared/data python benchmarks/known_networks.py --examples 100 --json results.json

Networks and data are found through the environment variable UNMASK_DATA; `networks.py` is expected in `../models`
beside that folder. Without them it says so and stops.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from other_networks import data_folder, load_network

from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.data import load
from unmask.threat import Linf

# name, epsilon, what it is, published accuracy under attack, accuracy left by FGSM / PGD-50 / margin-PGD on the first
# 100 images (as the networks' own README measured it).
NETWORKS = [
    ("mnist_pgd", 0.3, "adversarially trained", "-", "AutoAttack 232/256 = 90.6"),
    ("mnist_fast_pgd", 0.3, "adversarially trained", "PGD-50-10: 89.9", "97/89/89"),
    ("mnist_lenet5", 0.1, "undefended", "FGSM 79.5, PGD-20 33.7, AutoAttack 20.0", "80/21/21"),
    ("mnist_label_smoothing", 0.1, "label smoothing", "FGSM 92.0, PGD-20 69.8, CW 61.5", "95/53/41"),
    ("mnist_distilled", 0.3, "defensive distillation", "-", "100/99/0"),
    ("mnist_magnet", 0.3, "MagNet reformer", "broken by Carlini & Wagner 2017", "74/2/0"),
    ("mnist_wong_kolter", 0.1, "certified", "PGD error 4.1, certified error 5.8", "97/96/96"),
    ("mnist_ibp", 0.3, "certified by intervals", "-", "97/96/96"),
    ("mnist_fc_20", 0.1, "undefended", "-", "67/66/61"),
    ("mnist_fc_50x2", 0.1, "undefended", "-", "14/5/4"),
    ("mnist_fc_256x2", 0.1, "undefended", "-", "31/9/6"),
    ("mnist_sigmoid_6x200", 0.1, "undefended", "-", "74/8/6"),
    ("cifar10_resnet20", 1 / 255, "undefended", "-", "48/16/16"),
    ("cifar10_resnet2b", 2 / 255, "adversarially trained", "PGD 54.8", "63/62/60"),
    ("cifar10_sdp_mix4", 2 / 255, "adversarially trained", "-", "64/64/61"),
    ("cifar10_wong_kolter_8px", 8 / 255, "certified", "cascade's certified error 71.7", "37/36/33"),
]


def percent(value):
    return "-" if value is None else f"{100 * value:.1f}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--budget", default="standard")
    parser.add_argument("--only", nargs="*", help="names of networks")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    data_folder()
    rows = []
    columns = "network|kind|eps|published|FGSM/PGD/margin|clean|naive|ours|certified|masking|verdict|s".split(
        "|"
    )
    print(f"| {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for name, epsilon, kind, published, measured in NETWORKS:
        if options.only and name not in options.only:
            continue
        data = load(name.split("_")[0], examples=options.examples)
        began = time.perf_counter()
        with torch.random.fork_rng():
            report = audit(
                load_network(name), data, claim_about(Linf(epsilon=epsilon), budget=options.budget)
            )
        seconds = time.perf_counter() - began
        named = ", ".join(sorted({f"{m.mechanism} ({m.operation})" for m in report.masking})) or "none"
        low, high = report.robust_accuracy_interval
        rows.append(json.loads(report.to_json()) | {"network": name, "seconds": seconds})
        print(
            f"| `{name}` | {kind} | {epsilon:.4g} | {published} | {measured} | {percent(report.clean_accuracy)} "
            f"| {percent(report.naive_robust_accuracy)} | **{percent(report.robust_accuracy)}** "
            f"[{percent(low)}, {percent(high)}] | {percent(report.certified_accuracy)} | {named} | {report.verdict} "
            f"| {seconds:.0f} |",
            flush=True,
        )
        if options.json:
            for row in rows:
                row.pop("images", None)
            options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
