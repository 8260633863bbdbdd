from __future__ import annotations

import dataclasses
import errno
import importlib
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import wootz
from wootz import checks, config, errors, modes, records, registry, rng, store
from wootz.errors import ConfigError, Error, StoreError
from wootz.training import Recipe


def test_every_public_name_is_there() -> None:
    for name in wootz.__all__:
        assert getattr(wootz, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        importlib.import_module("wootz").nothing  # noqa: B018


def test_importing_the_package_and_the_command_line_loads_no_heavy_library() -> None:
    code = "import sys, wootz, wootz.cli.app; print([m for m in ('torch', 'matplotlib', 'scipy') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_error_is_documented_and_is_an_error() -> None:
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), Error)
        assert name in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (checks.positive, 0.0, "must be above 0"),
        (checks.positive, math.nan, "must be above 0"),
        (checks.not_negative, -1.0, "must be 0 or above"),
        (lambda **v: checks.inside(0, 1, **v), 1.0, "between 0 and 1, both excluded"),
        (lambda **v: checks.within(0, 1, **v), 1.5, "from 0 to 1"),
        (lambda **v: checks.at_least(3, **v), 2, "at least 3"),
    ],
)
def test_checks_name_the_value(check: object, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"eps = {value!r}.*{message}"):
        check(eps=value)  # type: ignore[operator]


def test_lookup_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown preset 'fsat': did you mean 'fast'\? known: fast, paper"):
        registry.lookup({"fast": 1, "paper": 2}, "fsat", "preset")


class TestConfig:
    def test_settings_reach_nested_configs_and_read_fractions(self) -> None:
        changed = config.with_settings(Recipe(), ["eps=8/255", "epochs=3", "step_size=none", "loss=natural"])
        assert (changed.eps, changed.epochs, changed.step_size, changed.loss) == (8 / 255, 3, None, "natural")

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ("epz=0.1", r"epz: no such setting; did you mean 'eps'\?"),
            ("epochs=2.5", "must be a whole number"),
            ("eps=big", "must be a number"),
            ("eps=1", "between 0 and 1"),
            ("optimizer=adam", "did you mean 'adamw'"),
            ("eps", "must be key=value"),
            ("eps.low=1", "has no settings of its own"),
        ],
    )
    def test_bad_settings_are_one_plain_error(self, setting: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            config.with_settings(Recipe(), [setting])

    def test_round_trip_and_digest(self) -> None:
        recipe = Recipe(eps=0.2, steps=7)
        assert config.from_mapping(Recipe, config.to_mapping(recipe)) == recipe
        assert config.digest(recipe) == config.digest(Recipe(steps=7, eps=0.2))
        assert config.digest(recipe) != config.digest(dataclasses.replace(recipe, steps=8))

    def test_unknown_key_of_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"grid\.stepz: no such setting of Recipe; did you mean 'steps'"):
            config.from_mapping(Recipe, {"stepz": 3}, "grid")
        (tmp_path / "x.toml").write_text("a = [")
        with pytest.raises(ConfigError, match=r"x\.toml"):
            config.read_toml(tmp_path / "x.toml")


class TestRng:
    def test_same_path_same_stream_other_path_other_stream(self) -> None:
        one, two, other = (torch.rand(4, generator=rng.generator(1, *path)) for path in (("a", 1), ("a", 1), ("a", 2)))
        assert torch.equal(one, two)
        assert not torch.equal(one, other)

    def test_the_global_stream_is_restored(self) -> None:
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        with rng.global_seed(9, "x"):
            torch.rand(100)
        assert torch.equal(torch.rand(3), expected)


class TestModes:
    def test_eval_mode_is_undone_after_an_exception(self) -> None:
        model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout())
        model[1].eval()
        model[0].weight.requires_grad_(False)

        def fail_inside() -> None:
            with modes.eval_mode(model):
                assert not any(m.training for m in model.modules())
                assert not any(p.requires_grad for p in model.parameters())
                raise RuntimeError("inside")

        with pytest.raises(RuntimeError, match="inside"):
            fail_inside()
        assert [m.training for m in model.modules()] == [True, True, False, True]
        assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]

    def test_frozen_statistics_do_not_move(self) -> None:
        model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout()).train()
        before = model[0].running_mean.clone()
        with modes.frozen_statistics(model):
            model(torch.randn(8, 3) + 5)
            assert model[1].training
        assert torch.equal(model[0].running_mean, before)
        model(torch.randn(8, 3) + 5)
        assert not torch.equal(model[0].running_mean, before)

    def test_kept_statistics_do_not_move_in_train_mode(self) -> None:
        model = nn.Sequential(nn.BatchNorm1d(3)).train()
        before, x = model[0].running_mean.clone(), torch.randn(8, 3) + 5
        with modes.kept_statistics(model):
            assert model(x).mean(0).abs().max() < 1e-5
        assert torch.equal(model[0].running_mean, before)
        model(x)
        assert not torch.equal(model[0].running_mean, before)

    def test_the_last_input_of_a_module_is_captured(self) -> None:
        model = nn.Linear(3, 3)
        with modes.capture_inputs(model) as seen:
            assert not seen
            for factor in (1.0, 2.0):
                model(torch.full((2, 3), factor, requires_grad=True))
        model(torch.zeros(2, 3))
        assert torch.equal(seen[-1], torch.full((2, 3), 2.0))
        assert not seen[-1].requires_grad

    def test_only_some_networks_normalize_batches(self) -> None:
        assert modes.normalizes_batches(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
        assert not modes.normalizes_batches(nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)))

    def test_a_model_is_moved_to_a_device_and_back(self) -> None:
        devices = []

        class Moved(nn.Linear):
            def to(self, device: torch.device | str) -> nn.Linear:
                devices.append(str(device))
                return self

        with pytest.raises(RuntimeError, match="inside"), modes.on_device(Moved(3, 3), "cuda"):
            raise RuntimeError("inside")
        assert devices == ["cuda", "cpu"]
        assert modes.device_of(nn.Flatten()).type == "cpu"


class TestStore:
    def test_round_trips_and_mode(self, tmp_path: Path) -> None:
        store.write_tensors(tmp_path / "a" / "t.safetensors", {"x": torch.arange(3)}, mode=0o600)
        assert torch.equal(store.read_tensors(tmp_path / "a" / "t.safetensors")["x"], torch.arange(3))
        assert (tmp_path / "a" / "t.safetensors").stat().st_mode & 0o777 == 0o600
        store.write_json(tmp_path / "j.json", {"k": [1, "ü"]})
        assert store.read_json(tmp_path / "j.json") == {"k": [1, "ü"]}

    @pytest.mark.parametrize("call", ["open", "fsync", "replace"])
    @pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EIO, errno.EACCES])
    def test_a_failed_write_leaves_the_old_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, fault: int
    ) -> None:
        path = tmp_path / "model.json"
        store.write_bytes(path, b"old")

        def fail(*_: object, **__: object) -> None:
            raise OSError(fault, os.strerror(fault))

        with monkeypatch.context() as patch:
            patch.setattr(store.os, call, fail)
            with pytest.raises(StoreError, match=r"model\.json: cannot be written"):
                store.write_bytes(path, b"new")
        assert path.read_bytes() == b"old"
        assert [p.name for p in tmp_path.iterdir()] == ["model.json"]

    def test_damaged_files_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "t.safetensors").write_bytes(b"\xff" * 20)
        (tmp_path / "j.json").write_text("{")
        for read, name in ((store.read_tensors, "t.safetensors"), (store.read_json, "j.json")):
            with pytest.raises(StoreError, match=name):
                read(tmp_path / name)
        with pytest.raises(StoreError, match="cannot be read"):
            store.read_bytes(tmp_path / "nothing")


class TestRecords:
    CELL = records.Result(
        data="mnist",
        suspect="s",
        kind="stolen",
        theft="retrain-soft",
        access="scores",
        clean=0.9,
        seconds=1.5,
        seed=3,
        robust=records.RobustRecord(eps=0.25, attack="pgd-40x2", n=10, accuracy=0.5, flags=("zero-gradient",)),
        evidence=(records.EvidenceRecord(mark="runner-up", p="1e-9", bits=29.9, queries=5, statistic=0.4),),
        bits=29.9,
        verdict="NOT SHOWN",
        notes=("a note",),
        digest="ab12",
        axes={"data": "mnist", "mark": "wootz"},
        also=(records.RobustRecord(eps=0.25, attack="pgd-25", n=10, accuracy=0.6),),
        error="it broke",
    )

    def test_round_trip(self, tmp_path: Path) -> None:
        assert records.from_json(records.to_json(self.CELL)) == self.CELL
        records.append(tmp_path / "cells.jsonl", self.CELL)
        records.append(tmp_path / "cells.jsonl", self.CELL)
        assert records.read_lines(tmp_path / "cells.jsonl") == [self.CELL, self.CELL]

    def test_broken_lines_and_other_schemas(self, tmp_path: Path) -> None:
        (tmp_path / "cells.jsonl").write_text('{"schema": 1, "data"\n')
        with pytest.raises(StoreError, match="line 1: is not JSON"):
            records.read_lines(tmp_path / "cells.jsonl")
        with pytest.raises(StoreError, match="schema 9"):
            records.from_json({"schema": 9})

    @given(st.floats(-5000, -0.001))
    def test_decimal_p_reads_back(self, log_p: float) -> None:
        mantissa, _, exponent = records.decimal_p(log_p).partition("e")
        again = math.log(float(mantissa)) + int(exponent or 0) * math.log(10)
        assert again == pytest.approx(log_p, abs=0.06, rel=1e-3)
