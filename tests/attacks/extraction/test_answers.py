"""Thieves who work on images or answers before they learn: few, distill, transfer, average, blend, stable, regress."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from helpers import context
from wootz.attacks.extraction import ATTACKS, BudgetedOracle
from wootz.attacks.extraction.adaptive import (
    Average,
    Blend,
    RegressAnswers,
    Stable,
    add_pixel_noise,
    blend,
    extract_stable,
    regress_answers,
)
from wootz.attacks.extraction.attacks import Copy, copy_weights
from wootz.attacks.extraction.retrain import DistillAnswers, FewImages, random_affine, retrain_on_few
from wootz.attacks.extraction.transfer import Transfer, extract_by_transfer, rotate_randomly
from wootz.attacks.linear_components import public_features, remove_linear_component
from wootz.data import Dataset, Split
from wootz.errors import BudgetError, ConfigError
from wootz.models import ModelSpec
from wootz.suspects.files import predictor
from wootz.workflows.run import agreement


def victim(plain: nn.Module, access: str = "scores", budget: int | None = None) -> BudgetedOracle:
    return BudgetedOracle(predictor(plain), access=access, num_classes=10, budget=budget)


def test_a_copy_is_the_victim_itself(plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
    before = copy.deepcopy(plain.state_dict())
    stolen = copy_weights(Copy(), plain, context(digits.train, small_spec))
    assert agreement(stolen, plain, digits) == 1
    next(stolen.parameters()).data.zero_()
    assert all(torch.equal(t, before[name]) for name, t in plain.state_dict().items())
    assert ATTACKS["copy"].access == "weights"


@pytest.mark.parametrize(
    ("name", "cfg", "queries"),
    [
        ("distill", DistillAnswers(epochs=12, lr=5e-3), 2000),
        ("average", Average(thieves=2, epochs=12, lr=5e-3), 2000),
        ("blend", Blend(epochs=10, lr=5e-3), 2000),
        ("stable", Stable(epochs=12, lr=5e-3), 4000),
        ("regress", RegressAnswers(epochs=12, lr=5e-3), 2000),
        ("transfer", Transfer(queries=1000, pretraining=5, epochs=20, lr=5e-3), 1000),
    ],
)
def test_it_succeeds_against_an_undefended_model(
    name: str, cfg: object, queries: int, plain: nn.Module, digits: Dataset, small_spec: ModelSpec
) -> None:
    oracle = victim(plain, ATTACKS[name].access, budget=queries)
    stolen = ATTACKS[name].run(cfg, oracle, context(digits.train, small_spec))
    assert agreement(stolen, plain, digits) > 0.8
    assert oracle.queries == queries
    if queries > len(digits.train):
        short = victim(plain, ATTACKS[name].access, budget=queries - 1)
        with pytest.raises(BudgetError, match=f"fits a budget of {queries}"):
            ATTACKS[name].run(cfg, short, context(digits.train, small_spec))
        assert short.queries == 0


class TestFew:
    def test_variations_make_up_for_images(self, plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
        few, cfg = digits.train.subset(slice(300)), FewImages(images=300, epochs=8, lr=5e-3)
        oracle = victim(plain)
        stolen = retrain_on_few(cfg, oracle, context(few, small_spec))
        assert oracle.queries == 3000
        once = FewImages(images=300, copies=0, epochs=60, lr=5e-3)
        assert agreement(stolen, plain, digits) > agreement(
            retrain_on_few(once, victim(plain), context(few, small_spec)), plain, digits
        )
        assert agreement(stolen, plain, digits) > 0.8

    def test_shaking_moves_by_what_it_says(self, digits: Dataset) -> None:
        pixels, generator = digits.train.pixels[:20], torch.Generator().manual_seed(0)
        still = random_affine(pixels, shift=0, angle=0, noise=0, generator=generator)
        assert (still.int() - pixels.int()).abs().max() <= 1
        dot = torch.zeros(40, 1, 28, 28, dtype=torch.uint8)
        dot[:, :, 13:15, 13:15] = 255
        moved = random_affine(dot, shift=3, angle=0, noise=0, generator=generator).float().flatten(1)
        places = torch.stack(torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")).flatten(1)
        center = (moved[:, None] * places).sum(2) / moved.sum(1, keepdim=True)
        assert 2 < (center - 13.5).abs().max() <= 3.05
        turned_dot = random_affine(dot, shift=0, angle=180, noise=0, generator=generator).float().flatten(1)
        center = (turned_dot[:, None] * places).sum(2) / turned_dot.sum(1, keepdim=True)
        assert (center - 13.5).abs().max() < 0.05


class TestTransfer:
    def test_turns_are_the_labels(self) -> None:
        pixels = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4).repeat(40, 1, 1, 1)
        lesson = rotate_randomly(Split(pixels, torch.zeros(40, dtype=torch.long)), 4, torch.Generator().manual_seed(0))
        assert lesson.labels.unique().tolist() == [0, 1, 2, 3]
        for image, label in zip(lesson.pixels, lesson.labels, strict=True):
            assert torch.equal(image.rot90(-int(label), (1, 2)), pixels[0])

    def test_only_square_images_can_be_turned(self) -> None:
        share = Split(torch.zeros(4, 1, 2, 3, dtype=torch.uint8), torch.zeros(4, dtype=torch.long))
        with pytest.raises(ConfigError, match=r"images of shape \[1, 2, 3\]: only square images"):
            rotate_randomly(share, 4, torch.Generator())

    def test_more_queries_than_images_are_refused(
        self, plain: nn.Module, digits: Dataset, small_spec: ModelSpec
    ) -> None:
        with pytest.raises(ConfigError, match="queries = 1000: the attacker has 300 images"):
            extract_by_transfer(Transfer(), victim(plain), context(digits.train.subset(slice(300)), small_spec))


class TestBlend:
    def test_with_the_teacher_alone_the_victim_does_not_matter(
        self, plain: nn.Module, digits: Dataset, small_spec: ModelSpec
    ) -> None:
        one, two = (
            blend(
                Blend(own=1.0, epochs=2),
                BudgetedOracle(lambda x, s=sign: s * predictor(plain)(x), access="scores", num_classes=10),
                context(digits.train, small_spec),
            )
            for sign in (1, -1)
        )
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


class TestStable:
    def test_answers_that_change_are_dropped(self, digits: Dataset, small_spec: ModelSpec) -> None:
        marked = digits.train.images()[:300]
        changed = {image.numpy().tobytes() for image in marked[:200]}

        def served(x: Tensor) -> Tensor:
            """Says 1, but 0 about the first two hundred images, exactly as they are."""
            return torch.tensor([0 if image.numpy().tobytes() in changed else 1 for image in x])

        oracle = BudgetedOracle(served, access="label", num_classes=10)
        stolen = extract_stable(Stable(epochs=30), oracle, context(digits.train.subset(slice(300)), small_spec))
        assert oracle.queries == 600
        assert (stolen(marked).argmax(1) == 1).all()
        with pytest.raises(ConfigError, match="only 0 of 200 answers stay"):
            extract_stable(Stable(), oracle, context(digits.train.subset(slice(200)), small_spec))

    def test_noise_stays_within_its_bound(self, digits: Dataset) -> None:
        pixels = digits.train.pixels[:20]
        moves = (add_pixel_noise(pixels, 0.03, torch.Generator().manual_seed(0)).int() - pixels.int()).abs()
        assert moves.max() == 7


class TestRegress:
    def test_needs_scores(self, plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
        oracle = victim(plain, "label")
        with pytest.raises(BudgetError, match="regress: needs scores"):
            regress_answers(RegressAnswers(), oracle, context(digits.train, small_spec))
        assert oracle.queries == 0

    def test_a_linear_trace_is_gone_and_the_rest_stays(self) -> None:
        generator = torch.Generator().manual_seed(0)
        z = torch.randn(2000, 5, generator=generator)
        top = torch.randint(0, 4, (2000,), generator=generator)
        direction, base = torch.randn(4, 4, 5, generator=generator), torch.randn(4, 4, generator=generator)
        logits = base[top] + torch.einsum("nkd,nd->nk", direction[top], z)
        wrong = logits.scatter(1, top[:, None], float("-inf")).softmax(1)
        answers = (0.3 * wrong).scatter(1, top[:, None], 0.7)
        clean = remove_linear_component(answers.log(), z)
        assert torch.equal(clean.argmax(1), top)
        assert torch.allclose(clean.amax(1), answers.amax(1), atol=1e-5)
        assert torch.allclose(clean.sum(1), torch.ones(2000), atol=1e-5)
        for k in range(4):  # with the trace gone, the order of the wrong classes is the same within a class
            rows = clean[top == k].log()
            assert rows.std(0).max() < 1e-3
            others = [j for j in range(4) if j != k]
            kept = rows.mean(0)[others] - rows.mean(0)[others].mean()
            assert torch.allclose(kept, base[k][others] - base[k][others].mean(), atol=0.01)

    def test_the_top_answer_stays_on_top(self) -> None:
        generator = torch.Generator().manual_seed(1)
        answers = torch.randn(300, 10, generator=generator).softmax(1)
        clean = remove_linear_component(answers.log(), torch.randn(300, 3, generator=generator))
        best = answers.argmax(1, keepdim=True)
        assert (clean.gather(1, best).squeeze(1) >= clean.amax(1) - 1e-6).all()

    def test_features_are_standardized_within_their_class_and_clipped(self, digits: Dataset) -> None:
        share = digits.train
        z = public_features(share.images(), share.labels, 30, 20)
        assert z.shape == (2000, 50)
        assert z.abs().max() <= 3
        assert z[share.labels == 4].mean(0).abs().max() < 0.1
