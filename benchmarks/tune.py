"""Compare settings of `protect` on images that nobody trains on and that are not the test images.

    python benchmarks/tune.py mnist "wm_eps=0.7" "wm_eps=0.5 triggers.weight=0.05" "marks="

Each argument after the data set is one candidate: settings as of `wootz protect --set`, separated by spaces.
A line says what it reached: clean and PGD-40x2 accuracy on 4,000 probe images, bits of each mark on the model
itself, after pruning 80% and after fine-tuning. Parameters are chosen here, never on test images.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from torch import nn

from wootz.adversary import Means
from wootz.config import with_settings
from wootz.data import Dataset, load
from wootz.evasion import evaluate
from wootz.marks import Ground, hook_of, prepare_all, weights_digest
from wootz.models import build
from wootz.ownership import Key, draw_keys, fresh_secret
from wootz.removal.finetune import Finetune, finetune
from wootz.removal.prune import Prune, prune
from wootz.stages.protect import make_panel
from wootz.stages.protection import Protection, preset
from wootz.training import Execution, train
from wootz.types import Predict
from wootz.verify import predictor, verify

JUDGED = slice(15_000, 19_000)


def keys_of(cfg: Protection, data: Dataset, panel: list[nn.Module]) -> dict[str, Key]:
    secret = fresh_secret()
    settings = cfg.mark_settings()
    model = build(cfg.spec(data), cfg.seed)
    ground = Ground(data=data, panel=tuple(panel), model=model, eps=cfg.recipe.eps, wm_eps=cfg.wm_eps)
    materials = prepare_all(settings, ground, secret)
    digests = [weights_digest(member) for member in panel]
    return dict(draw_keys(secret, materials, classes=data.classes, shape=data.shape, panel=digests).keys)


def bits(keys: dict[str, Key], model: nn.Module, panel: list[Predict]) -> str:
    found = verify(keys, predictor(model), panel=panel).evidence
    return ", ".join(f"{item.mark} {item.bits:.0f}" for item in found)


def main() -> None:
    name, candidates = sys.argv[1], sys.argv[2:]
    data, execution = load(name), Execution()
    judged = data.probes.take(JUDGED)
    base = preset("fast", data=name, eps=None, wm_eps=None, seed=1, count=len(data.train))
    with tempfile.TemporaryDirectory() as folder:
        panel = make_panel(base, data, Path(folder), execution=execution, tell=lambda *_: None)
    predicts = [predictor(member) for member in panel]
    for candidate in candidates:
        cfg = with_settings(base, candidate.split())
        start, keys, hook = time.monotonic(), {}, None
        if cfg.marks:
            keys = keys_of(cfg, data, panel)
            hook = hook_of(cfg.mark_settings(), keys, data, seed=cfg.seed)
        model = train(
            cfg.recipe, build(cfg.spec(data), cfg.seed), data.train, data.validation, seed=cfg.seed, hook=hook,
            execution=execution,
        ).model  # fmt: skip
        seconds = time.monotonic() - start
        reached = evaluate(model, judged.images(), judged.labels, eps=cfg.recipe.eps)
        print(
            f"{name} [{candidate}] {seconds:.0f} s, clean {reached.clean:.4f}, robust {reached.accuracy:.4f}",
            flush=True,
        )
        if keys:
            means = Means(data=data.thief, fresh=lambda _, same=model: same, eps=cfg.recipe.eps, seed=1)
            pruned, tuned = prune(Prune(sparsity=0.8), model, means), finetune(Finetune(), model, means)
            for what, suspect in (("itself", model), ("pruned 80%", pruned), ("fine-tuned", tuned)):
                print(f"    {what}: {bits(keys, suspect, predicts)}", flush=True)


if __name__ == "__main__":
    main()
