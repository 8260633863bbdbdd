"""Train strangers who never met a run's key, and test each against it.

    python benchmarks/independents.py RUN --out DIR [--rounds 4] [--first-seed 1000] [--json]

A round is three models of their own seeds, on the owner's own training images: adversarially trained (N-FGSM),
plain, and plain of another architecture. Prints each one's bits per mark; none should come near a bar.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from wootz.config import with_settings
from wootz.data import load
from wootz.records import to_json
from wootz.stages.protect import protect
from wootz.stages.protection import preset
from wootz.stages.run import open_run
from wootz.stages.suspects import Asking
from wootz.stages.verify import verify_suspect

STRANGERS = {
    "robust": ("recipe.loss=n-fgsm", "recipe.epochs=8"),
    "plain": ("recipe.loss=natural", "recipe.epochs=3"),
    "other": ("recipe.loss=natural", "recipe.epochs=3", "model=paper-cnn"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    owner = open_run(args.run)
    name, eps = owner.about["data"], owner.eps
    base = preset("fast", data=name, eps=eps, wm_eps=None, seed=0, count=len(load(name).train))
    worst: dict[str, float] = {}
    for number in range(args.rounds):
        for kind, settings in STRANGERS.items():
            seed = args.first_seed + 10 * number
            place = args.out / f"{kind}-{seed}"
            protect(with_settings(base, ("marks=", f"seed={seed}", *settings)), place)
            cell = verify_suspect(args.run, place, Asking(isolated=False))
            found = {item.mark: item.bits for item in cell.evidence}
            worst = {mark: max(worst.get(mark, 0.0), value) for mark, value in found.items()}
            if args.json:
                print(json.dumps(to_json(cell)), flush=True)
            else:
                print(f"{place.name:16s} {cell.verdict:14s} {found}", flush=True)
    if not args.json:
        print(f"{3 * args.rounds} strangers, most bits: {worst}")


if __name__ == "__main__":
    main()
