"""Compare settings of `protect` on images that the owner does not train on and that are not the test images.

    python benchmarks/tune.py DATA CANDIDATE ... [--preset NAME] [--eps EPS] [--seeds N ...]
        [--at EPS] [--evaluations NAME ...] [--images N] [--threads N]

Each CANDIDATE is settings as of `wootz protect --set`, separated by spaces; "marks=" is the unmarked model, "" the
preset as it is, but for the guard, which is not in the weights. A line of JSON for every seed and candidate says what
it reached: training seconds, the epoch kept, clean accuracy and that under each evaluation, at the budget `--at` (the
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

from wootz.attacks.adversary import AttackContext
from wootz.attacks.evasion import evaluate
from wootz.attacks.removal.finetune import Finetune, finetune
from wootz.attacks.removal.prune import Prune, prune
from wootz.config import with_settings
from wootz.data import Dataset, Split, load
from wootz.keys import Key, draw_keys, fresh_secret
from wootz.models import build
from wootz.statistics import predictor, verify
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
    return dict(draw_keys(secret, materials, classes=data.classes, shape=data.shape, panel=digests).keys)


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
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    count = len(divided(asked.data).train)
    for seed in asked.seeds:
        defaults_for = preset(asked.preset, data=asked.data, eps=asked.eps, wm_eps=None, seed=seed, count=count)
        base = replace(defaults_for, marks=tuple(mark for mark in defaults_for.marks if mark != "guard"))
        for candidate in asked.candidates:
            cfg = with_settings(base, candidate.split())
            data = divided(asked.data, None, cfg.set_aside)
            judged = data.thief.subset(slice(asked.images))
            panel = panel_of(replace(base, set_aside=cfg.set_aside)) if cfg.marks else []
            predicts = [predictor(member) for member in panel]
            keys = keys_of(cfg, data, panel) if cfg.marks else {}
            start = time.monotonic()
            model, epoch, _ = trained(cfg, data, keys)
            seconds = round(time.monotonic() - start)
            row = {"data": asked.data, "settings": candidate, "seed": seed, "seconds": seconds, "epoch": epoch}
            row |= reached(asked.at or cfg.recipe.eps, model, judged, asked.evaluations)
            if keys:
                context = AttackContext(data=data.thief, fresh=lambda _, same=model: same, eps=cfg.recipe.eps, seed=1)
                row |= {"bits": bits(keys, model, predicts)}
                row |= {"pruned": bits(keys, prune(Prune(sparsity=0.8), model, context), predicts)}
                row |= {"fine-tuned": bits(keys, finetune(Finetune(), model, context), predicts)}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
