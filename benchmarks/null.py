"""How often a key that a suspect never met looks like it was met: P(p <= a) over many random keys on one suspect.

    python benchmarks/null.py RUN SUSPECT [--keys 1000000] [--guard-log LOG] [--json]

RUN is an owner's run folder; SUSPECT any run folder. The suspect is asked once; then every mark's key is drawn
anew, all else equal, and the exact p-value is computed for each; for keyed labels the e-process too, which may stop
whenever it likes; by scores and by labels where a mark can be tested both ways. With SUSPECT = RUN this is the marked
model itself under wrong keys. LOG is of a theft through the guard, such as `wootz steal --served` leaves.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np

from wootz.keys import DirectionKey, HalfKey, LabelKey, PreferenceKey, read_keys
from wootz.models import read_model
from wootz.statistics import Reach, null, predictor
from wootz.statistics.answers import labels_of
from wootz.statistics.leaning import leaning
from wootz.statistics.orders import leanings, unforeseen
from wootz.statistics.wrong_classes import opinions, unforeseen_opinions
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
    reaches = {"scores": Reach("scores"), "labels": Reach("label")}
    reaches |= {"walks": Reach("label", boundary_search=boundary_search)} if boundary_search is not None else {}
    results = {}
    keys = read_keys(args.run).keys
    for name, key in (with_log(keys, args.guard_log) if args.guard_log else keys).items():
        if isinstance(key, LabelKey):
            said = labels_of(predict, key.pixels)
            results[f"{name}, answers"] = shares(null.label_null(key, said, args.keys, stream))
            results[f"{name}, e-process"] = shares(null.early_null(key, said, args.keys, stream))
            for how, reach in reaches.items():
                if (wrong := opinions(key, predict, reach).wrong) is not None:
                    left = unforeseen_opinions(key, wrong, panel)
                    results[f"{name}, {how}"] = shares(null.places_null(key, left, args.keys, stream))
        elif isinstance(key, DirectionKey):
            for how, reach in reaches.items():
                if (found := leaning(key, predict, panel, reach)) is not None:
                    results[f"{name}, {how}"] = shares(null.direction_null(key, found.v, args.keys, stream))
        elif isinstance(key, PreferenceKey):
            for how, reach in reaches.items():
                left = unforeseen(key, leanings(key, predict, reach).far, panel)
                results[f"{name}, {how}"] = shares(null.order_null(left, args.keys, stream))
        elif isinstance(key, HalfKey):
            right = labels_of(predict, key.pixels) == key.labels
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
