"""Attackers who know our method and not the key."""

from __future__ import annotations

import torch
from torch import nn

from helpers import Backdoor, context, costs_little
from wootz.attacks.evasion import predict_logits
from wootz.attacks.linear_components import public_features, remove_linear_component
from wootz.attacks.removal.adaptive import (
    Overwrite,
    RegressScores,
    directed_targets,
    make_triggers,
    overwrite,
    regress_scores,
)
from wootz.data import Dataset
from wootz.models import ModelSpec


def test_overwriting_removes_a_plain_mark_and_leaves_its_own(
    backdoor: Backdoor, digits: Dataset, small_spec: ModelSpec
) -> None:
    held, cfg = context(digits.train, small_spec, seed=1), Overwrite(triggers=100, epochs=15, lr=2e-2)
    altered = overwrite(cfg, backdoor.model, held)
    assert backdoor.recall(altered) < 0.5
    assert costs_little(altered, backdoor.model, digits)
    own = make_triggers(cfg, backdoor.model, held, 10)
    hits = (predict_logits(altered, own.images()).argmax(1) == own.labels).float().mean()
    assert hits > 0.4


def test_own_triggers_lie_in_reach_and_are_labeled_wrong(
    plain: nn.Module, digits: Dataset, small_spec: ModelSpec
) -> None:
    held, cfg = context(digits.thief, small_spec, eps=0.1), Overwrite(triggers=50, steps=10, reach=3.0)
    own = make_triggers(cfg, plain, held, 10)
    away = (own.images()[:, None] - digits.thief.images()[None]).abs().flatten(2).amax(2)  # from every own image
    nearest = away.min(1)
    assert nearest.values.max() <= 0.3 + 1 / 255
    assert (own.labels != digits.thief.labels[nearest.indices]).all()
    assert len(own.labels.unique()) > 5
    assert len(make_triggers(Overwrite(triggers=0), plain, held, 10)) == 0


def test_directed_targets_leave_the_true_class_its_mass(digits: Dataset) -> None:
    share = digits.thief.subset(slice(300))
    targets = directed_targets(Overwrite(), share, 10, torch.Generator().manual_seed(0))
    assert torch.allclose(targets.sum(1), torch.ones(300))
    assert torch.allclose(targets.gather(1, share.labels[:, None]), torch.tensor(0.75))
    flat = directed_targets(Overwrite(tau=1e-6), share, 10, torch.Generator().manual_seed(0))
    assert torch.allclose(flat.sort(1).values[:, :-1], torch.tensor(0.25 / 9), atol=1e-5)
    assert torch.equal(directed_targets(Overwrite(lam=0.0), share, 10, torch.Generator()).argmax(1), share.labels)


def test_no_linear_trace_is_left_and_the_top_class_stays() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2000, 6, generator=generator)
    y = torch.randint(0, 4, (2000,), generator=generator)
    direction = torch.randn(4, 4, 6, generator=generator)
    lean = torch.einsum("nkd,nd->nk", direction[y], z) + torch.randn(2000, 4, generator=generator)
    scores = lean.scatter(1, y[:, None], 12.0).log_softmax(1)
    assert trace(scores, z, y) > 0.5
    left = remove_linear_component(scores, z)
    assert torch.equal(left.argmax(1), y)
    assert torch.allclose(left.sum(1), torch.ones(2000))
    assert trace(left.log(), z, y) < 0.01


def test_forgetting_takes_the_trace_and_leaves_the_model(
    backdoor: Backdoor, digits: Dataset, small_spec: ModelSpec
) -> None:
    held = context(digits.train, small_spec, seed=1)
    written = overwrite(Overwrite(triggers=0, epochs=10, lr=1e-2), backdoor.model, held)
    altered = regress_scores(RegressScores(lr=1e-2), written, held)
    x, y = digits.probes.images(), digits.probes.labels
    z = public_features(x, y, 30, 20)
    before, after = (trace(predict_logits(model, x).log_softmax(1), z, y) for model in (written, altered))
    assert after < 0.6 * before
    assert costs_little(altered, written, digits)


def trace(scores: torch.Tensor, z: torch.Tensor, y: torch.Tensor) -> float:
    """Return the length of the covariance between wrong-class log-scores and features, class by class."""
    classes, total = scores.shape[1], 0.0
    wrong = scores.scatter(1, y[:, None], 0.0)
    wrong = (wrong - wrong.sum(1, keepdim=True) / (classes - 1)).scatter(1, y[:, None], 0.0)
    for k in range(classes):
        rows, known = wrong[y == k], z[y == k]
        total += ((rows - rows.mean(0)).T @ (known - known.mean(0)) / len(rows)).square().sum().item()
    return total**0.5
