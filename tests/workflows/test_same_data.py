"""A run knows its data: others under the same name are refused, the same ones are used wherever they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import assert_usage_error, run_command
from wootz.data import Dataset, load
from wootz.errors import DataError
from wootz.serving import ModelInfo, app, running
from wootz.suspects.files import predictor
from wootz.workflows.evaluate import evaluate_run
from wootz.workflows.run import open_run

SETTINGS = (
    *("recipe.epochs=1", "recipe.steps=1", "small_cnn.width=4", "triggers.count=32"),
    *("panel.robust_epochs=1", "panel.plain_epochs=1", "panel.width=4"),
)
QUICK = ["--eps", "0.1", "-n", "9", *(word for setting in SETTINGS for word in ("--set", setting))]


def write_npz(path: Path, digits: Dataset, *, shift: int = 0) -> None:
    """Write some digits as an `.npz` file, test labels off by `shift`."""
    train, test = digits.train.subset(slice(360)), digits.test.subset(slice(60))
    images = {"x_train": train.pixels.numpy(), "x_test": test.pixels.numpy()}
    np.savez(path, y_train=train.labels.numpy(), y_test=(test.labels.numpy() + shift) % 10, **images)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    """Return a folder with `own.npz`, and the run `r` that was trained on it under this relative name."""
    from wootz.cli.app import main

    place = tmp_path_factory.mktemp("made")
    write_npz(place / "own.npz", digits)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("WOOTZ_OWNER_KEY", str(place / "owner.key"))
        patch.setattr("sys.argv", ["wootz", "protect", "--data", "own.npz", "--out", "r", *QUICK])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
    return place


@pytest.fixture
def wootz(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    return lambda *words: run_command(capsys, monkeypatch, *words)


@pytest.fixture
def place(made: Path) -> Iterator[Path]:
    """Return the folder of the run, whose data are as they were before and after each test."""
    shutil.copy(made / "own.npz", made / "kept.npz")
    yield made
    shutil.move(made / "kept.npz", made / "own.npz")


COMMANDS = {
    "evaluate": ["evaluate", "r", "-n", "9"],
    "steal": ["steal", "r", "--attack", "retrain-soft", "--out", "s"],
    "remove": ["remove", "r", "--attack", "prune", "--out", "s"],
    "serve": ["serve", "r", "--guard", "--port", "0"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_replaced_data_are_refused(
    wootz, monkeypatch: pytest.MonkeyPatch, place: Path, digits: Dataset, command: str
) -> None:
    monkeypatch.chdir(place)
    write_npz(place / "own.npz", digits, shift=1)
    said = wootz(*COMMANDS[command])
    assert_usage_error(said, str(place / "own.npz"), "not those that r was made with", "--data")
    assert not (place / "s/model.safetensors").exists()


def test_a_run_works_from_another_folder_and_with_moved_data(
    wootz, monkeypatch: pytest.MonkeyPatch, place: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert wootz("evaluate", place / "r", "-n", "9").code == 0
    (place / "own.npz").rename("moved.npz")
    assert_usage_error(wootz("evaluate", place / "r", "-n", "9"), str(place / "r"), str(place / "own.npz"), "--data")
    assert wootz("evaluate", place / "r", "-n", "9", "--data", "moved.npz").code == 0
    assert wootz("remove", place / "r", "--attack", "prune", "--out", "p", "-n", "9", "--data", "moved.npz").code == 0
    assert json.loads(Path("p/model.json").read_text())["data"] == str(tmp_path / "moved.npz")
    assert evaluate_run(Path("p"), count=9).clean is not None


def test_a_resumed_run_needs_the_same_data(
    wootz, monkeypatch: pytest.MonkeyPatch, place: Path, digits: Dataset, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "r", "r")
    Path("r/model.safetensors").unlink()
    write_npz(place / "own.npz", digits, shift=1)
    assert_usage_error(wootz("protect", "--out", "r", "--resume", "-n", "9"), "r/panel/robust was made with")
    (place / "own.npz").unlink()
    assert_usage_error(wootz("protect", "--out", "r", "--resume", "-n", "9"), str(place / "own.npz"), "--data")
    words = ["--out", "r", "--resume", "--data", place / "kept.npz", *QUICK]
    assert_usage_error(wootz("protect", *words, "--set", "recipe.epochs=2"), "recipe.epochs = 1, not 2")
    assert wootz("protect", *words).code == 0


def test_a_run_without_a_digest_is_used_with_a_note(place: Path, tmp_path: Path, caplog) -> None:
    shutil.copytree(place / "r", tmp_path / "old")
    about = json.loads((tmp_path / "old/model.json").read_text())
    assert about.pop("data_digest") == load(str(place / "own.npz")).digest
    (tmp_path / "old/model.json").write_text(json.dumps(about))
    assert len(open_run(tmp_path / "old").data(None).test) == 60
    assert "without a digest of its data" in caplog.text


def test_one_pixel_in_a_folder_of_images_changes_the_digest(tmp_path: Path, digits: Dataset) -> None:
    for number, (pixels, label) in enumerate(zip(*digits.train.subset(slice(120)), strict=True)):
        (tmp_path / str(int(label))).mkdir(exist_ok=True)
        Image.fromarray(pixels[0].numpy()).save(tmp_path / f"{label}/{number}.png")
    before = load(str(tmp_path)).digest
    assert load(str(tmp_path)).digest == before
    Image.fromarray(digits.train.pixels[200, 0].numpy()).save(next((tmp_path / "3").iterdir()))
    assert load(str(tmp_path)).digest != before


def test_published_data_are_compared_too(place: Path) -> None:
    about = json.loads((place / "r/model.json").read_text())
    run = open_run(place / "r", "mnist-5k")
    assert run.about == about
    with pytest.raises(DataError, match="mnist-5k: its images or labels are not those"):
        run.data(None)


def test_data_that_a_service_names_and_a_thief_does_not_have(wootz, place: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = open_run(place / "r")
    info = ModelInfo(name="r", shape=run.spec.shape, classes=run.spec.classes, data="own.npz", eps=0.1)
    with running(app(predictor(run.model), info)) as url:
        words = [
            "steal",
            f"{url}/v2/models/r",
            "--attack",
            "retrain-soft",
            "--out",
            "s",
            "--set",
            "epochs=1",
            "-n",
            "9",
        ]
        assert_usage_error(wootz(*words), "its data set 'own.npz' is not there", "--data")
        assert wootz(*words, "--data", place / "own.npz").code == 0
