"""What Python users give: functions as suspects, which answer once per image, and paths as texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import wootz
from helpers import CPU
from wootz.data import Dataset
from wootz.errors import ModelError
from wootz.keys import RegisteredMaterial, draw_keys, has_keys, read_keys, write_keys
from wootz.models import ModelSpec, read_model, write_model
from wootz.suspects.files import open_file
from wootz.training import Recipe
from wootz.workflows.attack import attack_run
from wootz.workflows.evaluate import evaluate_run
from wootz.workflows.suspects import QueryConfig, open_suspect_model


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[1:],
        lambda rows: torch.cat([rows, rows[:1]]),
        lambda rows: rows[:, None],
        lambda rows: rows.tolist(),
        lambda rows: rows.argmax(1)[1:],
        lambda rows: rows.sum(),
    ],
    ids=["a row too few", "a row too many", "an axis too many", "a list", "a label too few", "one number"],
)
def test_answers_of_another_form_are_refused(change: Callable[[Tensor], object], tmp_path: Path) -> None:
    def suspect(x: Tensor) -> object:
        return change(x.flatten(1)[:, :10])

    refused = pytest.raises(ModelError, match=r"suspect: answered 5 images with .* must be a tensor of scores")
    with open_suspect_model(suspect, QueryConfig(), tmp_path) as opened, refused:  # type: ignore[arg-type]
        opened.predict(torch.rand(5, 1, 28, 28))


@pytest.mark.parametrize("answer", [torch.zeros(5, 10), torch.zeros(5), torch.full((5,), -1)])
def test_scores_and_labels_are_taken(answer: Tensor, tmp_path: Path) -> None:
    with open_suspect_model(lambda _: answer, QueryConfig(), tmp_path) as opened:
        assert torch.equal(opened.predict(torch.rand(5, 1, 28, 28)), answer)


def test_paths_may_be_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Dataset, small_spec: ModelSpec, plain: nn.Module
) -> None:
    monkeypatch.chdir(tmp_path)
    few = digits.train.subset(slice(40))
    wootz.train(Recipe(loss="natural", epochs=1), plain, few, few, seed=0, folder="trained", execution=CPU)
    write_model("model", plain, small_spec, {"data": "mnist-5k", "eps": 0.1, "kind": "independent", "seed": 0})
    assert read_model("model")[1] == small_spec
    assert wootz.evaluate(plain, few, eps=0.1, n=5, folder="evaluated", execution=CPU).n == 5
    assert evaluate_run("model", count=5, execution=CPU).suspect == "model"
    settings = {"epochs": 1, "images": 40}
    wootz.extract(plain, data=digits, settings={"epochs": 1}, folder="extracted", execution=CPU)
    wootz.remove(plain, data=digits, settings=settings, folder="removed", execution=CPU)
    assert attack_run("remove", "model", "prune", "pruned", count=5, execution=CPU).suspect == "pruned"
    with open_file("model", isolated=False) as opened:
        assert opened.spec == small_spec
    material = RegisteredMaterial("answers", {}, {"share": "1/100", "digest": "exact"})
    keys = draw_keys(b"\x01" * 32, {"guard": material}, classes=digits.classes, shape=digits.shape, panel=[])
    write_keys("owner", keys)
    assert has_keys("owner")
    assert read_keys("owner").registration == keys.registration
    for name in ("trained", "evaluated", "extracted", "removed", "pruned", "owner/key"):
        assert (tmp_path / name).is_dir()
