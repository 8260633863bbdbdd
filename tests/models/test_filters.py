"""Filters around a model: what each makes of images and scores, and that they can be written and read."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from wootz.errors import ConfigError, StoreError
from wootz.models import (
    FILTERS,
    Filtered,
    ModelSpec,
    build,
    check_model,
    read_model,
    same_answers,
    with_filter,
    write_model,
)
from wootz.models.filters import filters_of, inputs, outputs
from wootz.models.filters.common import content_noise
from wootz.models.filters.fitted import Detector, Regress
from wootz.suspects.files import open_suspect

SPEC = ModelSpec(architecture="small-cnn", settings={"width": 4}, shape=(1, 28, 28), classes=tuple("abcde"))
KEEPERS = ("round", "top-k", "temperature", "output-noise", "flatten", "regress")


def filtered(name: str, inner: nn.Module | None = None) -> Filtered:
    torch.manual_seed(0)
    around = with_filter(inner or build(SPEC, 0), FILTERS[name][1](), SPEC.shape, len(SPEC.classes)).eval()
    if name == "regress":
        around.filter.slope.normal_()
        around.filter.components.normal_(std=0.1)
    if name == "refuse":
        around.filter.limit.fill_(1e-3)
    return around


def images(count: int = 6) -> Tensor:
    return torch.randint(0, 256, (count, 1, 28, 28), generator=torch.Generator().manual_seed(1)).float() / 255


@pytest.mark.parametrize("name", FILTERS)
class TestEveryFilter:
    def test_keeps_the_contract_of_models(self, name: str) -> None:
        assert check_model(filtered(name), SPEC.shape, 5) == ()

    def test_answers_an_image_alike_in_any_batch(self, name: str) -> None:
        model, x = filtered(name), images()
        answers = model(x)
        assert answers.isfinite().all()
        assert torch.allclose(model(x.flip(0)).flip(0), answers, atol=1e-5)
        assert torch.allclose(torch.cat([model(one[None]) for one in x]), answers, atol=1e-5)

    def test_survives_the_disk(self, name: str, tmp_path: Path) -> None:
        model, x = filtered(name), images()
        write_model(tmp_path, model, SPEC, {"kind": "removed"})
        again, spec, about = read_model(tmp_path)
        assert torch.equal(again(x), model(x))
        assert spec == SPEC
        assert [one["name"] for one in about["filters"]] == [name]
        with open_suspect(tmp_path / "model.safetensors", isolated=False) as (predict, _):
            assert torch.equal(predict(x), model(x))


@pytest.mark.parametrize("name", KEEPERS)
@pytest.mark.parametrize("scale", [0.0, 1.0, 300.0])
def test_output_filters_keep_the_top_class(name: str, scale: float) -> None:
    class Scores(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return scale * x.flatten(1)[:, :5]

    model, x = filtered(name, Scores()), images(200)
    answers = model(x)
    assert torch.equal(answers.argmax(1), Scores()(x).argmax(1))
    assert answers.isfinite().all()
    assert torch.allclose(answers.exp().sum(1), torch.ones(200), atol=1e-5)


def test_filters_nest(tmp_path: Path) -> None:
    model, x = filtered("round", filtered("autoencoder", filtered("jpeg"))), images()
    write_model(tmp_path, model, SPEC, {})
    again, _, about = read_model(tmp_path)
    assert [one["name"] for one in about["filters"]] == ["jpeg", "autoencoder", "round"]
    assert filters_of(again) == about["filters"]
    assert torch.equal(again(x), model(x))


@pytest.mark.parametrize("name", FILTERS)
def test_attacks_are_aimed_behind_filters_that_keep_the_top_class(name: str) -> None:
    model = filtered(name)
    aimed = same_answers(model)
    assert (aimed is model.inner) == (name in KEEPERS)
    assert torch.equal(aimed(images()).argmax(1), model(images()).argmax(1))


def test_a_model_without_filters_says_nothing_of_them(tmp_path: Path) -> None:
    write_model(tmp_path, build(SPEC, 0), SPEC, {})
    assert "filters" not in json.loads((tmp_path / "model.json").read_text())
    assert not isinstance(read_model(tmp_path)[0], Filtered)


def test_damaged_and_unknown_filters_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path, build(SPEC, 0), SPEC, {"filters": [{"name": "jpg"}]})
    with pytest.raises(ConfigError, match="did you mean 'jpeg'"):
        read_model(tmp_path)
    for damaged in (["jpeg"], 3, [{"quality": 3}]):
        write_model(tmp_path, build(SPEC, 0), SPEC, {"filters": damaged})
        with pytest.raises(StoreError, match="filters"):
            read_model(tmp_path)


class TestInputs:
    def test_flat_images_pass_unchanged(self) -> None:
        x = torch.full((2, 3, 16, 16), 128 / 255)
        for changed in (
            inputs.jpeg(inputs.Jpeg(), x),
            inputs.blur(inputs.Blur(), x),
            inputs.median(inputs.Median(), x),
            inputs.resize(inputs.Resize(), x),
        ):
            assert torch.allclose(changed, x, atol=1e-5)

    def test_by_hand(self) -> None:
        dot = torch.zeros(1, 1, 9, 9)
        dot[..., 4, 4] = 1
        assert not inputs.median(inputs.Median(), dot).any()
        spread = inputs.blur(inputs.Blur(sigma=1.0), dot)
        assert spread.sum().item() == pytest.approx(1, abs=1e-5)
        assert (spread[0, 0, 4, 5] / spread[0, 0, 4, 4]).item() == pytest.approx(math.exp(-0.5), rel=1e-4)
        assert inputs.reduce_bit_depth(
            inputs.BitDepth(levels=3), torch.tensor([[[[0.2, 0.3, 0.7, 0.8]]]])
        ).tolist() == [[[[0, 0.5, 0.5, 1]]]]
        board = ((torch.arange(8)[:, None] + torch.arange(8)) % 2).float()[None, None]
        assert inputs.resize(inputs.Resize(), board)[..., 2:-2, 2:-2].sub(0.5).abs().max() < 0.1

    def test_jpeg_loses_more_at_lower_quality(self) -> None:
        x = images()
        losses = [(inputs.jpeg(inputs.Jpeg(quality=quality), x) - x).abs().mean().item() for quality in (90, 50, 10)]
        assert 0 < losses[0] < losses[1] < losses[2]

    def test_noise_is_normal_and_follows_the_content(self) -> None:
        x = images(50)
        drawn = content_noise(x, 2000)
        assert abs(drawn.mean().item()) < 0.02
        assert drawn.std().item() == pytest.approx(1, abs=0.02)
        assert (drawn.corrcoef() - torch.eye(50)).abs().max() < 0.15
        other = x.clone()
        other[0, 0, 0, 0] = (other[0, 0, 0, 0] + 0.5) % 1  # one pixel of one image
        again = content_noise(other, 2000)
        assert torch.equal(again[1:], drawn[1:])
        assert not torch.isclose(again[0], drawn[0]).any()
        assert torch.equal(content_noise(x + 0.1 / 255, 2000), drawn)  # less than half a gray level
        assert (inputs.noise(inputs.Noise(sigma=0.1), x) - x).abs().mean() < 0.1


class TestOutputs:
    X = torch.zeros(1, 1, 2, 2)
    SCORES = torch.tensor([[0.004, 0.7, 0.2, 0.096]]).log()

    def test_by_hand(self) -> None:
        def shown(change: Tensor) -> list[float]:
            return change.exp()[0].tolist()

        assert shown(outputs.round_scores(outputs.Round(digits=2), self.X, self.SCORES)) == pytest.approx(
            [0.005, 0.7, 0.2, 0.1]
        )
        assert shown(outputs.top_k(outputs.TopK(k=2), self.X, self.SCORES)) == pytest.approx([0.05, 0.7, 0.2, 0.05])
        assert shown(outputs.top_k(outputs.TopK(k=9), self.X, self.SCORES)) == pytest.approx([0.004, 0.7, 0.2, 0.096])
        assert shown(outputs.flatten(outputs.Flatten(), self.X, self.SCORES)) == pytest.approx([0.1, 0.7, 0.1, 0.1])
        warm = outputs.apply_temperature(outputs.Temperature(temperature=2.0), self.X, self.SCORES)
        assert torch.allclose(warm, self.SCORES / 2)

    def test_gradients_go_straight_through(self) -> None:
        scores = self.SCORES.clone().requires_grad_(True)
        weights = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
        for change in (
            outputs.round_scores(outputs.Round(), self.X, scores),
            outputs.flatten(outputs.Flatten(), self.X, scores),
        ):
            (slope,) = torch.autograd.grad((change * weights).sum(), scores)
            assert torch.equal(slope, weights)

    def test_classes_that_would_pass_the_top_give_way(self) -> None:
        kept = outputs.keep_top(torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.5]]))
        assert kept[0].tolist() == pytest.approx([0.999, 1.0, 0.0])


def test_refuse_answers_suspicious_images_differently() -> None:
    inner, x = build(SPEC, 0).eval(), images()
    for answer in ("squeezed", "even"):
        around = with_filter(inner, Detector(answer=answer), SPEC.shape, 5).eval()  # type: ignore[arg-type]
        plain, squeezed, distance = around.filter.compare(inner, x)
        assert torch.equal(around(x), plain)  # before it is fitted
        around.filter.limit.copy_(distance.quantile(0.5))
        caught = distance > around.filter.limit
        assert torch.equal(around(x)[~caught], plain[~caught])
        expected = squeezed[caught] if answer == "squeezed" else torch.full((3, 5), math.log(0.2))
        assert torch.allclose(around(x)[caught], expected)


def test_regress_subtracts_a_linear_map() -> None:
    inner, x = build(SPEC, 0).eval(), images()
    around = with_filter(inner, Regress(features=2), SPEC.shape, 5).eval()
    before = inner(x).log_softmax(1)
    assert torch.allclose(around(x), before, atol=1e-2)  # before it is fitted; ties aside
    residual, top = around.filter, before.argmax(1)
    residual.components[:2] = 100 * torch.eye(2)
    residual.slope[:, :, 0] = -10 * torch.eye(5)[0]  # pushes class 0 up with the first pixel, clipped to 3
    lifted = around(x)[:, 0] - before[:, 0]
    assert torch.equal(around(x).argmax(1), top)
    assert (lifted[top != 0] > 0).all()


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (inputs.Jpeg, {"quality": 100}),
        (inputs.Median, {"size": 4}),
        (inputs.BitDepth, {"levels": 1}),
        (inputs.Resize, {"scale": 1.0}),
        (outputs.Round, {"digits": 0}),
        (outputs.TopK, {"k": 0}),
        (outputs.Temperature, {"temperature": 0.0}),
        (outputs.OutputNoise, {"sigma": 0.0}),
    ],
)
def test_settings_are_checked(kind: type, wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        kind(**wrong)
