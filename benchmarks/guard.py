"""What the guard proves of thieves: cost x architecture x epochs -> decided, changed, hits, bits, accuracies.

    python benchmarks/guard.py RUN [--attack retrain-hard] [--cost 0.005 ...] [--most 0.2 ...] [--model same other]
        [--epochs 15 ...] [--set key=value ...] [--seed N] [--json]

RUN is a run folder (`wootz protect --data mnist --marks none --out RUN`). Each row serves its model behind a guard
with a key of the seed, steals it with the attack's defaults but for what the row says, and counts. `asked` are queries,
`decided` the images in the log, `changed` those answered otherwise than by the model; the thief answers `trials` of
them with either class and `hits` with the preferred one. `bits` are by labels alone, `by_scores` by the thief's scores;
RUN's panel helps where it has one. `served` is the clean accuracy that customers see.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn

from wootz.attacks.context import AttackContext
from wootz.attacks.evasion import predict_logits
from wootz.attacks.extraction import ATTACKS, BudgetedOracle
from wootz.config import with_settings
from wootz.data import Dataset, load_other
from wootz.keys import AnswerKey, derive_key, key_from_log
from wootz.keys.prf import stream
from wootz.models import ModelSpec, build, other_architecture
from wootz.rng import derive as seeded
from wootz.statistics import SuspectAccess
from wootz.statistics.exact_tests import preference_evidence
from wootz.suspects.files import predictor
from wootz.watermarks import MarkContext
from wootz.watermarks.answer_filter import AnswerFilter, CalibrationScores
from wootz.watermarks.guard import Guard, prepare_guard
from wootz.workflows.owner import Owner
from wootz.workflows.run import open_run

COLUMNS = (
    "cost",
    "most",
    "model",
    "epochs",
    "asked",
    "decided",
    "changed",
    "trials",
    "hits",
    "bits",
    "by_scores",
    "thief",
    "served",
)


def key_of(cfg: Guard, data: Dataset, model: nn.Module, seed: int) -> AnswerKey:
    mark_context = MarkContext(data=data, panel=(), model=model, eps=0.1, wm_eps=0.2)
    material = prepare_guard(cfg, mark_context, torch.Generator())
    key = derive_key("guard", material, len(data.classes), [stream(str(seed).encode(), b"benchmark", 32)], b"")
    assert isinstance(key, AnswerKey)
    return key


def clean(logits: Tensor, data: Dataset) -> float:
    return round((logits.argmax(1) == data.test.labels).float().mean().item(), 4)


def fresh_net(spec: ModelSpec, architecture: str, seed: int, name: str) -> nn.Module:
    own = spec if architecture == spec.architecture else replace(spec, architecture=architecture, settings={})
    return build(own, seeded(seed, "fresh", name))


def row(
    run: Path, attack: str, cfg: Guard, model: str, epochs: int, settings: list[str], seed: int
) -> dict[str, object]:
    victim = open_run(run)
    data, answer = victim.data(None), predictor(victim.model)
    key = key_of(cfg, data, victim.model, seed)
    entry = ATTACKS[attack]
    thief = with_settings(entry.config, [f"model={model}", f"epochs={epochs}", *settings])
    architecture = victim.spec.architecture if model == "same" else other_architecture(victim.spec.architecture)
    held = load_other(data).train if thief.data == "other" else data.thief
    held = held.subset(slice(thief.images))
    ordinary = CalibrationScores(predict_logits(victim.model, data.probes.images()), data.probes.labels)
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "guard.jsonl"
        with AnswerFilter(key, log, shape=data.shape, calibration=ordinary) as guarded:
            oracle = BudgetedOracle(lambda x: guarded(x, answer(x)), access=entry.access, num_classes=len(data.classes))
            new_model = partial(fresh_net, victim.spec, architecture, seed)
            stolen = entry.run(thief, oracle, AttackContext(data=held, new_model=new_model, eps=victim.eps, seed=seed))
        panel = Owner.load(run).reference_models
        found, scored = (
            preference_evidence(key_from_log(key, log), predictor(stolen), panel.answers, reach)
            for reach in (SuspectAccess("label", boundary_search=panel.boundary_search), SuspectAccess("scores"))
        )
        with AnswerFilter(key, Path(place) / "test.jsonl", shape=data.shape, calibration=ordinary) as guarded:
            x = data.test.images()
            served = clean(guarded(x, predict_logits(victim.model, x)), data)
    values = (
        cfg.cost,
        cfg.most,
        model,
        epochs,
        oracle.queries,
        found.details["decided"],
        found.details["changed"],
        found.details["trials"],
        found.details["hits"],
        round(found.bits, 1),
        round(scored.bits, 1),
        clean(predict_logits(stolen, x), data),
        served,
    )
    return dict(zip(COLUMNS, values, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--attack", default="retrain-hard", choices=sorted(ATTACKS))
    parser.add_argument("--cost", type=float, nargs="+", default=[0.005])
    parser.add_argument("--most", type=float, nargs="+", default=[0.2])
    parser.add_argument("--model", nargs="+", default=["same", "other"], choices=["same", "other"])
    parser.add_argument("--epochs", type=int, nargs="+", default=[15])
    parser.add_argument("--set", dest="settings", nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    victim = open_run(args.run)
    plain = clean(predict_logits(victim.model, victim.data(None).test.images()), victim.data(None))
    if not args.json:
        print(f"{args.attack}; the model's own clean accuracy is {plain}\n" + " ".join(f"{c:>10}" for c in COLUMNS))
    for cost, most, model, epochs in product(args.cost, args.most, args.model, args.epochs):
        cfg = Guard(cost=cost, most=most)
        found = row(args.run, args.attack, cfg, model, epochs, args.settings, args.seed)
        if args.json:
            print(json.dumps({"attack": args.attack, "unguarded": plain} | found), flush=True)
        else:
            print(" ".join(f"{value!s:>10}" for value in found.values()), flush=True)


if __name__ == "__main__":
    main()
