"""Untrusted `model.json`: no huge network is built, and the weights must be those of the described network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import refused
from safetensors.torch import load, save
from torch import nn

from wootz.store import read_json
from wootz.suspects.files import open_file, open_suspect

Change = Callable[[dict[str, Any]], object]


def _set(key: str, value: Any) -> Change:
    return lambda about: about.update({key: value})


def _settings(**values: Any) -> Change:
    return lambda about: about["settings"].update(values)


def _shape(*sizes: Any) -> Change:
    return lambda about: about["input"].update(shape=list(sizes))


CHANGES: dict[str, tuple[Change, str]] = {
    "a width of 10^9": (_settings(width=10**9), "weights of the architecture|network cannot be built"),
    "a width of 10^18": (_settings(width=10**18), "network cannot be built"),
    "a width of 10^40": (_settings(width=10**40), "network cannot be built"),
    "a width of 2^1023": (_settings(width=1e308), "network cannot be built"),
    "a width below zero": (_settings(width=-4), "must be at least 1"),
    "a width of text": (_settings(width="many"), "must be a whole number"),
    "a setting that is not known": (_settings(wdth=3), "did you mean 'width'"),
    "nested settings": (_settings(width={"a": 1}), "valid architecture and settings"),
    "100 settings": (_settings(**{f"s{n}": n for n in range(100)}), "valid architecture and settings"),
    "no settings": (lambda about: about.pop("settings"), "valid architecture and settings"),
    "an architecture that is not known": (_set("architecture", "vit"), "unknown model 'vit'"),
    "an architecture of control characters": (_set("architecture", "\x1b[2J\n"), "unknown model"),
    "an architecture that is a list": (_set("architecture", [1]), "no valid architecture"),
    "another architecture": (
        _set("architecture", "paper-thief"),
        "weights of the architecture|network cannot be built|least",
    ),
    "images of 2^60 pixels": (_shape(1, 1 << 30, 1 << 30), "images"),
    "images of 2^22 channels": (_shape(1 << 21, 8, 8), "values"),
    "images of size 0": (_shape(1, 0, 8), "shape of its images"),
    "images of half a pixel": (_shape(1, 8.5, 8), "shape of its images"),
    "images of four dimensions": (_shape(1, 1, 8, 8), "shape of its images"),
    "images as text": (_set("input", "1x8x8"), "shape of its images"),
    "no classes": (_set("classes", []), "0 classes"),
    "100,000 classes": (_set("classes", ["a"] * 100_000), "100,000 classes"),
    "classes that are numbers": (_set("classes", [1, 2, 3]), "names of its classes"),
    "another schema": (_set("schema", 2), "schema 2"),
    "no schema": (lambda about: about.pop("schema"), "not the description"),
    "filters that are none": (_set("filters", ["jpeg"]), "its filters"),
    "100 filters": (_set("filters", [{"name": "jpeg"}] * 100), "its filters"),
    "a filter that is not known": (_set("filters", [{"name": "exec"}]), "unknown filter 'exec'"),
    "a filter without a name": (_set("filters", [{"quality": 3}]), "filters cannot be built"),
    "a giant filter": (_set("filters", [{"name": "autoencoder", "width": 10**12}]), "weights|network|setting"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_description_that_is_refused(run: Path, name: str) -> None:
    change, match = CHANGES[name]
    about = read_json(run / "model.json")
    change(about)
    (run / "model.json").write_text(json.dumps(about))
    refused(run, match)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "not strict JSON"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"schema": 1, "schema": 1}', "is repeated"),
        ('{"a":' * 100_000, "nested too deeply|not strict JSON"),
        ('{"schema": NaN}', "not a number"),
        ("\ud800", "not strict JSON"),
    ],
)
def test_a_description_that_is_none(run: Path, text: str, match: str) -> None:
    (run / "model.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    refused(run, match)


def _weights(run: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load((run / "model.safetensors").read_bytes())
    change(tensors)
    (run / "model.safetensors").write_bytes(save(tensors))


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (torch.full((2,), torch.nan), "NaN or infinity"),
        (torch.tensor([1.0, -torch.inf]), "NaN or infinity"),
        (torch.tensor([1.0, 1e300], dtype=torch.float64), "beyond the range of float32"),
        (torch.ones(3), r"'0.bias' is \[3\], not \[2\]"),
        (torch.ones(2, 1), r"'0.bias' is \[2, 1\], not \[2\]"),
    ],
)
def test_weights_that_are_refused(run: Path, value: torch.Tensor, match: str) -> None:
    _weights(run, lambda tensors: tensors.update({"0.bias": value}))
    refused(run, match)


def test_weights_too_many_or_too_few(run: Path) -> None:
    _weights(run, lambda tensors: tensors.update({"hidden": torch.ones(1)}))
    refused(run, r"'hidden' is \[1\], not missing")
    _weights(run, lambda tensors: (tensors.pop("hidden"), tensors.pop("0.bias")))
    refused(run, r"'0.bias' is missing, not \[2\]")


def test_a_description_of_its_own_goes_first(run: Path, net: nn.Module, x: torch.Tensor) -> None:
    (run / "model.safetensors").rename(run / "thief.safetensors")
    about = read_json(run / "model.json") | {"classes": ["x", "y", "z"]}
    (run / "thief.json").write_text(json.dumps(about))
    with open_suspect(run / "thief.safetensors", isolated=False) as (predict, spec):
        assert spec.classes == ("x", "y", "z")
        assert torch.equal(predict(x), net(x))


def test_other_images_than_it_takes(run: Path) -> None:
    with open_file(run, isolated=False) as opened, pytest.raises(Exception, match=r"takes images \[N, 1, 8, 8\], not"):
        opened.predict(torch.zeros(2, 3, 8, 8))
