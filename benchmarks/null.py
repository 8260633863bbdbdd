"""Monte Carlo check of the null distributions: P(p <= a) over many random keys, on the answers of one suspect.

    python benchmarks/null.py RUN SUSPECT [--keys 1000000] [--guard-log LOG] [--json]

RUN is an owner's run folder; SUSPECT any run folder. The suspect is queried once; then each mark's key is drawn
many times, all else equal, and the exact p-value is computed for each; for keyed labels also that of the e-process
under optional stopping; by scores and by labels if a mark can be tested both ways. With SUSPECT = RUN this is the
marked model itself under wrong keys. LOG is the guard's log of an extraction, as `wootz steal --served` writes it.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np

from wootz.keys import DirectionKey, HalfKey, LabelKey, PreferenceKey, read_keys
from wootz.models import read_model
from wootz.statistics import SuspectAccess, null
from wootz.statistics.direction_estimate import estimate_direction
from wootz.statistics.pairwise_preferences import preference_residuals, query_preferences
from wootz.statistics.queries import query_labels
from wootz.statistics.wrong_class_ranks import query_wrong_classes, wrong_class_residuals
from wootz.suspects.files import predictor
from wootz.workflows.guard_log import with_log
from wootz.workflows.owner import Owner

LEVELS = (0.05, 0.01, 0.001, 0.0001)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("suspect", type=Path)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--guard-log", type=Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    predict, (panel, boundary_search) = predictor(read_model(args.suspect)[0]), Owner.load(args.run).reference_models
    stream = np.random.default_rng()
    accesses = {"scores": SuspectAccess("scores"), "labels": SuspectAccess("label")}
    accesses |= (
        {"walks": SuspectAccess("label", boundary_search=boundary_search)} if boundary_search is not None else {}
    )
    results = {}
    keys = read_keys(args.run).by_mark
    for name, key in (with_log(keys, args.guard_log) if args.guard_log else keys).items():
        if isinstance(key, LabelKey):
            said = query_labels(predict, key.pixels)
            results[f"{name}, answers"] = shares(null.label_null(key, said, args.keys, stream))
            results[f"{name}, e-process"] = shares(null.sequential_null(key, said, args.keys, stream))
            for how, access in accesses.items():
                if (wrong := query_wrong_classes(key, predict, access).scores) is not None:
                    left = wrong_class_residuals(key, wrong, panel)
                    results[f"{name}, {how}"] = shares(null.rank_null(key, left, args.keys, stream))
        elif isinstance(key, DirectionKey):
            for how, access in accesses.items():
                if (found := estimate_direction(key, predict, panel, access)) is not None:
                    results[f"{name}, {how}"] = shares(null.direction_null(key, found.v, args.keys, stream))
        elif isinstance(key, PreferenceKey):
            for how, access in accesses.items():
                left = preference_residuals(key, query_preferences(key, predict, access).preferences, panel)
                results[f"{name}, {how}"] = shares(null.preference_null(left, args.keys, stream))
        elif isinstance(key, HalfKey):
            right = query_labels(predict, key.pixels) == key.labels
            results[name] = shares(null.half_null(key, right, args.keys, stream))
    if args.json:
        print(json.dumps({"keys": args.keys, "suspect": args.suspect.name, "share": results}))
        return
    for name, found in results.items():
        print(f"{args.suspect.name}, {name}, {args.keys:,} keys")
        for a in LEVELS:
            bound = a + 3 * math.sqrt(a * (1 - a) / args.keys)
            print(f"  P(p <= {a:g}) = {found[str(a)]:.6f}  (bound {bound:.6f}) {verdict(found[str(a)], bound)}")


def shares(log_p: null.Logs) -> dict[str, float]:
    return {str(a): float((log_p <= math.log(a) + 1e-12).mean()) for a in LEVELS}


def verdict(share: float, bound: float) -> str:
    return "ok" if share <= bound else "ABOVE"


if __name__ == "__main__":
    main()
