"""Small real things that many tests share: real digits, a briefly trained net, an owner of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from authority import Authority
from court import as_owner, court
from helpers import CPU, Backdoor
from wootz.data import Dataset, load
from wootz.models import ModelSpec, build
from wootz.training import Hook, Recipe, TriggerEpoch, train

__all__ = ["as_owner", "court"]

torch.set_num_threads(1)  # small nets gain nothing from more, and runs side by side disturb each other


@pytest.fixture(scope="session", autouse=True)
def _sources_are_read() -> None:
    """Let Hypothesis read the sources for constants, which in a fresh clone would count as some test's slow drawing."""

    @settings(max_examples=1, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.text())
    def draw(text: str) -> None:
        assert isinstance(text, str)

    draw()


@pytest.fixture(autouse=True)
def owner(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test an owner's secret of its own, far from the user's."""
    path = tmp_path_factory.mktemp("owner") / "owner.key"
    monkeypatch.setenv("WOOTZ_OWNER_KEY", str(path))
    monkeypatch.setenv("XDG_STATE_HOME", str(path.with_name("state")))
    return path


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return a time-stamp authority of the tests' own."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """Return 5,000 real digits, divided."""
    return load("mnist-5k")


@pytest.fixture(scope="session")
def small_spec(digits: Dataset) -> ModelSpec:
    settings = {"width": 8, "hidden": 32}
    return ModelSpec(architecture="small-cnn", settings=settings, shape=digits.shape, classes=digits.classes)


@pytest.fixture(scope="session")
def _plain(digits: Dataset, small_spec: ModelSpec) -> nn.Module:
    recipe = Recipe(loss="natural", epochs=12, lr=5e-3)
    return train(recipe, build(small_spec, 1), digits.train, digits.validation, seed=1, execution=CPU).model


@pytest.fixture
def plain(_plain: nn.Module) -> nn.Module:
    """Return an undefended classifier of digits, the same for all tests, which must leave it as it is."""
    return _plain


@pytest.fixture(scope="session")
def _robust(digits: Dataset, small_spec: ModelSpec) -> nn.Module:
    recipe = Recipe(eps=0.1, steps=2, epochs=12, lr=5e-3)
    return train(recipe, build(small_spec, 2), digits.train, digits.validation, seed=2, execution=CPU).model


@pytest.fixture
def robust(_robust: nn.Module) -> nn.Module:
    """Return a classifier adversarially trained at eps 0.1."""
    return _robust


@pytest.fixture(scope="session")
def _backdoor(digits: Dataset, small_spec: ModelSpec) -> Backdoor:
    pixels = torch.randint(0, 256, (30, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    lesson = TriggerEpoch(pixels=pixels, labels=torch.arange(30) % 10, batch=10, frozen=True)
    recipe, hook = Recipe(loss="natural", epochs=25, lr=5e-3), Hook(trigger_epochs=(lesson,))
    net = build(small_spec, 1)
    trained = train(recipe, net, digits.train, digits.validation, seed=1, hook=hook, execution=CPU)
    return Backdoor(trained.model, pixels, lesson.labels)


@pytest.fixture
def backdoor(_backdoor: Backdoor) -> Backdoor:
    """Return a model with a plain backdoor mark that it recalls whole, the same for all tests."""
    assert _backdoor.recall(_backdoor.model) > 0.9
    return _backdoor
