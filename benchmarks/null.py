"""How often a key that a suspect never met looks like it was met: P(p <= a) over many random keys on one suspect.

    python benchmarks/null.py RUN SUSPECT [--keys 100000] [--json]

RUN is an owner's run folder; SUSPECT any run folder. The suspect is asked once; then every mark's key is drawn
anew from fresh random secrets, all else equal, and the exact p-value is computed for each. With SUSPECT = RUN
this is the marked model itself under wrong keys.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch

from wootz.models import read_model
from wootz.ownership import DirectionKey, HalfKey, LabelKey, fresh_secret, read_keys
from wootz.ownership.prf import half, integers
from wootz.stages.verify import open_panel
from wootz.verify import predictor
from wootz.verify.answers import labels_of
from wootz.verify.evidence import leaning
from wootz.verify.exact import binomial_tail, cosine_tail, hypergeometric_tail

LEVELS = (0.05, 0.01, 0.001, 0.0001)


def labels(key: LabelKey, said: torch.Tensor, keys: int) -> np.ndarray:
    """New labels for the same images, drawn as the key draws them."""
    differs, tails = said != key.base, {}
    trials = int(differs.sum()) if key.rule == "wrong" else len(said)
    chance = 1 / (key.num_classes - 1) if key.rule == "wrong" else 1 / key.num_classes
    found = np.empty(keys)
    for number in range(keys):
        if key.rule == "wrong":
            drawn = (key.base + 1 + integers(fresh_secret(), b"null", len(said), key.num_classes - 1)) % key.num_classes
        else:
            drawn = integers(fresh_secret(), b"null", len(said), key.num_classes)
        hits = int((drawn == said).sum())
        found[number] = tails.setdefault(hits, binomial_tail(hits, trials, chance))
    return found


def directions(key: DirectionKey, v: torch.Tensor, keys: int) -> np.ndarray:
    """New directions, isotropic in the same subspace: Gaussian, centered over the wrong classes."""
    stream = torch.Generator().manual_seed(int.from_bytes(fresh_secret()[:7], "big"))
    own = torch.eye(key.num_classes).unsqueeze(2)
    v = (v / v.norm()).float()
    found = np.empty(keys)
    for start in range(0, keys, 500):
        count = min(500, keys - start)
        w = torch.randn(count, *v.shape, generator=stream) * (1 - own)
        w = (w - w.sum(2, keepdim=True) / (key.num_classes - 1)) * (1 - own)
        cosines = (w * v).flatten(1).sum(1) / w.flatten(1).norm(dim=1)
        found[start : start + count] = [cosine_tail(float(c), key.dimensions) for c in cosines]
    return found


def halves(key: HalfKey, right: torch.Tensor, keys: int) -> np.ndarray:
    """New halves of the same candidates."""
    total, drawn, tails, found = len(right), int(right.sum()), {}, np.empty(keys)
    for number in range(keys):
        hits = int((right & half(fresh_secret(), b"null", total)).sum())
        found[number] = tails.setdefault(hits, hypergeometric_tail(hits, drawn, total // 2, total))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("suspect", type=Path)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    predict, panel = predictor(read_model(args.suspect)[0]), open_panel(args.run)
    results = {}
    for name, key in read_keys(args.run).keys.items():
        if isinstance(key, LabelKey):
            found = labels(key, labels_of(predict, key.pixels), args.keys)
        elif isinstance(key, DirectionKey):
            found = directions(key, leaning(key, predict, panel, len(key.probe_labels)).v, args.keys)
        else:
            found = halves(key, labels_of(predict, key.pixels) == key.labels, args.keys)
        results[name] = {str(a): float((found <= math.log(a) + 1e-12).mean()) for a in LEVELS}
    if args.json:
        print(json.dumps({"keys": args.keys, "suspect": args.suspect.name, "share": results}))
        return
    for name, shares in results.items():
        print(f"{args.suspect.name}, {name}, {args.keys:,} keys")
        for a in LEVELS:
            bound = a + 3 * math.sqrt(a * (1 - a) / args.keys)
            share = shares[str(a)]
            print(f"  P(p <= {a:g}) = {share:.5f}  (bound {bound:.5f}) {'ok' if share <= bound else 'ABOVE'}")


if __name__ == "__main__":
    main()
