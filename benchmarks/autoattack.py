"""Robust accuracy by our ensemble and by the reference AutoAttack, on the same images, and how much faster ours is.

    python benchmarks/autoattack.py [RUN ...] [-n 1000] [--models runs/autoattack] [--json]

Without a run folder, an unmarked model is adversarially trained with the preset `fast` on MNIST and on
Fashion-MNIST (minutes each on two cores) and kept under `--models` for the next time. Ours runs before and after the
reference and its mean time counts, so that a machine that slows down favours nobody. `ratio` is the reference's
time over ours. Both run in float32 with batches of up to 1,000 images.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from wootz.attacks.evasion import Robustness, evaluate
from wootz.config import with_settings
from wootz.data import load
from wootz.workflows.protect import protect_run
from wootz.workflows.protection import preset
from wootz.workflows.run import Run, open_run

DATA = ("mnist", "fashion-mnist")


def trained(name: str, folder: Path) -> Path:
    """Return the run folder of an unmarked robust model, trained where it is not there yet."""
    out = folder / name
    if not (out / "record.json").exists():
        base = preset("fast", data=name, eps=None, wm_eps=None, seed=0, count=len(load(name).train))
        protect_run(with_settings(base, ["marks="]), out, resume=True)
    return out


def timed(run: Run, x: torch.Tensor, y: torch.Tensor, attack: str) -> tuple[Robustness, float]:
    start = time.perf_counter()
    found = evaluate(run.model, x, y, eps=run.eps, attack=attack, batch_size=1000)
    return found, time.perf_counter() - start


def compare(run: Run, count: int) -> dict[str, Any]:
    test = run.data(None).test.subset(slice(count))
    x, y = test.images(), test.labels
    ours, before = timed(run, x, y, "ensemble")
    reference, theirs = timed(run, x, y, "autoattack")
    _, after = timed(run, x, y, "ensemble")
    return {
        "data": run.about["data"],
        "eps": run.eps,
        "n": len(test),
        "clean": ours.clean,
        "ours": ours.accuracy,
        "reference": reference.accuracy,
        "difference": ours.accuracy - reference.accuracy,
        "apart": int((ours.robust != reference.robust).sum()),
        "seconds": {"ours": [round(before, 1), round(after, 1)], "reference": round(theirs, 1)},
        "ratio": round(theirs / ((before + after) / 2), 2),
        "fallen": dict(ours.fallen),
        "flags": {"ours": ours.flags, "reference": reference.flags},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--models", type=Path, default=Path("runs/autoattack"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = [compare(open_run(folder), args.n) for folder in args.runs or [trained(name, args.models) for name in DATA]]
    if args.json:
        print(json.dumps(found))
        return
    for row in found:
        print(
            f"{row['data']}, eps {row['eps']:g}, {row['n']} images: clean {row['clean']:.2%}, robust by ours "
            f"{row['ours']:.2%}, by the reference {row['reference']:.2%} (difference {100 * row['difference']:+.2f} "
            f"points, {row['apart']} apart); seconds {row['seconds']}, ratio {row['ratio']}; fell {row['fallen']}"
        )


if __name__ == "__main__":
    main()
