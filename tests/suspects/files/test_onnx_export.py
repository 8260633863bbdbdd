"""Exported ONNX files answer as the model does."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch

from wootz.models import MODELS, ModelSpec, build, with_filter
from wootz.models.filters.inputs import Blur
from wootz.models.saved import to_onnx
from wootz.suspects.files import Limits, open_file, predictor
from wootz.suspects.files.onnx_file import check_onnx

SETTINGS = {"preact-resnet18": {"width": 4}}


def spec_of(name: str) -> ModelSpec:
    return ModelSpec(
        architecture=name, settings=SETTINGS.get(name, {"width": 4}), shape=(3, 20, 20), classes=("a", "b", "c", "d")
    )


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_agrees(name: str, tmp_path: Path) -> None:
    spec = spec_of(name)
    model = build(spec, 3)
    model.train()
    model(torch.rand(8, *spec.shape))  # batch statistics that are not the fresh ones
    model.eval()
    (tmp_path / "model.onnx").write_bytes(to_onnx(model, spec))
    x = torch.rand(7, *spec.shape, generator=torch.Generator().manual_seed(1))
    with open_file(tmp_path / "model.onnx", isolated=False) as opened:
        assert opened.spec.shape == spec.shape
        assert opened.spec.classes == spec.classes
        assert torch.allclose(opened.predict(x), predictor(model)(x), atol=1e-4)
        assert torch.allclose(opened.predict(x[:1]), predictor(model)(x[:1]), atol=1e-4)


def test_a_filter_is_exported_with_its_model(tmp_path: Path) -> None:
    spec = spec_of("small-cnn")
    model = with_filter(build(spec, 3), Blur(), spec.shape, 4).eval()
    (tmp_path / "model.onnx").write_bytes(to_onnx(model, spec))
    x = torch.rand(5, *spec.shape)
    with open_file(tmp_path / "model.onnx", isolated=False) as opened:
        assert torch.allclose(opened.predict(x), predictor(model)(x), atol=1e-4)


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    spec = spec_of("paper-cnn")
    model = build(spec, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = to_onnx(model, spec), to_onnx(model, spec)
    assert first == second
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_one_file_that_says_its_classes() -> None:
    data = to_onnx(build(spec_of("small-cnn"), 3), spec_of("small-cnn"))
    said = {entry.key: entry.value for entry in onnx.load_model_from_string(data).metadata_props}
    assert json.loads(said["classes"]) == ["a", "b", "c", "d"]
    assert check_onnx(data, "x", Limits()).batch is None
