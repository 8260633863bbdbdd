"""Measure how many answers the sequential test needs to reach the bar.

    python benchmarks/early.py [--suspects 4000] [--seed 1] [--json]

Each simulated suspect answers triggers with their keyed labels at a fixed rate; every answer counts as a trial.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from wootz.statistics.sequential import run_sequential_test

RATES = ((0.9, 1 / 10), (0.9, 1 / 9), (0.95, 1 / 9), (0.7, 1 / 9), (0.5, 1 / 9))
"""Hit rate of the suspect, and by chance."""
BARS = (40, 80)
MOST = 1000


def asked(rate: float, chance: float, bar: float, suspects: int, seed: int) -> np.ndarray:
    """Return how many answers each suspect, who hits with probability `rate`, gave until `bar` bits: int [suspects]."""
    hits = np.random.default_rng(seed).random((suspects, MOST)) < rate
    return np.array([run_sequential_test(((True, bool(hit)) for hit in row), chance, bar).queried for row in hits])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suspects", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = []
    for rate, chance in RATES:
        for bar in BARS:
            median, high = np.quantile(asked(rate, chance, bar, args.suspects, args.seed), [0.5, 0.95])
            rows.append({"rate": rate, "chance": chance, "bar": bar, "median": float(median), "q95": float(high)})
    if args.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print("hit rate {rate}, chance {chance:.3f}, {bar} bits: median {median:.0f}, 95% {q95:.0f}".format(**row))


if __name__ == "__main__":
    main()
