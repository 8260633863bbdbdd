"""Measure how often a dishonest owner convicts an independent model: many registrations, every free choice.

    python benchmarks/dishonest_owner.py RUN SUSPECT [--registrations 100000] [--json]

RUN is an owner's run folder with the marks `triggers` and `runner-up`; SUSPECT an independent model's. Each
registration draws the keys again by the protocol's own derivation, as another time token would. The owner then sees the
evidence of every choice that a claim has (tranche, access, budget; `walks` is label access along registered paths) and
claims the best. P(bits >= b) is printed with the bits that the protocol takes off for the choices, and without.
"""

from __future__ import annotations

import argparse
import json
import math
import secrets
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wootz.keys import DirectionKey, LabelKey, OwnerKeys, derive_key, read_keys
from wootz.keys.material import tranche_rows
from wootz.models import read_model
from wootz.statistics import SuspectAccess
from wootz.statistics.direction_estimate import estimate_direction
from wootz.statistics.tails import binomial_tail, bits, cosine_tail, fisher, sum_tail
from wootz.statistics.wrong_class_ranks import query_wrong_classes, savage_scores, wrong_class_residuals
from wootz.suspects.files import predictor
from wootz.types import Predict
from wootz.workflows.claim import choices
from wootz.workflows.owner import Owner

tail_of_hits = cache(binomial_tail)
tail_of_places = cache(sum_tail)

LEVELS = (4, 6, 8, 10, 12)
BATCH = 1000
BUDGETS = (0, 500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("suspect", type=Path)
    parser.add_argument("--registrations", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    owner_keys, panel = read_keys(args.run), Owner.load(args.run).reference_models
    predict = predictor(read_model(args.suspect)[0])
    triggers, direction = owner_keys.by_mark["triggers"], owner_keys.by_mark["runner-up"]
    assert isinstance(triggers, LabelKey)
    assert isinstance(direction, DirectionKey)
    claims = list(claimed(triggers, direction, predict, panel, owner_keys.materials["triggers"].tranches))
    best = np.concatenate(
        [
            np.max([claim(labels, directions) for claim in claims], axis=0)
            for labels, directions in registrations(owner_keys, args.registrations)
        ]
    )
    off = math.log2(choices(owner_keys.registration))
    results = {
        str(level): {
            "bound": 2.0**-level,
            "with choices taken off": float((best - off >= level).mean()),
            "without": float((best >= level).mean()),
            "tranches alone taken off": float((best - math.log2(4) >= level).mean()),
        }
        for level in LEVELS
    }
    if args.json:
        print(
            json.dumps({"registrations": args.registrations, "choices": choices(owner_keys.registration), "p": results})
        )
        return
    print(f"{args.suspect.name}: {args.registrations:,} registrations, {choices(owner_keys.registration)} choices each")
    for level in LEVELS:
        p, found = 2.0**-level, results[str(level)]
        limit = p + 3 * math.sqrt(p * (1 - p) / args.registrations)
        share = found["with choices taken off"]
        print(
            f"  P(bits >= {level}) = {share:.6f}, at most {limit:.6f} {'ok' if share <= limit else 'ABOVE'}; "
            f"choices free: {found['without']:.6f}; tranches alone taken off: {found['tranches alone taken off']:.6f}"
        )


def registrations(owner_keys: OwnerKeys, count: int) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Give the keys of `count` registrations in batches: labels [B, n], and unit directions float64 [B, K * K * d]."""
    derived = {}
    for start in range(0, count, BATCH):
        contexts = [secrets.token_bytes(32) for _ in range(min(BATCH, count - start))]
        for mark in ("triggers", "runner-up"):
            opened = [part.secret for part in owner_keys.openings[mark]]
            material, classes = owner_keys.materials[mark], owner_keys.by_mark[mark].num_classes
            derived[mark] = [derive_key(mark, material, classes, opened, context) for context in contexts]
        labels = torch.stack([key.labels for key in derived["triggers"]])
        directions = np.stack([key.direction.double().numpy().ravel() for key in derived["runner-up"]])
        yield labels, directions / np.linalg.norm(directions, axis=1, keepdims=True)


def claimed(
    triggers: LabelKey, direction: DirectionKey, predict: Predict, panel: Any, tranches: int
) -> Iterator[Callable[[Tensor, np.ndarray], list[float]]]:
    """Give, for each choice of a claim, the function that returns the bits of each registration of a batch.

    What the suspect answers does not depend on the key, so it is asked once per access and budget.
    """
    count = len(triggers.labels)
    accesses = {
        "scores": SuspectAccess("scores"),
        "label": SuspectAccess("label"),
        "walks": SuspectAccess("label", boundary_search=panel.boundary_search_for(20_000)),
    }
    for _access, access in accesses.items():
        found = query_wrong_classes(triggers, predict, access)
        wrong = (
            None
            if found.scores is None
            else places(triggers, wrong_class_residuals(triggers, found.scores, panel.answers))
        )
        for budget in BUDGETS:
            slopes = estimate_direction(direction, predict, panel.answers, access._replace(budget=budget or None))
            v = None if slopes is None else (slopes.v / slopes.v.norm()).numpy().ravel()
            for tranche in range(tranches):
                rows = tranche_rows(count, tranches, tranche)
                yield evidence(triggers, found.labels, wrong, v if tranche == 0 else None, rows, direction.dimensions)


def evidence(
    key: LabelKey, said: Tensor, wrong: Tensor | None, v: np.ndarray | None, rows: slice, dimensions: int
) -> Callable[[Tensor, np.ndarray], list[float]]:
    scores = tuple(savage_scores(key.num_classes - 1))
    base, said = key.base[rows], said[rows]
    trials = int((said != base).sum())

    def bits_of(labels: Tensor, directions: np.ndarray) -> list[float]:
        keyed = labels[:, rows]
        if wrong is None:
            hits = (said == keyed).sum(1).tolist()
            parts = [[tail_of_hits(count, trials, 1 / (key.num_classes - 1)) for count in hits]]
        else:
            place = wrong[rows].expand(len(keyed), -1, -1).gather(2, keyed[..., None]).squeeze(2)
            totals = torch.tensor(scores)[place].sum(1).tolist()
            parts = [[tail_of_places(total, keyed.shape[1], scores) for total in totals]]
        if v is not None:
            parts.append([cosine_tail(cosine, dimensions) for cosine in (directions @ v).tolist()])
        return [bits(fisher(log_ps)) for log_ps in zip(*parts, strict=True)]

    return bits_of


def places(key: LabelKey, left: Tensor) -> Tensor:
    """Unforeseen opinions [n, K] -> the place of each class among the wrong ones [n, K]."""
    masked = left.scatter(1, key.base[:, None], -torch.inf)
    order = torch.sort(masked, dim=1, descending=True, stable=True).indices
    return order.argsort(dim=1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
