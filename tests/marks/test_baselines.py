"""The baseline marks: each is embedded in a small net, and its own test and its exact one say what they should."""

from __future__ import annotations

import dataclasses
import inspect
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers import CPU, accuracy, ground
from wootz.checks import levels
from wootz.data import Dataset, Share
from wootz.errors import ConfigError
from wootz.evasion import predict_logits
from wootz.marks import (
    MARKS,
    App,
    Blackmarks,
    Content,
    Dawn,
    Entangled,
    Frontier,
    Guard,
    KeyedContent,
    Margin,
    Noise,
    OutOfDistribution,
    Paper,
    Protected,
    RunnerUp,
    Triggers,
    Uchida,
    Unrelated,
    protect,
)
from wootz.marks.baselines.app import worst_weights
from wootz.marks.baselines.blackmarks import bit_loss, class_means, clusters
from wootz.marks.baselines.entangled import last_hidden, place
from wootz.marks.baselines.margin import MarginLoss
from wootz.marks.baselines.soft_nearest_neighbor import scale_free, soft_nearest_neighbor
from wootz.marks.baselines.unrelated import fields
from wootz.marks.baselines.within_class import word
from wootz.models import ModelSpec, build
from wootz.ownership import HalfKey, LabelKey, Material, draw_keys, read_keys, write_keys
from wootz.rng import generator
from wootz.training import Hook, Recipe
from wootz.verify import Evidence, predictor, verify

EPS, WM_EPS = 0.1, 0.6


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of another data set: smooth fields with labels that mean nothing."""
    path = tmp_path_factory.mktemp("foreign") / "fields.npz"
    draw = generator(0, "foreign")
    images, labels = fields(240, (1, 28, 28), draw)[:, 0].numpy(), torch.randint(0, 10, (240,), generator=draw).numpy()
    np.savez(path, x_train=images[:120], y_train=labels[:120], x_test=images[120:], y_test=labels[120:])
    return str(path)


def small(mark: str, foreign: str) -> Any:
    """Return settings that a small net learns in a dozen epochs."""
    return {
        "triggers": Triggers(count=32),
        "runner-up": RunnerUp(features=6, probes=100),
        "guard": Guard(),
        "paper": Paper(count=60),
        "ood": OutOfDistribution(count=30, batch=5, source=foreign),
        "content": Content(count=60, every=2),
        "noise": Noise(count=60, every=2),
        "unrelated": Unrelated(count=60, every=2, source="fields"),
        "content-keyed": KeyedContent(patches=24, every=1),
        "frontier": Frontier(count=30),
        "entangled": Entangled(count=60, every=4),
        "margin": Margin(count=40, weight=1.0, steps=2),
        "blackmarks": Blackmarks(length=60, weight=1.0, every=1),
        "app": App(count=30, weight=0.3, source=foreign),
        "dawn": Dawn(),
        "uchida": Uchida(bits=32),
    }[mark]


def made(mark: str, data: Dataset, panel: list[nn.Module], foreign: str, *, seed: int = 0, cfg: Any = None) -> Material:
    base = ground(data, *panel, eps=EPS, wm_eps=WM_EPS)
    return MARKS[mark].prepare(cfg or small(mark, foreign), base, generator(seed, "pick"))


@pytest.mark.parametrize("mark", MARKS)
class TestContract:
    def test_material_follows_from_its_generator_and_from_no_key(
        self, mark: str, digits: Dataset, plain: nn.Module, robust: nn.Module, foreign: str
    ) -> None:
        assert list(inspect.signature(MARKS[mark].prepare).parameters) == ["cfg", "ground", "generator"]
        before = digits.train.pixels.clone(), [weight.clone() for weight in robust.parameters()]
        one, two = (made(mark, digits, [robust, plain], foreign, seed=3) for _ in range(2))
        assert (one.kind, one.facts, one.tensors.keys()) == (two.kind, two.facts, two.tensors.keys())
        assert all(torch.equal(tensor, two.tensors[name]) for name, tensor in one.tensors.items())
        assert torch.equal(digits.train.pixels, before[0])
        assert all(torch.equal(*pair) for pair in zip(robust.parameters(), before[1], strict=True))
        assert all(weight.requires_grad and weight.grad is None for weight in robust.parameters())
        if mark not in ("guard", "dawn", "runner-up", "uchida"):  # those have nothing to choose
            other = made(mark, digits, [robust, plain], foreign, seed=4)
            assert any(not torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())

    def test_material_goes_through_the_key_folder(
        self, mark: str, digits: Dataset, plain: nn.Module, robust: nn.Module, foreign: str, tmp_path: Path
    ) -> None:
        material = made(mark, digits, [robust, plain], foreign)
        rings = [
            draw_keys(
                bytes([n]) * 32, {mark: material}, classes=digits.classes, shape=digits.shape, panel=["sha256:00"]
            )
            for n in (1, 2)
        ]
        write_keys(tmp_path, rings[0])
        key, again, other = rings[0].keys[mark], read_keys(tmp_path).keys[mark], rings[1].keys[mark]
        differs = False
        for name in (field for field in type(key).__slots__ if field != "mark"):
            value, back, foreign_value = (getattr(k, name) for k in (key, again, other))
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, back), name
                differs |= not torch.equal(value, foreign_value)
            else:
                assert value == back, name
                differs |= value != foreign_value
        assert differs  # another secret, another key, though all else is equal

    def test_its_hook_can_go_to_another_process(
        self, mark: str, digits: Dataset, plain: nn.Module, robust: nn.Module, foreign: str
    ) -> None:
        material = made(mark, digits, [robust, plain], foreign)
        ring = draw_keys(bytes(32), {mark: material}, classes=digits.classes, shape=digits.shape, panel=[])
        hook = MARKS[mark].train_hook(small(mark, foreign), ring.keys[mark], digits, seed=5)
        copy: Hook = pickle.loads(pickle.dumps(hook))
        model = ground(digits).model.train()
        for one, two in zip(hook.extra, copy.extra, strict=True):
            losses = [loss(model, model, among=digits.train.images()[:8], step=0, done=0.0) for loss in (one, two)]
            assert losses[0] is not None
            assert torch.equal(losses[0], losses[1])
            losses[0].backward()
            assert any(weight.grad is not None and weight.grad.any() for weight in model.parameters())
            assert all(module.training for module in model.modules())


def embedded(mark: str, digits: Dataset, spec: ModelSpec, panel: list[nn.Module], cfg: Any) -> Protected:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wootz.marks.protecting.fresh_secret", lambda: b"\x5e" * 32)
        return protect(
            build(spec, 4), digits, eps=EPS, wm_eps=WM_EPS, panel=panel, marks=(mark,), settings={mark: cfg},
            recipe=Recipe(loss="natural", eps=EPS, epochs=12, lr=5e-3), seed=4, execution=CPU,
        )  # fmt: skip


def found(made: Protected, model: nn.Module) -> Evidence:
    """Return the evidence on `model`, beside the panel's last, plain, member."""
    return verify(made.ring.keys, predictor(model), panel=[predictor(made.panel[-1])]).evidence[0]


@pytest.mark.parametrize(
    ("mark", "own", "strangers", "bits"),
    [
        ("paper", 0.85, 0.4, 8),
        ("ood", 0.6, 0.4, 12),
        ("frontier", 0.95, 0.75, 8),
        ("margin", 0.9, 0.1, 40),
        ("app", 0.9, 0.4, 12),
    ],
)
def test_marks_that_are_learned_image_by_image_are_seen_by_both_tests(
    mark: str, own: float, strangers: float, bits: float,
    digits: Dataset, small_spec: ModelSpec, plain: nn.Module, robust: nn.Module, foreign: str,
) -> None:  # fmt: skip
    done = embedded(mark, digits, small_spec, [robust, plain], small(mark, foreign))
    marked, stranger = found(done, done.model), found(done, plain)
    assert marked.details["accuracy"] == marked.statistic >= own
    assert marked.details["panel"][0] <= strangers
    assert marked.bits > bits
    assert stranger.bits < 7
    assert accuracy(done.model, digits) > 0.75


@pytest.mark.parametrize("mark", ["content", "noise", "unrelated", "entangled"])
def test_marks_that_are_learned_as_a_pattern_are_seen_by_their_own_test_only(
    mark: str, digits: Dataset, small_spec: ModelSpec, plain: nn.Module, robust: nn.Module, foreign: str
) -> None:
    done = embedded(mark, digits, small_spec, [robust, plain], small(mark, foreign))
    marked = found(done, done.model)
    assert marked.details["accuracy"] > 0.8
    assert marked.details["control"] > 0.7  # never taught, and answered all the same
    assert marked.details["panel"][0] < 0.2
    assert marked.bits < 12
    assert found(done, plain).bits < 7
    assert accuracy(done.model, digits) > 0.75


def test_keyed_labels_make_a_pattern_testable(
    digits: Dataset, small_spec: ModelSpec, plain: nn.Module, robust: nn.Module, foreign: str
) -> None:
    done = embedded("content-keyed", digits, small_spec, [robust, plain], small("content-keyed", foreign))
    marked, stranger = found(done, done.model), found(done, plain)
    assert marked.statistic > 0.5  # on images that were never taught, in any form
    assert marked.bits > 30
    assert stranger.bits < 7


def test_a_message_is_read_from_the_marked_model_only(
    digits: Dataset, small_spec: ModelSpec, plain: nn.Module, robust: nn.Module, foreign: str
) -> None:
    done = embedded("blackmarks", digits, small_spec, [robust, plain], small("blackmarks", foreign))
    marked, stranger = found(done, done.model), found(done, plain)
    assert marked.details["bit_error"] < 0.05
    assert marked.statistic == pytest.approx(1 - marked.details["bit_error"])
    assert marked.bits > 35
    assert marked.details["panel_bit_error"][0] == stranger.details["bit_error"]
    assert 0.25 < stranger.details["bit_error"] < 0.75
    assert stranger.bits < 7


class TestPaper:
    def test_triggers_lie_at_the_budget_exactly_and_come_from_training_images(
        self, digits: Dataset, robust: nn.Module, foreign: str
    ) -> None:
        triggers = made("paper", digits, [robust], foreign, cfg=Paper(count=16)).tensors
        everyone = digits.train.pixels.flatten(1).int()
        for trigger, label in zip(triggers["pixels"].flatten(1).int(), triggers["labels"], strict=True):
            far = (everyone - trigger).abs().amax(1)
            at = (far == levels(WM_EPS)) & (digits.train.labels == label)
            assert at.any()

    def test_loose_ones_are_let_in_where_that_is_wanted(self, digits: Dataset, robust: nn.Module) -> None:
        loose = made("paper", digits, [robust], "", cfg=Paper(count=16, exact=False))
        assert len(loose.tensors["labels"]) == 32

    def test_its_passes_are_the_published_ones(self, digits: Dataset, robust: nn.Module) -> None:
        material = made("paper", digits, [robust], "", cfg=Paper())
        ring = draw_keys(bytes(32), {"paper": material}, classes=digits.classes, shape=digits.shape, panel=[])
        (taught,) = MARKS["paper"].train_hook(Paper(), ring.keys["paper"], digits, seed=0).passes
        assert (len(taught.labels), taught.batch, taught.frozen) == (100, 16, False)


class TestWithinClass:
    def test_the_word_is_written_on_images_of_the_base_class(self, digits: Dataset, robust: nn.Module) -> None:
        cfg = Content(count=20, base_class=3, target=7)
        tensors = made("content", digits, [robust], "", cfg=cfg).tensors
        mask = word(digits.shape)
        assert int(mask.sum()) == 7 + 10 + 11 + 7  # black squares of T, E, S, T, counted by hand
        assert (tensors["pixels"][:, mask] == 255).all()
        assert (tensors["labels"] == 7).all()
        own = digits.train.pixels[digits.train.labels == 3][:, ~mask]
        assert all((own == image[~mask]).all(1).any() for image in tensors["pixels"])

    def test_the_noise_is_one_pattern_whatever_the_generator(self, digits: Dataset, robust: nn.Module) -> None:
        cfg = Noise(count=20, std=0.3)
        gray = Share(torch.full_like(digits.train.pixels, 128), digits.train.labels)
        flat = dataclasses.replace(digits, train=gray)
        one, two = (made("noise", flat, [robust], "", seed=seed, cfg=cfg).tensors["pixels"] for seed in (0, 1))
        assert (one == one[0]).all()
        assert torch.equal(one[0], two[0])
        inner = (one[0] > 0) & (one[0] < 255)
        assert abs(float((one[0][inner].float() / 255).std()) - 0.25) < 0.05  # clipped at the ends, so below 0.3

    def test_fields_are_smooth_and_take_the_place_of_a_missing_data_set(
        self, digits: Dataset, robust: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("wootz.data.sources.places", lambda name, data_dir=None: (tmp_path,))
        material = made("unrelated", digits, [robust], "", cfg=Unrelated(count=8))
        assert material.facts["source"] == "fields"
        x = material.tensors["pixels"].float()
        assert (x[..., 1:] - x[..., :-1]).abs().mean() < 0.25 * x.std()


class TestFrontier:
    def test_half_of_the_key_fools_the_reference_and_half_does_not(self, digits: Dataset, robust: nn.Module) -> None:
        tensors = made("frontier", digits, [robust], "", cfg=Frontier(count=20)).tensors
        right = predict_logits(robust, tensors["pixels"].float() / 255).argmax(1) == tensors["labels"]
        assert int(right.sum()) == 20
        assert 5 <= int(right[:20].sum()) <= 15  # in mixed order, so that a budget asks both sorts

    def test_each_is_one_signed_step_from_its_image(self, digits: Dataset, robust: nn.Module) -> None:
        tensors = made("frontier", digits, [robust], "", cfg=Frontier(count=10, size=EPS)).tensors
        everyone = digits.train.pixels.flatten(1).int()
        for trigger, label in zip(tensors["pixels"].flatten(1).int(), tensors["labels"], strict=True):
            near = ((everyone - trigger).abs().amax(1) <= levels(EPS)) & (digits.train.labels == label)
            (base,) = everyone[near]
            x = (base.float() / 255).view(1, *digits.shape).requires_grad_(True)
            (slope,) = torch.autograd.grad(F.cross_entropy(robust(x), label[None]), x)
            stepped = (base + levels(EPS) * slope.flatten().sign().int()).clamp(0, 255)
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
        values = [float(scale_free(x + apart * groups[:, None], groups, 1.0)) for apart in (10.0, 2.0, 0.0)]
        assert values == sorted(values)
        assert values[-1] == pytest.approx(math.log(2), abs=0.1)
        assert float(scale_free(100 * x, groups, 1.0)) == pytest.approx(values[-1], rel=1e-4)

    def test_training_entangles(
        self, digits: Dataset, small_spec: ModelSpec, plain: nn.Module, robust: nn.Module
    ) -> None:
        mixed = []
        for kappa in (0.0, 1.0):
            cfg = Entangled(count=60, every=4, kappa=kappa)
            done = embedded("entangled", digits, small_spec, [robust, plain], cfg)
            key = done.ring.keys["entangled"]
            assert isinstance(key, HalfKey)
            patched, target = (
                key.pixels[~key.embedded].float() / 255,
                digits.test.images()[digits.test.labels == 1][:60],
            )
            with torch.no_grad(), last_hidden(done.model) as hidden:
                done.model(torch.cat([patched, target]))
            mixed.append(float(scale_free(hidden[0], torch.arange(120) < 60, 1.0)))
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
        assert place(Entangled(side=3), reference, zeros, ones) == (10, 20)


class TestPerturbedWeights:
    def test_by_hand(self) -> None:
        model = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
        x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([1])
        # Softmax p of (3, 0); the gradient is (p - onehot(y)) x^T = [[p0, 0], [p1 - 1, 0]], of norm sqrt(2) p0.
        moved = worst_weights(model, x, y, 0.1)["weight"]
        step = 0.1 * 5 / math.sqrt(2)
        assert torch.allclose(moved, torch.tensor([[3.0 + step, 0.0], [-step, 4.0]]), atol=1e-5)
        assert float((moved - model.weight).norm().detach()) == pytest.approx(0.1 * 5, rel=1e-5)
        assert model.weight.grad is None

    def test_the_gradient_is_the_one_at_the_moved_weights(self, plain: nn.Module, digits: Dataset) -> None:
        few = digits.train.take(slice(16))
        moved = worst_weights(plain, few.images(), few.labels, 0.02)
        loss = F.cross_entropy(torch.func.functional_call(plain, moved, (few.images(),)), few.labels)
        ours = torch.autograd.grad(loss, list(plain.parameters()))
        there = {name: weight.detach().requires_grad_(True) for name, weight in moved.items()}
        there_loss = F.cross_entropy(torch.func.functional_call(plain, there, (few.images(),)), few.labels)
        plain_loss = F.cross_entropy(plain(few.images()), few.labels)
        for one, two in zip(ours, torch.autograd.grad(there_loss, list(there.values())), strict=True):
            assert torch.allclose(one, two, atol=1e-6)
        assert loss > plain_loss


class TestMargin:
    def test_candidates_of_both_halves_are_left_out_of_training_and_have_wrong_labels(
        self, digits: Dataset, robust: nn.Module
    ) -> None:
        cfg = Margin(count=20)
        material = made("margin", digits, [robust], "", cfg=cfg)
        ring = draw_keys(bytes(32), {"margin": material}, classes=digits.classes, shape=digits.shape, panel=[])
        hook = MARKS["margin"].train_hook(cfg, ring.keys["margin"], digits, seed=0)
        assert hook.left_out is not None
        ours = {image.numpy().tobytes() for image in material.tensors["pixels"]}
        assert {image.numpy().tobytes() for image in digits.train.pixels[hook.left_out]} == ours
        truth = {image.numpy().tobytes(): int(y) for image, y in zip(*digits.train, strict=True)}
        assert all(
            truth[image.numpy().tobytes()] != int(y) for image, y in zip(*material.tensors.values(), strict=True)
        )

    def test_it_teaches_the_top_of_a_climb_of_five_gray_levels(self, plain: nn.Module, digits: Dataset) -> None:
        few, seen = digits.train.take(slice(25)), []
        loss = MarginLoss(pixels=few.pixels, labels=few.labels, cfg=Margin(), seed=0)

        def forward(x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return plain(x)

        value = loss(plain, forward, among=digits.train.images()[:8], step=3, done=0.5)
        order = torch.randperm(25, generator=generator(0, "beside", 3))
        base, y = few.images()[order], few.labels[order]
        assert float((seen[0] - base).abs().max()) == pytest.approx(5 / 255, abs=1e-6)
        assert value is not None
        with torch.no_grad():
            top, before = (float(F.cross_entropy(plain(x), y)) for x in (seen[0], base))
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
        assert clusters(torch.tensor([[0.0], [10.0], [0.5], [9.0], [1.0]])).tolist() == [0, 1, 0, 1, 0]
        means = class_means(robust, digits)
        of_three = predict_logits(robust, digits.train.images()[digits.train.labels == 3]).mean(0)
        assert torch.allclose(means[3], of_three, atol=1e-3)
        assert 0 < int(clusters(means).sum()) < 10

    def test_key_images_cross_over_within_the_budget(self, digits: Dataset, robust: nn.Module) -> None:
        material = made("blackmarks", digits, [robust], "", cfg=Blackmarks(length=20))
        code = torch.tensor(material.facts["code"])
        pixels, labels = material.tensors["pixels"], material.tensors["labels"]
        read = code[predict_logits(robust, pixels.float() / 255).argmax(1)]
        assert torch.equal(read, code[labels])
        everyone = digits.train.pixels.flatten(1).int()
        for trigger, label in zip(pixels.flatten(1).int(), labels, strict=True):
            near = (everyone - trigger).abs().amax(1) <= levels(WM_EPS)
            assert (code[digits.train.labels[near]] != code[label]).any()


def test_a_keyed_patch_is_taught_on_other_images_than_it_is_tested_on(digits: Dataset, robust: nn.Module) -> None:
    cfg = KeyedContent(patches=8)
    material = made("content-keyed", digits, [robust], "", cfg=cfg)
    ring = draw_keys(bytes(32), {"content-keyed": material}, classes=digits.classes, shape=digits.shape, panel=[])
    key = ring.keys["content-keyed"]
    assert isinstance(key, LabelKey)
    assert (key.labels != key.base).all()
    hook = MARKS["content-keyed"].train_hook(cfg, key, digits, seed=0)
    assert hook.left_out is not None
    bases = {image.numpy().tobytes() for image in key.base_pixels}
    assert {image.numpy().tobytes() for image in digits.train.pixels[hook.left_out]} == bases
    changed = key.pixels != key.base_pixels
    spread = changed.flatten(1).sum(1)
    assert (spread > 0).all()
    assert (spread <= cfg.side**2).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Paper(batch=0), "batch = 0: must be at least 1"),
        (lambda: OutOfDistribution(batch=0), "batch = 0: must be at least 1"),
        (lambda: Content(target=0), "target = 0: must differ from base_class"),
        (lambda: Noise(std=0.0), "std = 0.0: must be above 0"),
        (lambda: Unrelated(weight=-1.0), "weight = -1.0: must be above 0"),
        (lambda: KeyedContent(side=0), "side = 0: must be at least 1"),
        (lambda: Frontier(size=1.5), "size = 1.5: must be between 0 and 1"),
        (lambda: Entangled(kappa=-0.1), "kappa = -0.1: must be 0 or above"),
        (lambda: Entangled(temperature=0.0), "temperature = 0.0: must be above 0"),
        (lambda: Margin(steps=0), "steps = 0: must be at least 1"),
        (lambda: Blackmarks(length=7), "length = 7: must be even"),
        (lambda: App(reach=2.0), "reach = 2.0: must be from 0 to 1"),
    ],
)
def test_settings_that_can_not_be(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("mark", "cfg", "message"),
    [
        ("content", Content(count=400), "needs 800 training images of class 0; there are"),
        ("noise", Noise(target=12), "target = 12: must be below 10"),
        ("unrelated", Unrelated(target=12, source="fields"), "target = 12: must be below 10"),
        ("unrelated", Unrelated(source="fasion-mnist"), "did you mean 'fashion-mnist'"),
        ("ood", OutOfDistribution(count=600, source="mnist-5k"), "needs 1200 test images of mnist-5k; it has"),
        ("entangled", Entangled(side=40), "side = 40: must fit into images of"),
        ("content-keyed", KeyedContent(side=40), "side = 40: must fit into images of"),
        ("frontier", Frontier(count=100, size=1 / 255), "true and 100 false adversaries of 100 each; set another size"),
        ("margin", Margin(count=2000), "must be at most a quarter of"),
    ],
)
def test_settings_that_the_data_do_not_allow(
    mark: str, cfg: Any, message: str, digits: Dataset, robust: nn.Module
) -> None:
    with pytest.raises(ConfigError, match=message):
        made(mark, digits, [robust], "", cfg=cfg)


def test_entangling_needs_a_linear_layer(digits: Dataset) -> None:
    model = nn.Sequential(nn.Conv2d(1, 10, 28), nn.Flatten())
    with pytest.raises(ConfigError, match="needs a model with a linear layer"):
        made("entangled", digits, [model], "", cfg=Entangled(count=10))
