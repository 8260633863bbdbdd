"""Train independent models, and test each against the key of a run, with every mark and all answers.

    python benchmarks/independents.py RUN [--count 60] [--first-seed 1000] [--json]

Half are adversarially trained (N-FGSM), half plain, every other one of another architecture; all of them are
trained on the owner's own training images, the hardest case. Prints accuracy and bits of each; none should come near
the bar.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import NamedTuple

from wootz.attacks.evasion import predict_logits
from wootz.data import load
from wootz.keys import read_keys
from wootz.models import ModelSpec, build
from wootz.statistics import verify
from wootz.suspects.files import predictor
from wootz.training import Recipe, train
from wootz.workflows.guard_log import with_guard
from wootz.workflows.owner import Owner
from wootz.workflows.run import open_run


class Kind(NamedTuple):
    """How an independent model is trained."""

    name: str
    architecture: str
    settings: dict[str, object]
    loss: str
    epochs: int


KINDS = (
    Kind("robust", "small-cnn", {"width": 16}, "n-fgsm", 3),
    Kind("plain", "small-cnn", {"width": 16}, "natural", 2),
    Kind("robust, other", "small-cnn", {"width": 24, "hidden": 64}, "n-fgsm", 3),
    Kind("plain, other", "paper-cnn", {}, "natural", 1),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    for noisy in ("lightning_fabric", "lightning.fabric"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    owner, owner_keys = open_run(args.run), read_keys(args.run)
    keys, panel = with_guard(owner_keys.by_mark, args.run), Owner.load(args.run).reference_models.answers
    data = load(owner.about["data"])
    test = data.test.images()
    highest: dict[str, float] = {}
    for number in range(args.count):
        kind, seed = KINDS[number % len(KINDS)], args.first_seed + number
        spec = ModelSpec(architecture=kind.architecture, settings=kind.settings, shape=data.shape, classes=data.classes)
        recipe = Recipe(loss=kind.loss, eps=owner.eps, steps=1, epochs=kind.epochs, lr=3e-3)
        model = train(recipe, build(spec, seed), data.train, data.validation, seed=seed).model
        clean = float((predict_logits(model, test).argmax(1) == data.test.labels).float().mean())
        found = verify(keys, predictor(model), panel=panel)
        bits = {item.mark: round(item.bits, 2) for item in found.evidence} | {"all": round(found.bits, 2)}
        highest = {mark: max(highest.get(mark, 0.0), value) for mark, value in bits.items()}
        row = {"stranger": kind.name, "seed": seed, "clean": round(clean, 4), "bits": bits, "verdict": found.outcome}
        print(json.dumps(row) if args.json else f"{kind.name:14s} {clean:.3f} {found.outcome:14s} {bits}", flush=True)
    if not args.json:
        print(f"{args.count} independent models, highest bits: {highest}")


if __name__ == "__main__":
    main()
