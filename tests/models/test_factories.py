"""Networks of other code: by the name of a factory, in a wrapper, on disk and read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from wootz.config import to_mapping
from wootz.errors import ConfigError, ModelError, SuspectError
from wootz.models import ModelSpec, Wrapped, Wrapper, build, read_model, resolved_name, source_digest, write_model
from wootz.models.filters import with_filter
from wootz.models.filters.inputs import BitDepth
from wootz.suspects.files import open_suspect

SHAPE, CLASSES = (3, 12, 12), ("a", "b", "c")
CODE = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, in_channels=1, width=4):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))

class Answer:
    def __init__(self, logits):
        self.logits = logits

class Hugging(Net):
    def forward(self, x):
        return Answer(super().forward(x))

class Family:
    @classmethod
    def named(cls, kind, num_classes, in_channels=1):
        return Net(num_classes, in_channels, {"wide": 9}[kind])

def open_ended(**settings):
    return Net(**{"num_classes": 3} | settings)

def number(num_classes):
    return 3

def broken():
    raise RuntimeError("no weights here")
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "own_net.py"
    path.write_text(CODE)
    return path


def spec_of(code: Path, factory: str = "Net", wrapper: Wrapper | None = None, **settings: object) -> ModelSpec:
    name = resolved_name(f"{code}:{factory}")
    return ModelSpec(
        architecture=name,
        settings=settings,
        shape=SHAPE,
        classes=CLASSES,
        wrapper=wrapper or Wrapper(),
        source=source_digest(name),
    )


def images() -> torch.Tensor:
    return torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_a_factory_gets_the_settings_and_what_it_has_parameters_for(code: Path) -> None:
    model = build(spec_of(code, width=7), seed=0)
    assert model(images()).shape == (5, 3)
    assert model.state_dict()["conv.weight"].shape == (7, 3, 3, 3)


def test_a_factory_may_be_the_method_of_a_class(code: Path) -> None:
    assert build(spec_of(code, "Family.named", kind="wide"), seed=0).state_dict()["conv.weight"].shape == (9, 3, 3, 3)
    with pytest.raises(ConfigError, match=r"has no callable 'Family\.other'"):
        build(spec_of(code, "Family.other"), seed=0)


def test_a_network_is_initialized_by_the_seed_alone(code: Path) -> None:
    spec = spec_of(code)
    assert torch.equal(build(spec, seed=4)(images()), build(spec, seed=4)(images()))
    assert not torch.equal(build(spec, seed=4)(images()), build(spec, seed=5)(images()))


def test_modules_are_found_in_the_current_folder(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(code.parent)
    spec = ModelSpec(architecture="own_net:Net", settings={}, shape=SHAPE, classes=CLASSES)
    assert build(spec, seed=0)(images()).shape == (5, 3)


def test_a_relative_file_holds_in_every_folder(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(code.parent)
    name = resolved_name("own_net.py:Net")
    monkeypatch.chdir("/")
    assert build(ModelSpec(architecture=name, settings={}, shape=SHAPE, classes=CLASSES), seed=0) is not None


@pytest.mark.parametrize(
    ("name", "settings", "match"),
    [
        ("missing.py:Net", {}, "there is no such file"),
        ("no_such_module_of_mine:Net", {}, "cannot be imported"),
        ("{code}:Nett", {}, "has no callable 'Nett'"),
        ("{code}:number", {}, "returned int, not an nn.Module"),
        ("{code}:broken", {}, "RuntimeError: no weights here"),
        ("{code}:Net", {"widht": 3}, "model.widht: no such setting; did you mean 'width'"),
    ],
)
def test_a_factory_that_makes_no_network(code: Path, name: str, settings: dict[str, int], match: str) -> None:
    spec = ModelSpec(
        architecture=resolved_name(name.format(code=code)), settings=settings, shape=SHAPE, classes=CLASSES
    )
    with pytest.raises(ConfigError, match=match) as caught:
        build(spec, seed=0)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_forms() -> None:
    with pytest.raises(ConfigError, match=r"unknown model 'resnet': .*file.py:factory"):
        resolved_name("resnet")


def test_the_wrapper_resizes_normalizes_and_finds_the_logits(code: Path) -> None:
    wrapper = Wrapper(mean=(0.1, 0.2, 0.3), std=(0.5,), size=16)
    model = build(spec_of(code, "Hugging", wrapper), seed=0)
    network = build(spec_of(code), seed=1)
    network.load_state_dict(model.state_dict())
    model.eval(), network.eval()
    x = nn.functional.interpolate(images(), (16, 16), mode="bilinear")
    expected = network((x - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / 0.5)
    torch.testing.assert_close(model(images()), expected)


def test_an_output_without_logits_names_the_setting() -> None:
    model = Wrapped(Dictionary(), Wrapper())
    with pytest.raises(ConfigError, match=r"without 'logits'; name its logits: --set wrapper.logits=NAME"):
        model(images())
    assert Wrapped(Dictionary(), Wrapper(logits="scores"))(images()).shape == (5, 3)


class Dictionary(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"scores": x.mean(3)[:, :, 0]}


def test_tensors_have_the_names_of_the_network(code: Path, tmp_path: Path) -> None:
    spec = spec_of(code, wrapper=Wrapper(std=(0.5,)))
    model = build(spec, seed=3).eval()
    write_model(tmp_path / "run", model, spec, {})
    state = load_file(tmp_path / "run" / "model.safetensors")
    assert set(state) == {f"{name}" for name in build(spec, 0).network.state_dict()}
    filtered = with_filter(model, BitDepth(), SHAPE, len(CLASSES))
    assert {name.split(".", 1)[1] for name in filtered.state_dict()} >= set(state)
    filtered.load_state_dict(filtered.state_dict())


def test_a_run_is_read_again_and_says_when_its_code_changed(
    code: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = spec_of(code, wrapper=Wrapper(mean=(0.5,), std=(0.25,), size=9), width=5)
    model = build(spec, seed=3).eval()
    write_model(tmp_path / "run", model, spec, {})
    again, read, _ = read_model(tmp_path / "run")
    assert read == spec
    assert torch.equal(again(images()), model(images()))
    assert not caplog.messages
    code.write_text(CODE + "\n# another version\n")
    read_model(tmp_path / "run")
    assert "its code is not the one that the run was made with" in caplog.text


def test_a_suspect_is_run_by_its_onnx_file_and_never_by_its_code(code: Path, tmp_path: Path) -> None:
    spec = spec_of(code, wrapper=Wrapper(mean=(0.5,), std=(0.25,), size=9))
    model = build(spec, seed=3).eval()
    write_model(tmp_path / "run", model, spec, {})
    code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with open_suspect(tmp_path / "run") as (predict, known):
        torch.testing.assert_close(predict(images()), model(images()), atol=1e-4, rtol=1e-4)
        assert known.classes == CLASSES
    (tmp_path / "run" / "model.onnx").unlink()
    with (
        pytest.raises(SuspectError, match="no code that a suspect names is run; name the code"),
        open_suspect(tmp_path / "run"),
    ):
        pass
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("isolated", [True, False])
def test_weights_of_a_named_network(code: Path, tmp_path: Path, isolated: bool) -> None:
    from wootz.suspects.files import open_file

    spec = spec_of(code, wrapper=Wrapper(std=(0.5,)), width=6)
    model = build(spec, seed=3).eval()
    plain = tmp_path / "weights.pt"
    torch.save({f"module.{name}": tensor for name, tensor in model.state_dict().items()}, plain)
    with open_file(plain, isolated=isolated, allow_torch_zip=True, network=spec) as opened:
        torch.testing.assert_close(opened.predict(images()), model(images()), atol=1e-5, rtol=1e-5)


def test_a_module_of_python_alone_gets_an_onnx_file(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 3))
    spec = ModelSpec(architecture="module", settings={"class": "Sequential"}, shape=SHAPE, classes=CLASSES)
    write_model(tmp_path / "run", model, spec, {})
    with open_suspect(tmp_path / "run") as (predict, _):
        torch.testing.assert_close(predict(images()), model(images()), atol=1e-5, rtol=1e-5)
    with pytest.raises(ModelError, match="defined outside wootz"):
        read_model(tmp_path / "run")


def test_a_network_that_cannot_be_exported_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Sorting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svdvals(x[:, :, :, 0])

    spec = ModelSpec(architecture="module", settings={"class": "Sorting"}, shape=SHAPE, classes=CLASSES)
    write_model(tmp_path / "run", Sorting(), spec, {})
    assert "cannot be exported to ONNX" in caplog.text
    assert not (tmp_path / "run" / "model.onnx").exists()
    assert json.loads((tmp_path / "run" / "model.json").read_text())["architecture"] == "module"


def test_wrapper_settings_are_plain() -> None:
    assert to_mapping(Wrapper(mean=(0.5,))) == {"mean": (0.5,), "std": (), "size": None, "logits": ""}
    with pytest.raises(ConfigError, match="std"):
        Wrapper(std=(0.0,))
