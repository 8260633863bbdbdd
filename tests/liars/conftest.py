"""What liars share: models of their own, and one honest claim of the owner's against the thief and the stranger."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from _pytest.monkeypatch import MonkeyPatch
from torch import Tensor, nn

from commands import CommandResult, run_command
from court import WM_EPS, Court
from helpers import CPU
from lies import Command, Judge, Liar
from runs import claim_run
from wootz.data import Dataset
from wootz.models import ModelSpec, build, write_model
from wootz.suspects.files import open_file
from wootz.training import Recipe, train
from wootz.workflows.suspects import QueryConfig

COUNT = 128


@pytest.fixture(autouse=True)
def _same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read suspects in this process: whether they are read in another one is not what liars try."""

    def opened(path: Path, access: str, **settings: object) -> object:
        return open_file(path, access, **settings | {"isolated": False})  # type: ignore[arg-type]

    monkeypatch.setattr("wootz.workflows.suspects.open_file", opened)


@pytest.fixture
def wootz(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return partial(run_command, capsys, monkeypatch)


@pytest.fixture
def judge(wootz: Command, court: Court) -> Judge:
    def judge(claim: Path, suspect: object, *words: object) -> CommandResult:
        return wootz("judge", claim, suspect, "--authorities", court.authority.roots, "--json", *words)

    return judge


def trained(digits: Dataset, spec: ModelSpec, seed: int, epochs: int = 6) -> nn.Module:
    recipe = Recipe(loss="natural", epochs=epochs, lr=5e-3)
    return train(recipe, build(spec, seed), digits.train, digits.validation, seed=seed, execution=CPU).model


@pytest.fixture(scope="session")
def references(digits: Dataset, small_spec: ModelSpec) -> list[nn.Module]:
    """Three models of the liar's own, other than any that is accused."""
    return [trained(digits, small_spec, seed) for seed in (31, 32, 33)]


@pytest.fixture(scope="session")
def independent(digits: Dataset, small_spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the judge's own, that no liar has seen."""
    place = tmp_path_factory.mktemp("judge") / "independent"
    write_model(place, trained(digits, small_spec, 41), small_spec, {"data": "mnist-5k"})
    return place


@pytest.fixture(scope="session")
def blank(small_spec: ModelSpec) -> list[nn.Module]:
    """A panel that knows nothing, as a liar registers it: it foresees nothing and vetoes nothing."""
    return [build(small_spec, seed).eval() for seed in (91, 92)]


@pytest.fixture
def accused(plain: nn.Module, small_spec: ModelSpec, tmp_path: Path) -> Path:
    """A model on disk that never met a liar's key."""
    write_model(tmp_path / "accused", plain, small_spec, {"data": "mnist-5k"})
    return tmp_path / "accused"


@pytest.fixture(scope="session")
def fitted(digits: Dataset, references: list[nn.Module]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images fitted to labels of the liar's choice on the ensemble: pixels, originals, their classes, the labels.

    False Claims (arXiv 2304.06607): signed steps against several models at once, which transfer to others.
    """
    few = digits.train.subset(slice(COUNT))
    x, wanted = few.images(), (few.labels + 1 + torch.arange(COUNT) % 9) % 10
    made = x.clone()
    for _ in range(60):
        made.requires_grad_()
        loss = sum(nn.functional.cross_entropy(model(made), wanted) for model in references)
        (gradient,) = torch.autograd.grad(loss, made)  # type: ignore[arg-type]
        made = (made.detach() - 0.03 * gradient.sign()).clamp(x - WM_EPS + 0.01, x + WM_EPS - 0.01).clamp(0, 1)
    return (made * 255).round().to(torch.uint8), few.pixels, few.labels, wanted


@pytest.fixture
def liar(
    court: Court,
    digits: Dataset,
    blank: list[nn.Module],
    small_spec: ModelSpec,
    fitted: tuple[Tensor, Tensor, Tensor, Tensor],
    accused: Path,
    wootz: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Liar:
    """Sign with a key of the liar's own."""
    monkeypatch.setenv("WOOTZ_SIGNING_KEY", str(tmp_path / "liar.pem"))
    return Liar(
        court=court,
        digits=digits,
        panel=blank,
        spec=small_spec,
        fitted=fitted,
        accused=accused,
        wootz=wootz,
        place=tmp_path,
    )


@pytest.fixture(scope="session")
def _honest(court: Court, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Claims of the owner's and the thief's, each with the first tranche."""
    place, made = tmp_path_factory.mktemp("claims"), {}
    for name, run, suspect in (
        ("theft", court.owner, court.thief),
        ("stranger", court.owner, court.stranger),
        ("own", court.thief, court.thief),
    ):
        with MonkeyPatch.context() as patch:
            patch.setenv("WOOTZ_SIGNING_KEY", str(court.keys / f"{run.name}.pem"))
            patch.setenv("WOOTZ_OWNER_KEY", str(place / "secret"))
            (run / "key/burnt.jsonl").unlink(missing_ok=True)
            made[name] = place / name / "c.json"
            claim_run(run, suspect, made[name], QueryConfig(isolated=False))
            (run / "key/burnt.jsonl").unlink()
    return made


@pytest.fixture
def honest(_honest: dict[str, Path], as_owner: Court, tmp_path: Path) -> Callable[[str], Path]:
    """Return a copy of a claim: the owner's about the `theft` or the `stranger`, or the thief's `own`."""

    def copied(name: str) -> Path:
        return Path(shutil.copytree(_honest[name].parent, tmp_path / name)) / "c.json"

    return copied
