"""Training on: each attack takes the plain mark away, and leaves a model that is about as good as before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from helpers import Backdoor, context, costs_little
from wootz.attacks.evasion import predict_logits
from wootz.attacks.removal import ATTACKS
from wootz.attacks.removal.distillation import Distill, distill, distillation_targets
from wootz.attacks.removal.finetune import (
    FinetuneConfig,
    LayerFinetune,
    Mixup,
    Regularize,
    finetune,
    finetune_layers,
    mixtures,
    mixup,
    regularize,
)
from wootz.attacks.removal.weights import WeightShift, shift_weights
from wootz.data import Dataset, Split
from wootz.models import ModelSpec


def test_finetuning_removes_a_plain_mark_at_little_cost(
    backdoor: Backdoor, digits: Dataset, small_spec: ModelSpec
) -> None:
    held = context(digits.thief, small_spec, seed=1)
    altered = finetune_layers(LayerFinetune(epochs=20, lr=2e-2), backdoor.model, held)
    assert backdoor.recall(altered) < 0.5
    assert costs_little(altered, backdoor.model, digits)
    assert backdoor.recall(backdoor.model) > 0.9  # the original is untouched


def test_the_last_layer_alone_learns_when_asked(plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
    held = context(digits.thief, small_spec)
    tuned = finetune_layers(LayerFinetune(layers="last", redraw=True, epochs=1), plain, held)
    moved = [name for name, p in tuned.named_parameters() if not torch.equal(p, plain.get_parameter(name))]
    assert moved == ["7.weight", "7.bias"]
    assert all(p.requires_grad for p in tuned.parameters())


@pytest.mark.parametrize("redraw", [False, True])
def test_the_last_layer_alone_does_not_forget(
    redraw: bool, backdoor: Backdoor, digits: Dataset, small_spec: ModelSpec
) -> None:
    cfg = LayerFinetune(layers="last", redraw=redraw, epochs=20, lr=1e-2)
    altered = finetune_layers(cfg, backdoor.model, context(digits.thief, small_spec, seed=1))
    assert backdoor.recall(altered) > 0.5  # the features, in which the mark is learned, stayed
    assert costs_little(altered, backdoor.model, digits)


@pytest.mark.parametrize(
    "cfg",
    [
        LayerFinetune(redraw=True, epochs=20, lr=2e-2),
        LayerFinetune(label_smoothing=0.1, epochs=20, lr=2e-2),
        LayerFinetune(loss="pgd-at", epochs=10, lr=2e-2),
    ],
    ids=["rtal", "smooth", "robust"],
)
def test_every_finetuning_of_all_layers_removes_it(
    cfg: LayerFinetune, backdoor: Backdoor, digits: Dataset, small_spec: ModelSpec
) -> None:
    altered = finetune_layers(cfg, backdoor.model, context(digits.thief, small_spec, seed=1))
    assert backdoor.recall(altered) < 0.5
    assert costs_little(altered, backdoor.model, digits)


def test_mixup_removes_it(backdoor: Backdoor, digits: Dataset, small_spec: ModelSpec) -> None:
    altered = mixup(Mixup(lr=3e-2), backdoor.model, context(digits.thief, small_spec, seed=1))
    assert backdoor.recall(altered) < 0.5
    assert costs_little(altered, backdoor.model, digits)


def test_mixtures_lie_between_two_images_and_their_labels() -> None:
    share = Split(torch.tensor([0, 100, 200], dtype=torch.uint8).view(3, 1, 1, 1), torch.tensor([0, 1, 2]))
    mixed = mixtures(Mixup(partners=50), share, 3, torch.Generator().manual_seed(0))
    assert len(mixed.data) == 150
    assert torch.allclose(mixed.targets.sum(1), torch.ones(150))
    expected = mixed.targets @ torch.tensor([0.0, 100.0, 200.0])
    assert (mixed.data.pixels.flatten().float() - expected).abs().max() <= 0.5 + 1e-4
    first = mixed.targets[torch.arange(150), torch.arange(3).repeat(50)]
    assert first[first < 1].mean().item() == pytest.approx(0.5, abs=0.1)  # Beta(1, 1) is uniform
    sharp = mixtures(Mixup(alpha=0.01, partners=50), share, 3, torch.Generator().manual_seed(0))
    assert (sharp.targets.max(1).values > 0.99).float().mean() > 0.8


def test_regularization_removes_it(backdoor: Backdoor, digits: Dataset, small_spec: ModelSpec) -> None:
    held = context(digits.thief, small_spec, seed=1)
    altered = regularize(Regularize(lr=1e-2, epochs=10), backdoor.model, held)
    assert backdoor.recall(altered) < 0.5
    assert costs_little(altered, backdoor.model, digits)


def test_regularization_shrinks_the_weights(plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
    held = context(digits.thief, small_spec)

    def size(cfg: Regularize) -> float:
        return sum(p.norm().item() for p in regularize(cfg, plain, held).parameters() if p.dim() > 1)

    assert size(Regularize(shrinking=2, epochs=0)) < 0.8 * size(Regularize(shrinking=2, epochs=0, decay=0.0))


def test_shifted_weights_train_on_without_it(backdoor: Backdoor, digits: Dataset, small_spec: ModelSpec) -> None:
    held = context(digits.thief, small_spec, seed=1)
    altered = shift_weights(WeightShift(lr=1e-2, epochs=10), backdoor.model, held)
    assert backdoor.recall(altered) < 0.5
    assert costs_little(altered, backdoor.model, digits)


def test_the_common_step_takes_the_mean_filter_away(plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
    altered = shift_weights(WeightShift(noise=0.0, epochs=0), plain, context(digits.thief, small_spec))
    for before, after in zip(plain.parameters(), altered.parameters(), strict=True):
        if before.dim() > 1:
            assert after.mean(0).abs().max() < 1e-6
            assert torch.allclose(before - before.mean(0), after, atol=1e-6)
        else:
            assert torch.equal(before, after)


@pytest.mark.parametrize("labels", ["soft", "hard"])
def test_a_distilled_student_does_not_know_it(
    labels: str, backdoor: Backdoor, digits: Dataset, small_spec: ModelSpec
) -> None:
    cfg = Distill(labels=labels, epochs=12, lr=1e-2)  # type: ignore[arg-type]
    student = distill(cfg, backdoor.model, context(digits.train, small_spec, seed=1))
    assert backdoor.recall(student) < 0.3
    assert costs_little(student, backdoor.model, digits)


def test_lessons_mix_the_teacher_and_the_truth() -> None:
    logits, labels = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([1])
    warm = (logits / 4).softmax(1)
    assert torch.allclose(distillation_targets(Distill(temperature=4.0, truth=0.0), logits, labels), warm)
    taught = distillation_targets(Distill(labels="hard", truth=0.25), logits, labels)
    assert torch.allclose(taught, torch.tensor([[0.75, 0.25, 0.0]]))


def test_equal_seeds_equal_results_and_the_model_stays(
    plain: nn.Module, digits: Dataset, small_spec: ModelSpec
) -> None:
    before = {name: t.clone() for name, t in plain.state_dict().items()}
    share = digits.thief.subset(slice(200))
    for run in (
        lambda held: mixup(Mixup(partners=2), plain, held),
        lambda held: shift_weights(WeightShift(epochs=1), plain, held),
        lambda held: regularize(Regularize(shrinking=1, epochs=1), plain, held),
        lambda held: distill(Distill(epochs=1), plain, held),
    ):
        one, two, other = (run(context(share, small_spec, seed=seed)).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert any(not torch.equal(one[name], other[name]) for name in one)
        assert one.keys() == before.keys()
    assert all(torch.equal(before[name], t) for name, t in plain.state_dict().items())


def test_no_epochs_give_an_equal_copy_in_eval_mode(plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
    copied = finetune(FinetuneConfig(epochs=0), plain.train(), context(digits.thief, small_spec))
    plain.eval()
    assert copied is not plain
    assert not copied.training
    x = digits.test.images()[:5]
    assert torch.equal(predict_logits(copied, x), predict_logits(plain, x))


def test_an_attempt_that_was_stopped_goes_on(
    plain: nn.Module, digits: Dataset, small_spec: ModelSpec, tmp_path: Path
) -> None:
    held = context(digits.thief.subset(slice(200)), small_spec, folder=tmp_path)
    once = regularize(Regularize(shrinking=1, epochs=2), plain, held)
    assert (tmp_path / "shrunk").is_dir()
    assert (tmp_path / "tuned").is_dir()
    again = regularize(Regularize(shrinking=1, epochs=2), plain, held)
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), again.parameters(), strict=True))


def test_a_filtered_model_can_be_tuned_too(plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
    held = context(digits.thief, small_spec)
    behind = ATTACKS["input-median"].run(ATTACKS["input-median"].config, plain, held)
    tuned = finetune_layers(LayerFinetune(layers="last", redraw=True, epochs=1), behind, held)
    moved = [name for name, p in tuned.named_parameters() if not torch.equal(p, behind.get_parameter(name))]
    assert moved == ["inner.7.weight", "inner.7.bias"]
