from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from wootz.errors import ConfigError, ModelError, StoreError
from wootz.models import MODELS, ModelSpec, build, check_model, read_model, read_spec, write_model


def spec(name: str, channels: int = 1, size: int = 28) -> ModelSpec:
    classes = tuple("abc")
    return ModelSpec(architecture=name, settings={"width": 4}, shape=(channels, size, size), classes=classes)


@pytest.mark.parametrize("name", MODELS)
class TestEveryArchitecture:
    def test_keeps_the_contract(self, name: str) -> None:
        for channels, size in ((1, 28), (3, 32)):
            assert check_model(build(spec(name, channels, size), 0), (channels, size, size), 3) == ()

    def test_comes_from_its_seed_alone(self, name: str) -> None:
        torch.manual_seed(1)
        before = torch.random.get_rng_state()
        one, two, other = (build(spec(name), seed) for seed in (5, 5, 6))
        assert torch.equal(torch.random.get_rng_state(), before)
        weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in (one, two, other)]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])

    def test_survives_the_disk(self, name: str, tmp_path: Path) -> None:
        model = build(spec(name), 3).eval()
        write_model(tmp_path, model, spec(name), {"kind": "independent"})
        again, again_spec, about = read_model(tmp_path)
        x = torch.rand(2, 1, 28, 28)
        assert torch.equal(model(x), again(x))
        assert again_spec == spec(name)
        assert about["kind"] == "independent"


def test_published_sizes() -> None:
    def count(name: str, channels: int, size: int) -> int:
        full = ModelSpec(architecture=name, settings={}, shape=(channels, size, size), classes=tuple("0123456789"))
        return sum(p.numel() for p in build(full, 0).parameters())

    assert count("preact-resnet18", 3, 32) == 11_171_146 + 1024  # the usual count, and the last norm
    assert count("cw-cnn", 1, 28) == 312_202  # 320 + 9,248 + 18,496 + 36,928 + 205,000 + 40,200 + 2,010
    assert 500_000 < count("paper-cnn", 1, 28) < 700_000


class TestContract:
    def test_unusable_models_are_refused(self) -> None:
        flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        with pytest.raises(ModelError, match=r"does not accept images of shape \[1, 5, 5\]"):
            check_model(flat, (1, 5, 5), 3)
        with pytest.raises(ModelError, match=r"must return logits \[N, 4\]; for 4 images it returned \[4, 3\]"):
            check_model(flat, (1, 4, 4), 4)
        nn.init.constant_(flat[1].weight, float("nan"))
        with pytest.raises(ModelError, match="NaN"):
            check_model(flat, (1, 4, 4), 3)

    def test_warns_of_what_misleads_attacks(self) -> None:
        class Noisy(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.flatten(1)[:, :3] + torch.rand(len(x), 3)

        class Hidden(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.flatten(1)[:, :3].round().detach()

        class Moving(nn.BatchNorm1d):
            def train(self, mode: bool = True):
                return super().train(True)

        class Counting(nn.Linear):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.asked += 1
                return super().forward(x)

        counting = Counting(16, 3)
        counting.register_buffer("asked", torch.zeros(()))
        soft = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Softmax(1))
        moving = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), Moving(3))
        single = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.BatchNorm1d(3, track_running_stats=False))
        for model, flags in (
            (soft, ["probabilities"]),
            (Noisy(), ["randomized"]),
            (Hidden(), ["zero-gradient"]),
            (moving, ["batch-dependent", "stateful"]),
            (single, ["batch-dependent"]),
            (nn.Sequential(nn.Flatten(), counting), ["stateful"]),
        ):
            before = {name: buffer.clone() for name, buffer in model.named_buffers()}
            assert [warning.split(":")[0] for warning in check_model(model, (1, 4, 4), 3)] == flags
            assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


class TestSaved:
    def test_other_weights_are_refused(self, tmp_path: Path) -> None:
        write_model(tmp_path, build(spec("small-cnn"), 0), spec("small-cnn"), {})
        write_model(tmp_path / "other", build(spec("paper-cnn"), 0), spec("paper-cnn"), {})
        (tmp_path / "model.safetensors").write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
        with pytest.raises(ModelError, match="does not hold the weights of the architecture"):
            read_model(tmp_path)

    def test_nan_weights_are_refused(self, tmp_path: Path) -> None:
        model = build(spec("small-cnn"), 0)
        with torch.no_grad():
            next(model.parameters()).view(-1)[0] = float("nan")
        write_model(tmp_path, model, spec("small-cnn"), {})
        with pytest.raises(ModelError, match="contains NaN or infinity"):
            read_model(tmp_path)

    def test_a_broken_description(self, tmp_path: Path) -> None:
        (tmp_path / "model.json").write_text('{"schema": 1}')
        with pytest.raises(StoreError, match=r"model\.json: architecture: Field required"):
            read_spec(tmp_path / "model.json")
        (tmp_path / "model.json").write_text("{}")
        with pytest.raises(StoreError, match="is not the description of a model"):
            read_spec(tmp_path / "model.json")

    def test_an_unknown_architecture(self) -> None:
        with pytest.raises(ConfigError, match="did you mean 'small-cnn'"):
            build(spec("smal-cnn"), 0)
