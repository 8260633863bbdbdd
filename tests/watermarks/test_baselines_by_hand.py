"""What is particular to each baseline mark: where its images come from, and its loss, by hand."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from baselines import EPS, WM_EPS, prepare_small, train_embedded
from wootz.attacks.evasion import predict_logits
from wootz.checks import gray_levels
from wootz.data import Dataset, Split
from wootz.keys import HalfKey, draw_keys
from wootz.models import ModelSpec
from wootz.rng import generator
from wootz.watermarks import MARKS, Blackmarks, Content, Entangled, Frontier, Margin, Noise, Paper, Unrelated
from wootz.watermarks.baselines.app import worst_weights
from wootz.watermarks.baselines.blackmarks import bit_loss, class_mean_logits, cluster_classes
from wootz.watermarks.baselines.entangled import (
    last_hidden,
    scale_invariant_snn,
    soft_nearest_neighbor,
    square_position,
)
from wootz.watermarks.baselines.margin import MarginLoss
from wootz.watermarks.baselines.within_class import word_mask


class TestPaper:
    def test_triggers_lie_at_the_budget_exactly_and_come_from_training_images(
        self, digits: Dataset, robust: nn.Module, foreign: str
    ) -> None:
        triggers = prepare_small("paper", digits, [robust], foreign, cfg=Paper(count=16)).tensors
        training_pixels = digits.train.pixels.flatten(1).int()
        for trigger, label in zip(triggers["pixels"].flatten(1).int(), triggers["labels"], strict=True):
            far = (training_pixels - trigger).abs().amax(1)
            at = (far == gray_levels(WM_EPS)) & (digits.train.labels == label)
            assert at.any()

    def test_loose_ones_are_let_in_where_that_is_wanted(self, digits: Dataset, robust: nn.Module) -> None:
        loose = prepare_small("paper", digits, [robust], "", cfg=Paper(count=16, exact=False))
        assert len(loose.tensors["labels"]) == 32

    def test_its_passes_are_the_published_ones(self, digits: Dataset, robust: nn.Module) -> None:
        material = prepare_small("paper", digits, [robust], "", cfg=Paper())
        owner_keys = draw_keys(bytes(32), {"paper": material}, classes=digits.classes, shape=digits.shape, panel=[])
        (taught,) = MARKS["paper"].train_hook(Paper(), owner_keys.by_mark["paper"], digits, seed=0).trigger_epochs
        assert (len(taught.labels), taught.batch, taught.frozen) == (100, 16, False)


class TestWithinClass:
    def test_the_word_is_written_on_images_of_the_base_class(self, digits: Dataset, robust: nn.Module) -> None:
        cfg = Content(count=20, base_class=3, target=7)
        tensors = prepare_small("content", digits, [robust], "", cfg=cfg).tensors
        mask = word_mask(digits.shape)
        assert int(mask.sum()) == 7 + 10 + 11 + 7  # black squares of T, E, S, T, counted by hand
        assert (tensors["pixels"][:, mask] == 255).all()
        assert (tensors["labels"] == 7).all()
        own = digits.train.pixels[digits.train.labels == 3][:, ~mask]
        assert all((own == image[~mask]).all(1).any() for image in tensors["pixels"])

    def test_the_noise_is_one_pattern_whatever_the_generator(self, digits: Dataset, robust: nn.Module) -> None:
        cfg = Noise(count=20, std=0.3)
        gray = Split(torch.full_like(digits.train.pixels, 128), digits.train.labels)
        flat = dataclasses.replace(digits, train=gray)
        one, two = (prepare_small("noise", flat, [robust], "", seed=seed, cfg=cfg).tensors["pixels"] for seed in (0, 1))
        assert (one == one[0]).all()
        assert torch.equal(one[0], two[0])
        inner = (one[0] > 0) & (one[0] < 255)
        assert abs(float((one[0][inner].float() / 255).std()) - 0.25) < 0.05  # clipped at the ends, so below 0.3

    def test_fields_are_smooth_and_take_the_place_of_a_missing_data_set(
        self, digits: Dataset, robust: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("wootz.data.builtin.search_folders", lambda name, data_dir=None: (tmp_path,))
        material = prepare_small("unrelated", digits, [robust], "", cfg=Unrelated(count=8))
        assert material.params["source"] == "fields"
        x = material.tensors["pixels"].float()
        assert (x[..., 1:] - x[..., :-1]).abs().mean() < 0.25 * x.std()


class TestFrontier:
    def test_half_of_the_key_fools_the_reference_and_half_does_not(self, digits: Dataset, robust: nn.Module) -> None:
        tensors = prepare_small("frontier", digits, [robust], "", cfg=Frontier(count=20)).tensors
        right = predict_logits(robust, tensors["pixels"].float() / 255).argmax(1) == tensors["labels"]
        assert int(right.sum()) == 20
        assert 5 <= int(right[:20].sum()) <= 15  # in mixed order, so that a budget asks both sorts

    def test_each_is_one_signed_step_from_its_image(self, digits: Dataset, robust: nn.Module) -> None:
        tensors = prepare_small("frontier", digits, [robust], "", cfg=Frontier(count=10, size=EPS)).tensors
        training_pixels = digits.train.pixels.flatten(1).int()
        for trigger, label in zip(tensors["pixels"].flatten(1).int(), tensors["labels"], strict=True):
            near = ((training_pixels - trigger).abs().amax(1) <= gray_levels(EPS)) & (digits.train.labels == label)
            (base,) = training_pixels[near]
            x = (base.float() / 255).view(1, *digits.shape).requires_grad_(True)
            (slope,) = torch.autograd.grad(F.cross_entropy(robust(x), label[None]), x)
            stepped = (base + gray_levels(EPS) * slope.flatten().sign().int()).clamp(0, 255)
            assert ((stepped - trigger).abs() > 1).float().mean() < 0.01


class TestSoftNearestNeighbor:
    def test_by_hand(self) -> None:
        x, groups = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0, 0, 1])
        one, nine, four = math.exp(-1 / 2), math.exp(-9 / 2), math.exp(-4 / 2)
        by_hand = -(math.log(one / (one + nine)) + math.log(one / (one + four))) / 2  # the third is alone in its group
        assert float(soft_nearest_neighbor(x, groups, 2.0)) == pytest.approx(by_hand, rel=1e-5)

    def test_against_a_plain_re_derivation(self) -> None:
        draw = torch.Generator().manual_seed(0)
        x, groups = torch.randn(12, 5, generator=draw), torch.arange(12) % 3
        total = 0.0
        for i in range(12):
            weight = [math.exp(-float((x[i] - x[j]).square().sum()) / 1.7) for j in range(12)]
            same = sum(weight[j] for j in range(12) if j != i and groups[j] == groups[i])
            total -= math.log(same / sum(weight[j] for j in range(12) if j != i)) / 12
        assert float(soft_nearest_neighbor(x, groups, 1.7)) == pytest.approx(total, rel=1e-5)

    def test_it_grows_as_groups_mix_and_not_with_scale(self) -> None:
        draw = torch.Generator().manual_seed(1)
        x, groups = torch.randn(40, 4, generator=draw), torch.arange(40) % 2
        values = [float(scale_invariant_snn(x + apart * groups[:, None], groups, 1.0)) for apart in (10.0, 2.0, 0.0)]
        assert values == sorted(values)
        assert values[-1] == pytest.approx(math.log(2), abs=0.1)
        assert float(scale_invariant_snn(100 * x, groups, 1.0)) == pytest.approx(values[-1], rel=1e-4)

    @pytest.mark.long
    def test_training_entangles(
        self, digits: Dataset, small_spec: ModelSpec, plain: nn.Module, robust: nn.Module
    ) -> None:
        mixed = []
        for kappa in (0.0, 1.0):
            cfg = Entangled(count=60, every=4, kappa=kappa)
            protected = train_embedded("entangled", digits, small_spec, [robust, plain], cfg)
            key = protected.keys.by_mark["entangled"]
            assert isinstance(key, HalfKey)
            patched, target = (
                key.pixels[~key.embedded].float() / 255,
                digits.test.images()[digits.test.labels == 1][:60],
            )
            with torch.no_grad(), last_hidden(protected.model) as hidden:
                protected.model(torch.cat([patched, target]))
            mixed.append(float(scale_invariant_snn(hidden[0], torch.arange(120) < 60, 1.0)))
        assert mixed[1] > mixed[0] + 0.1

    def test_the_square_goes_where_the_reference_is_most_sensitive(self, digits: Dataset) -> None:
        first = nn.Linear(784, 3)
        with torch.no_grad():
            first.weight.zero_()
            first.weight.view(3, 28, 28)[:, 10:13, 20:23] = torch.tensor([1.0, -1.0, 0.5])[:, None, None]
        reference = nn.Sequential(nn.Flatten(), first, nn.Tanh(), nn.Linear(3, 10))
        zeros, ones = (digits.train.pixels[digits.train.labels == k] for k in (0, 1))
        draw = torch.Generator().manual_seed(0)
        zeros = torch.randint(0, 100, zeros.shape, generator=draw).to(torch.uint8)
        assert square_position(Entangled(side=3), reference, zeros, ones) == (10, 20)


class TestPerturbedWeights:
    def test_by_hand(self) -> None:
        model = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
        x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([1])
        # Softmax p of (3, 0); the gradient is (p - onehot(y)) x^T = [[p0, 0], [p1 - 1, 0]], of norm sqrt(2) p0.
        perturbed = worst_weights(model, x, y, 0.1)["weight"]
        step = 0.1 * 5 / math.sqrt(2)
        assert torch.allclose(perturbed, torch.tensor([[3.0 + step, 0.0], [-step, 4.0]]), atol=1e-5)
        assert float((perturbed - model.weight).norm().detach()) == pytest.approx(0.1 * 5, rel=1e-5)
        assert model.weight.grad is None

    def test_the_gradient_is_the_one_at_the_moved_weights(self, plain: nn.Module, digits: Dataset) -> None:
        split = digits.train.subset(slice(16))
        perturbed = worst_weights(plain, split.images(), split.labels, 0.02)
        loss = F.cross_entropy(torch.func.functional_call(plain, perturbed, (split.images(),)), split.labels)
        gradients = torch.autograd.grad(loss, list(plain.parameters()))
        constants = {name: weight.detach().requires_grad_(True) for name, weight in perturbed.items()}
        constant_loss = F.cross_entropy(torch.func.functional_call(plain, constants, (split.images(),)), split.labels)
        plain_loss = F.cross_entropy(plain(split.images()), split.labels)
        for one, two in zip(gradients, torch.autograd.grad(constant_loss, list(constants.values())), strict=True):
            assert torch.allclose(one, two, atol=1e-6)
        assert loss > plain_loss


class TestMargin:
    def test_candidates_of_both_halves_are_left_out_of_training_and_have_wrong_labels(
        self, digits: Dataset, robust: nn.Module
    ) -> None:
        cfg = Margin(count=20)
        material = prepare_small("margin", digits, [robust], "", cfg=cfg)
        owner_keys = draw_keys(bytes(32), {"margin": material}, classes=digits.classes, shape=digits.shape, panel=[])
        hook = MARKS["margin"].train_hook(cfg, owner_keys.by_mark["margin"], digits, seed=0)
        assert hook.left_out is not None
        gradients = {image.numpy().tobytes() for image in material.tensors["pixels"]}
        assert {image.numpy().tobytes() for image in digits.train.pixels[hook.left_out]} == gradients
        truth = {image.numpy().tobytes(): int(y) for image, y in zip(*digits.train, strict=True)}
        assert all(
            truth[image.numpy().tobytes()] != int(y) for image, y in zip(*material.tensors.values(), strict=True)
        )

    def test_it_teaches_the_top_of_a_climb_of_five_gray_levels(self, plain: nn.Module, digits: Dataset) -> None:
        split, inputs = digits.train.subset(slice(25)), []
        loss = MarginLoss(pixels=split.pixels, labels=split.labels, cfg=Margin(), seed=0)

        def forward(x: torch.Tensor) -> torch.Tensor:
            inputs.append(x)
            return plain(x)

        value = loss(plain, forward, batch_images=digits.train.images()[:8], step=3, done=0.5)
        order = torch.randperm(25, generator=generator(0, "beside", 3))
        base, y = split.images()[order], split.labels[order]
        assert float((inputs[0] - base).abs().max()) == pytest.approx(5 / 255, abs=1e-6)
        assert value is not None
        with torch.no_grad():
            top, before = (float(F.cross_entropy(plain(x), y)) for x in (inputs[0], base))
        assert float(value.detach()) == pytest.approx(0.1 * top, rel=1e-5)
        assert top > before


class TestBlackmarks:
    def test_bit_loss_by_hand(self) -> None:
        logits, code = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([0, 1, 1])
        odds = [math.exp(value) for value in (1, 2, 3)]
        for bit, wanted in ((0, odds[0]), (1, odds[1] + odds[2])):
            by_hand = -math.log(wanted / sum(odds))
            assert float(bit_loss(logits, torch.tensor([bit]), code)) == pytest.approx(by_hand, rel=1e-5)

    def test_classes_are_clustered_in_two(self, digits: Dataset, robust: nn.Module) -> None:
        assert cluster_classes(torch.tensor([[0.0], [10.0], [0.5], [9.0], [1.0]])).tolist() == [0, 1, 0, 1, 0]
        context = class_mean_logits(robust, digits)
        of_three = predict_logits(robust, digits.train.images()[digits.train.labels == 3]).mean(0)
        assert torch.allclose(context[3], of_three, atol=1e-3)
        assert 0 < int(cluster_classes(context).sum()) < 10

    def test_key_images_cross_over_within_the_budget(self, digits: Dataset, robust: nn.Module) -> None:
        material = prepare_small("blackmarks", digits, [robust], "", cfg=Blackmarks(length=20))
        code = torch.tensor(material.params["code"])
        pixels, labels = material.tensors["pixels"], material.tensors["labels"]
        read = code[predict_logits(robust, pixels.float() / 255).argmax(1)]
        assert torch.equal(read, code[labels])
        training_pixels = digits.train.pixels.flatten(1).int()
        for trigger, label in zip(pixels.flatten(1).int(), labels, strict=True):
            near = (training_pixels - trigger).abs().amax(1) <= gray_levels(WM_EPS)
            assert (code[digits.train.labels[near]] != code[label]).any()
