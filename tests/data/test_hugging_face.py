"""Data sets that Hugging Face's `datasets` saved to disk."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wootz.data import load, load_unlabelled
from wootz.errors import ConfigError, DataError

datasets = pytest.importorskip("datasets")

NAMES = ["cat", "dog", "newt"]


def encoded(seed: int, side: int = 12) -> dict[str, Any]:
    """Return an image as the library keeps it: encoded bytes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def saved(
    folder: Path, count: int = 60, *, column: str = "img", label: Any = None, seed: int = 0, **more: Any
) -> datasets.Dataset:
    features = {column: datasets.Image(), "label": label or datasets.ClassLabel(names=NAMES)}
    rows = {column: [encoded(seed + row) for row in range(count)], "label": [row % 3 for row in range(count)]}
    made = datasets.Dataset.from_dict(
        rows | more, features=datasets.Features(features | dict.fromkeys(more, datasets.Value("int64")))
    )
    made.save_to_disk(str(folder))
    return made


def test_images_and_names_of_classes_are_read(tmp_path: Path) -> None:
    made = saved(tmp_path / "d")
    data = load(str(tmp_path / "d"))
    assert data.classes == tuple(NAMES)
    assert data.shape == (3, 12, 12)
    everything = {
        bytes(image): label
        for part in (data.train, data.validation, data.probes, data.thief, data.test)
        for image, label in zip(part.pixels.numpy(), part.labels.tolist(), strict=True)
    }
    assert len(everything) == 60
    for row in made:
        assert everything[np.asarray(row["img"]).transpose(2, 0, 1).tobytes()] == row["label"]


def test_parts_are_kept_apart(tmp_path: Path) -> None:
    parts = {"train": saved(tmp_path / "a"), "test": saved(tmp_path / "b", 9, seed=100)}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "d"))
    data = load(str(tmp_path / "d"))
    assert len(data.test) == 9
    images = {np.asarray(row["img"]).transpose(2, 0, 1).tobytes() for row in parts["test"]}
    assert {bytes(image) for image in data.test.pixels.numpy()} == images
    assert len(load_unlabelled(str(tmp_path / "d")).pixels) == 69


def test_labels_are_numbers_in_a_column_of_that_name(tmp_path: Path) -> None:
    saved(tmp_path / "d", label=datasets.Value("int64"))
    assert load(str(tmp_path / "d"), size=8).classes == ("0", "1", "2")


def test_sizes_differ_and_some_cannot_be_read(tmp_path: Path) -> None:
    rows = [encoded(row, 10 + row % 4) for row in range(60)]
    rows[7]["bytes"] = b"no image"
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    made = datasets.Dataset.from_dict({"image": rows, "label": [row % 3 for row in range(60)]}, features=features)
    made.save_to_disk(str(tmp_path / "d"))
    with pytest.raises(DataError, match="image 7"):
        load(str(tmp_path / "d"), size=8)
    data = load(str(tmp_path / "d"), size=8, skip_unreadable=True)
    assert (data.shape, data.unreadable) == ((3, 8, 8), 1)


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ({"a": "image", "b": "image", "label": "class"}, "2 columns of images"),
        ({"label": "class"}, "0 columns of images"),
        ({"a": "image", "fine": "class", "coarse": "class"}, "several columns of labels .fine, coarse"),
        ({"a": "image", "kind": "number"}, "no column of labels"),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path: Path, kinds: dict[str, str], said: str) -> None:
    made = {"image": datasets.Image(), "class": datasets.ClassLabel(names=NAMES), "number": datasets.Value("int64")}
    features = datasets.Features({name: made[kind] for name, kind in kinds.items()})
    rows = {name: [encoded(0) if kind == "image" else 0] * 9 for name, kind in kinds.items()}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "d"))
    with pytest.raises(DataError, match=said):
        load(str(tmp_path / "d"))


def test_a_broken_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    saved(tmp_path / "d")
    (tmp_path / "d" / "state.json").unlink()
    with pytest.raises(DataError, match="is no complete data set of save_to_disk"):
        load(str(tmp_path / "d"))
    shutil.rmtree(tmp_path / "d")
    datasets.DatasetDict({"one": saved(tmp_path / "a")}).save_to_disk(str(tmp_path / "d"))
    with pytest.raises(DataError, match="must be named train"):
        load(str(tmp_path / "d"))


def test_without_the_library_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "d")
    monkeypatch.setattr("wootz.extras.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"wootz\[datasets\]"):
        load(str(tmp_path / "d"))
