"""What triggers of a design cost, and what removal leaves of them: marks a trained model, beside another run of this.

    python benchmarks/blending_cost.py BASE OUT [--design none|pgd|splice] [--beside OTHER] [--epochs 2] [--lr 2e-3]
        [--weight 0.2] [--every 1] [--batch 48]

BASE is the run folder of an unmarked model, which is trained on with the mark `triggers`, its base images and labels
always drawn from the same secret. OUT becomes a run folder that `blending.py` reads. OTHER is an OUT of another
design: both models answer the same images, so that differences are paired.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from blending import make
from torch import Tensor, nn

from wootz.attacks.context import AttackContext
from wootz.attacks.evasion import PGD, pgd, predict_logits
from wootz.attacks.removal import ATTACKS
from wootz.data import Dataset, load
from wootz.keys import Key, RegisteredMaterial, draw_keys, write_keys
from wootz.models import build, read_model, write_model
from wootz.rng import generator
from wootz.statistics import verify
from wootz.store import read_json, write_json
from wootz.suspects.files import predictor
from wootz.training import Execution, train
from wootz.types import Predict
from wootz.watermarks import MarkContext, Triggers, hook_of
from wootz.watermarks.triggers import prepare
from wootz.workflows.owner import make_references
from wootz.workflows.protection import ReferenceConfig, preset

SECRET = b"\x5e" * 32
WM_EPS = {"pgd": None, "splice": 0.998}
REMOVALS = (("prune", {"sparsity": 0.5}), ("prune", {"sparsity": 0.8}), ("finetune", {"epochs": 3}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--design", choices=("none", "pgd", "splice"), default="pgd")
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--weight", type=float, default=0.2)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("-n", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    base, spec, about = read_model(args.base)
    data, eps, execution = load(about["data"]), float(about["eps"]), Execution()
    wm_eps = WM_EPS.get(args.design)
    cfg = preset("fast", data=data.name, eps=eps, wm_eps=wm_eps, seed=1, count=len(data.train) + len(data.probes))
    cfg = replace(cfg, panel=ReferenceConfig(robust_epochs=4, plain_epochs=2))
    recipe = replace(cfg.recipe, epochs=args.epochs, lr=args.lr, ramp=0.0, warmup=0.1)
    panel = make_references(cfg, data, args.out / "panel", execution=execution, progress=lambda *_: None)
    settings, owner_keys, hook = Triggers(weight=args.weight, every=args.every, batch=args.batch), None, None
    if args.design != "none":
        mark_context = MarkContext(data=data, panel=tuple(panel), model=base, eps=eps, wm_eps=cfg.wm_eps)
        material = prepare(settings, mark_context, generator(0, "pick"))
        if args.design == "splice":
            material = spliced(material, settings, mark_context)
        owner_keys = draw_keys(
            SECRET,
            {"triggers": material},
            classes=data.classes,
            shape=data.shape,
            panel=[],
            owner="",
            boundary_search=None,
        )
        hook = hook_of({"triggers": settings}, owner_keys.by_mark, data, seed=2)
        write_keys(args.out, owner_keys)
    model = train(recipe, base, data.train, data.validation, seed=2, hook=hook, execution=execution).model
    write_model(args.out, model, spec, about | {"kind": "protected" if owner_keys else "independent"})
    right = answered_rightly(model, data, eps, args.n)
    write_json(args.out / "right.json", {name: row.int().tolist() for name, row in right.items()})
    print(json.dumps({name: round(100 * float(row.float().mean()), 2) for name, row in right.items()}))
    if args.beside:
        other = read_json(args.beside / "right.json")
        for name, row in right.items():
            gap = 100 * (row.float() - torch.tensor(other[name]).float())
            error = float(gap.std()) / len(gap) ** 0.5
            print(json.dumps({"difference": name, "points": round(float(gap.mean()), 2), "error": round(error, 2)}))
    if owner_keys:
        context = AttackContext(data=data.thief, new_model=lambda _: build(spec, 77), eps=eps, seed=9)
        progress = partial(say, keys=owner_keys.by_mark, panel=[predictor(member) for member in panel], data=data)
        progress("itself", model)
        for name, changes in REMOVALS:
            attack = ATTACKS[name]
            progress(f"{name} {changes}", attack.run(replace(attack.config, **changes), model, context))


def spliced(material: RegisteredMaterial, cfg: Triggers, mark_context: MarkContext) -> RegisteredMaterial:
    """Return the material of `triggers` with spliced images in place of its own."""
    pixels, rows = make("splice", mark_context, cfg.count, alpha=cfg.alpha, generator=generator(0, "pick"))
    base = mark_context.data.train.subset(rows)
    return material._replace(tensors={"pixels": pixels, "base_pixels": base.pixels, "base": base.labels})


def answered_rightly(model: nn.Module, data: Dataset, eps: float, count: int) -> dict[str, Tensor]:
    """Return which test images are answered rightly, all as they are and the first few under PGD-40 x 2."""
    x, y = data.test.images(), data.test.labels
    attack = PGD(eps=eps, steps=40, restarts=2, stop=True)
    worst = pgd(attack, model, x[:count], y[:count], generator=generator(0, "cost"))
    return {
        "clean": predict_logits(model, x).argmax(1) == y,
        "robust": predict_logits(model, worst).argmax(1) == y[:count],
    }


def say(name: str, model: nn.Module, *, keys: Mapping[str, Key], panel: Sequence[Predict], data: Dataset) -> None:
    """Print the bits of a model by scores and by labels, and its clean accuracy."""
    row: dict[str, object] = {"model": name}
    for access in ("scores", "label"):
        row[access] = round(verify(keys, predictor(model), panel=panel, access=access).evidence[0].bits, 1)
    clean = (predict_logits(model, data.test.images()).argmax(1) == data.test.labels).float().mean()
    print(json.dumps(row | {"clean": round(100 * float(clean), 2)}), flush=True)


if __name__ == "__main__":
    main()
