"""Compare settings of `protect` on images that the owner does not train on and that are not the test images.

    python benchmarks/tune.py DATA CANDIDATE ... [--preset NAME] [--eps EPS] [--seeds N ...]
        [--at EPS] [--evaluations NAME ...] [--images N] [--threads N]

Each CANDIDATE is settings as of `wootz protect --set`, separated by spaces; "marks=" is the unmarked model, "" the
preset as it is, but for the guard, which is not in the weights. For each seed and candidate, a line of
JSON holds training seconds, the epoch kept, clean accuracy and that under each evaluation, at the budget `--at` (the
candidate's own where none is named), on the first `--images` of the thief's share, bits of each mark on the model
itself, after pruning 80% and after fine-tuning. Parameters are chosen here, never on test images.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import nn

from wootz.attacks.context import AttackContext
from wootz.attacks.evasion import evaluate
from wootz.attacks.removal.finetune import LayerFinetune, finetune_layers
from wootz.attacks.removal.pruning import Prune, prune
from wootz.config import with_settings
from wootz.data import Dataset, Split, load
from wootz.keys import Key, draw_keys, fresh_secret
from wootz.models import build
from wootz.statistics import verify
from wootz.suspects.files import predictor
from wootz.training import Execution, Trained, train
from wootz.types import Predict
from wootz.watermarks import MarkContext, hook_of, prepare_all, weights_digest
from wootz.workflows.owner import make_references
from wootz.workflows.protection import Protection, preset

divided = cache(load)


@cache
def panel_of(cfg: Protection) -> list[nn.Module]:
    data = divided(cfg.data, None, cfg.set_aside)
    with tempfile.TemporaryDirectory() as folder:
        return make_references(cfg, data, Path(folder), execution=Execution(), progress=lambda *_: None)


def keys_of(cfg: Protection, data: Dataset, panel: list[nn.Module]) -> dict[str, Key]:
    secret = fresh_secret()
    settings = cfg.mark_settings()
    model = build(cfg.spec(data), cfg.seed)
    mark_context = MarkContext(data=data, panel=tuple(panel), model=model, eps=cfg.recipe.eps, wm_eps=cfg.wm_eps)
    materials = prepare_all(settings, mark_context, secret)
    digests = [weights_digest(member) for member in panel]
    return dict(draw_keys(secret, materials, classes=data.classes, shape=data.shape, panel=digests).by_mark)


def trained(cfg: Protection, data: Dataset, keys: dict[str, Key]) -> Trained:
    hook = hook_of(cfg.mark_settings(), keys, data, seed=cfg.seed) if keys else None
    model = build(cfg.spec(data), cfg.seed)
    return train(cfg.recipe, model, data.train, data.validation, seed=cfg.seed, hook=hook, execution=Execution())


def reached(eps: float, model: nn.Module, judged: Split, evaluations: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in evaluations:
        robustness = evaluate(model, judged.images(), judged.labels, eps=eps, attack=name)
        found |= {"clean": robustness.clean, name: robustness.accuracy}
    return {name: round(100 * value, 2) for name, value in found.items()}


def bits(keys: dict[str, Key], model: nn.Module, panel: list[Predict]) -> dict[str, int]:
    return {item.mark: round(item.bits) for item in verify(keys, predictor(model), panel=panel).evidence}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("candidates", nargs="+")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--eps", type=float)
    parser.add_argument("--at", type=float)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--evaluations", nargs="+", default=["pgd-40x2"])
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    count = len(divided(args.data).train)
    for seed in args.seeds:
        defaults = preset(args.preset, data=args.data, eps=args.eps, wm_eps=None, seed=seed, count=count)
        base = replace(defaults, marks=tuple(mark for mark in defaults.marks if mark != "guard"))
        for candidate in args.candidates:
            cfg = with_settings(base, candidate.split())
            data = divided(args.data, None, cfg.set_aside)
            judged = data.thief.subset(slice(args.images))
            panel = panel_of(replace(base, set_aside=cfg.set_aside)) if cfg.marks else []
            predicts = [predictor(member) for member in panel]
            keys = keys_of(cfg, data, panel) if cfg.marks else {}
            start = time.monotonic()
            model, epoch, _ = trained(cfg, data, keys)
            seconds = round(time.monotonic() - start)
            row = {"data": args.data, "settings": candidate, "seed": seed, "seconds": seconds, "epoch": epoch}
            row |= reached(args.at or cfg.recipe.eps, model, judged, args.evaluations)
            if keys:
                context = AttackContext(
                    data=data.thief, new_model=lambda _, same=model: same, eps=cfg.recipe.eps, seed=1
                )
                row |= {"bits": bits(keys, model, predicts)}
                row |= {"pruned": bits(keys, prune(Prune(sparsity=0.8), model, context), predicts)}
                row |= {"fine-tuned": bits(keys, finetune_layers(LayerFinetune(), model, context), predicts)}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
