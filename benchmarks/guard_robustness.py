"""Measure the robust accuracy of the guard's answers in the worst case.

    python benchmarks/guard_robustness.py RUN [--cost 0.005 ...] [-n 1000] [--json]

RUN is a run folder with the mark `runner-up`, whose probe images set the uncertainty threshold as a server does.
PGD-40 x 2 maximizes the margin loss of each test image. `model`: fraction of images that the model still classifies
correctly. `served`: fraction whose true class stays ahead by more than the threshold, so that the guard does not change
the answer; this is what remains if the attacker retries until the keyed choice favours the attack. With one try, the
attacker gains half of the difference on average.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from torch import Tensor

from wootz.attacks.evasion import PGD, margin, pgd, predict_logits
from wootz.keys import DirectionKey, read_keys
from wootz.rng import generator
from wootz.watermarks.answer_filter import CalibrationScores, uncertainty_threshold
from wootz.watermarks.guard import Guard
from wootz.workflows.run import open_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--cost", type=float, nargs="+", default=[Guard().cost])
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    run = open_run(args.run)
    data = run.data(None)
    key = next(key for key in read_keys(args.run).by_mark.values() if isinstance(key, DirectionKey))
    ordinary = CalibrationScores(predict_logits(run.model, key.probes.float().div(255)), key.probe_labels)
    x, y = data.test.images()[: args.n], data.test.labels[: args.n]
    attack = PGD(eps=run.eps, steps=40, restarts=2)
    worst = pgd(attack, run.model, x, y, generator=generator(0, "guard"), objective=margin)
    ahead = -margin(predict_logits(run.model, worst), y)
    for cost in args.cost:
        gap = uncertainty_threshold(ordinary, cost, Guard().most)
        row = {
            "cost": cost,
            "gap": round(gap, 3),
            "model": fraction(ahead > 0),
            "served": fraction(ahead > max(gap, 0)),
        }
        print(json.dumps(row) if args.json else "  ".join(f"{name} {value}" for name, value in row.items()))


def fraction(correct: Tensor) -> float:
    return round(float(correct.float().mean()), 4)


if __name__ == "__main__":
    main()
