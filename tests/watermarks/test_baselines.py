"""The baseline marks: each is embedded in a small net, and its own test and its exact one say what they should."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from baselines import prepare_small, small_config, train_embedded
from helpers import accuracy, mark_context
from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.keys import LabelKey, draw_keys, read_keys, write_keys
from wootz.models import ModelSpec, build
from wootz.statistics import Evidence, verify
from wootz.suspects.files import predictor
from wootz.training import Hook
from wootz.watermarks import (
    MARKS,
    App,
    Blackmarks,
    Content,
    Entangled,
    Frontier,
    KeyedContent,
    Margin,
    Noise,
    OutOfDistribution,
    Paper,
    Unrelated,
)
from wootz.workflows.owner import Owner


@pytest.mark.parametrize("mark", MARKS)
class TestContract:
    def test_material_follows_from_its_generator_and_from_no_key(
        self, mark: str, digits: Dataset, plain: nn.Module, robust: nn.Module, foreign: str
    ) -> None:
        assert list(inspect.signature(MARKS[mark].prepare).parameters) == ["cfg", "context", "generator"]
        before = digits.train.pixels.clone(), [weight.clone() for weight in robust.parameters()]
        one, two = (prepare_small(mark, digits, [robust, plain], foreign, seed=3) for _ in range(2))
        assert (one.kind, one.params, one.tensors.keys()) == (two.kind, two.params, two.tensors.keys())
        assert all(torch.equal(tensor, two.tensors[name]) for name, tensor in one.tensors.items())
        assert torch.equal(digits.train.pixels, before[0])
        assert all(torch.equal(*pair) for pair in zip(robust.parameters(), before[1], strict=True))
        assert all(weight.requires_grad and weight.grad is None for weight in robust.parameters())
        if mark not in ("guard", "dawn", "runner-up", "uchida"):  # those have nothing to choose
            other = prepare_small(mark, digits, [robust, plain], foreign, seed=4)
            assert any(not torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())

    def test_material_goes_through_the_key_folder(
        self, mark: str, digits: Dataset, plain: nn.Module, robust: nn.Module, foreign: str, tmp_path: Path
    ) -> None:
        material = prepare_small(mark, digits, [robust, plain], foreign)
        both = [
            draw_keys(
                bytes([n]) * 32, {mark: material}, classes=digits.classes, shape=digits.shape, panel=["sha256:00"]
            )
            for n in (1, 2)
        ]
        write_keys(tmp_path, both[0])
        key, again, other = both[0].by_mark[mark], read_keys(tmp_path).by_mark[mark], both[1].by_mark[mark]
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
        material = prepare_small(mark, digits, [robust, plain], foreign)
        owner_keys = draw_keys(bytes(32), {mark: material}, classes=digits.classes, shape=digits.shape, panel=[])
        hook = MARKS[mark].train_hook(small_config(mark, foreign), owner_keys.by_mark[mark], digits, seed=5)
        copy: Hook = pickle.loads(pickle.dumps(hook))
        model = mark_context(digits).model.train()
        for one, two in zip(hook.extra, copy.extra, strict=True):
            losses = [
                loss(model, model, batch_images=digits.train.images()[:8], step=0, done=0.0) for loss in (one, two)
            ]
            assert losses[0] is not None
            assert torch.equal(losses[0], losses[1])
            losses[0].backward()
            assert any(weight.grad is not None and weight.grad.any() for weight in model.parameters())
            assert all(module.training for module in model.modules())


@pytest.mark.parametrize("mark", [name for name in MARKS if name != "uchida"])  # it looks at weights, not at images
def test_a_net_that_normalizes_batches_meets_it_among_the_images_of_the_step(
    mark: str, digits: Dataset, plain: nn.Module, robust: nn.Module, foreign: str
) -> None:
    material = prepare_small(mark, digits, [robust, plain], foreign)
    owner_keys = draw_keys(bytes(32), {mark: material}, classes=digits.classes, shape=digits.shape, panel=[])
    hook = MARKS[mark].train_hook(small_config(mark, foreign), owner_keys.by_mark[mark], digits, seed=5)
    settings = {"width": 4, "hidden": 32, "dropout": 0.0}
    spec = ModelSpec(architecture="paper-cnn", settings=settings, shape=digits.shape, classes=digits.classes)
    model = build(spec, 1).train()
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for loss in hook.extra:
        batch_images = digits.train.images()[:16].split(8)
        one, two, again = (
            loss(model, model, batch_images=images, step=0, done=0.0) for images in (*batch_images, batch_images[0])
        )
        assert one is not None
        assert one.isfinite()
        assert torch.equal(one, again)
        assert not torch.equal(one, two)
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in model.named_buffers() if "running" in name)


def evidence_on(owner: Owner, model: nn.Module) -> Evidence:
    """Return the evidence on `model`, with the plain reference model as panel."""
    assert owner.references is not None
    return verify(owner.keys.by_mark, predictor(model), panel=[predictor(owner.references.plain)]).evidence[0]


@pytest.mark.parametrize(
    ("mark", "own", "independents", "bits"),
    [
        ("paper", 0.75, 0.4, 4),
        ("ood", 0.6, 0.4, 12),
        ("frontier", 0.8, 0.75, 5),
        ("margin", 0.8, 0.1, 30),
        ("app", 0.6, 0.4, 12),
    ],
)
@pytest.mark.long
def test_marks_that_are_learned_image_by_image_are_seen_by_both_tests(
    mark: str,
    own: float,
    independents: float,
    bits: float,
    digits: Dataset,
    small_spec: ModelSpec,
    plain: nn.Module,
    robust: nn.Module,
    foreign: str,
) -> None:
    protected = train_embedded(mark, digits, small_spec, [robust, plain], small_config(mark, foreign))
    marked, independent = evidence_on(protected, protected.model), evidence_on(protected, plain)
    assert marked.details["accuracy"] == marked.statistic >= own
    assert marked.details["panel"][0] <= independents
    assert marked.bits > bits
    assert independent.bits < 7
    assert accuracy(protected.model, digits) > 0.75


@pytest.mark.parametrize("mark", ["content", "noise", "unrelated", "entangled"])
@pytest.mark.long
def test_marks_that_are_learned_as_a_pattern_are_seen_by_their_own_test_only(
    mark: str, digits: Dataset, small_spec: ModelSpec, plain: nn.Module, robust: nn.Module, foreign: str
) -> None:
    protected = train_embedded(mark, digits, small_spec, [robust, plain], small_config(mark, foreign))
    marked = evidence_on(protected, protected.model)
    assert marked.details["accuracy"] > 0.8
    assert marked.details["control"] > 0.7  # never taught, and answered all the same
    assert marked.details["panel"][0] < 0.2
    assert marked.bits < 12
    assert evidence_on(protected, plain).bits < 7
    assert accuracy(protected.model, digits) > 0.75


@pytest.mark.long
def test_keyed_labels_make_a_pattern_testable(
    digits: Dataset, small_spec: ModelSpec, plain: nn.Module, robust: nn.Module, foreign: str
) -> None:
    protected = train_embedded(
        "content-keyed", digits, small_spec, [robust, plain], small_config("content-keyed", foreign)
    )
    marked, independent = evidence_on(protected, protected.model), evidence_on(protected, plain)
    assert marked.statistic > 0.5  # on images that were never taught, in any form
    assert marked.bits > 30
    assert independent.bits < 7


@pytest.mark.long
def test_a_message_is_read_from_the_marked_model_only(
    digits: Dataset, small_spec: ModelSpec, plain: nn.Module, robust: nn.Module, foreign: str
) -> None:
    protected = train_embedded("blackmarks", digits, small_spec, [robust, plain], small_config("blackmarks", foreign))
    marked, independent = evidence_on(protected, protected.model), evidence_on(protected, plain)
    assert marked.details["bit_error"] < 0.05
    assert marked.statistic == pytest.approx(1 - marked.details["bit_error"])
    assert marked.bits > 35
    assert marked.details["panel_bit_error"][0] == independent.details["bit_error"]
    assert 0.25 < independent.details["bit_error"] < 0.75
    assert independent.bits < 7


def test_a_keyed_patch_is_taught_on_other_images_than_it_is_tested_on(digits: Dataset, robust: nn.Module) -> None:
    cfg = KeyedContent(patches=8)
    material = prepare_small("content-keyed", digits, [robust], "", cfg=cfg)
    owner_keys = draw_keys(bytes(32), {"content-keyed": material}, classes=digits.classes, shape=digits.shape, panel=[])
    key = owner_keys.by_mark["content-keyed"]
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
def test_settings_that_are_invalid(make: Any, message: str) -> None:
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
        prepare_small(mark, digits, [robust], "", cfg=cfg)


def test_entangling_needs_a_linear_layer(digits: Dataset) -> None:
    model = nn.Sequential(nn.Conv2d(1, 10, 28), nn.Flatten())
    with pytest.raises(ConfigError, match="needs a model with a linear layer"):
        prepare_small("entangled", digits, [model], "", cfg=Entangled(count=10))
