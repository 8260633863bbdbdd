"""A run's model as an ONNX file: it answers as the model does, and nothing else is ever written."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

from wootz.data import Dataset
from wootz.errors import ConfigError, ModelError
from wootz.models import ModelSpec, with_filter, write_model
from wootz.models.filters.inputs import Blur
from wootz.store import file_digest
from wootz.workflows import export
from wootz.workflows.export import export_run

ABOUT = {"kind": "protected", "data": "mnist-5k", "eps": 0.1, "seed": 0}


@pytest.fixture
def run(tmp_path: Path, plain: nn.Module, small_spec: ModelSpec) -> Path:
    write_model(tmp_path / "run", plain, small_spec, ABOUT)
    return tmp_path / "run"


def test_another_runtime_answers_as_the_model_does(
    run: Path, plain: nn.Module, digits: Dataset, tmp_path: Path
) -> None:
    told = export_run(run, tmp_path / "m.onnx")
    assert told["input"] == "images, float32 [N, 1, 28, 28] in [0, 1]"
    assert told["classes"] == list(digits.classes)
    assert told["digest"] == file_digest(tmp_path / "m.onnx")
    assert 0 < told["largest_difference"] < 1e-4
    x = digits.test.subset(slice(50)).images()
    (logits,) = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"images": x.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(logits), plain(x), atol=1e-3)


def test_nothing_is_written_over(run: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="is there already"):
        export_run(run, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == b"mine"


def test_a_filtered_model_is_refused(run: Path, plain: nn.Module, small_spec: ModelSpec, tmp_path: Path) -> None:
    filtered = with_filter(plain, Blur(), small_spec.shape, len(small_spec.classes))
    write_model(tmp_path / "blurred", filtered, small_spec, ABOUT)
    with pytest.raises(ModelError, match=r"filter \(blur\)"):
        export_run(tmp_path / "blurred", tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_file_that_answers_otherwise_is_not_written(
    run: Path, robust: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = export.to_onnx
    monkeypatch.setattr(export, "to_onnx", lambda _, spec: honest(robust, spec))
    with pytest.raises(ModelError, match="off by"):
        export_run(run, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
