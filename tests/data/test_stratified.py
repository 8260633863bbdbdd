"""Splits of custom data: classes in proportion, copies of an image in one part."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wootz.data import RawDataset, Split, custom_dataset, split_dataset
from wootz.errors import DataError

PARTS = ("test", "validation", "probes", "thief", "train")


def raw(counts: list[int], pixels: np.ndarray | None = None) -> RawDataset:
    """Return images of noise, so many of each class."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    if pixels is None:
        pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 1, 8, 8), dtype=np.uint8)
    everything = Split(torch.from_numpy(pixels), labels)
    return custom_dataset("d", tuple(map(str, range(len(counts)))), everything, everything.subset(slice(0)))


@pytest.mark.parametrize(
    "counts", [[60, 60], [2000, 20], [4] * 1000, [10] * 300, [300, 30, 3000]], ids=lambda counts: str(counts[:3])
)
@pytest.mark.parametrize("set_aside", [1.0, 0.25])
def test_every_class_in_proportion(counts: list[int], set_aside: float) -> None:
    data, total = split_dataset(raw(counts), set_aside), sum(counts)
    found = torch.stack([torch.bincount(getattr(data, part).labels, minlength=len(counts)) for part in PARTS])
    assert found.sum(0).tolist() == counts
    assert found[-1].min() >= 1
    held = total - total // 6
    probes, thief = round(set_aside * (held // 3)), round(set_aside * (held // 6))
    assert found.sum(1)[:4].tolist() == [total // 6, max(1, held // 60), probes, thief]
    expected = found.sum(1)[:, None] * torch.tensor(counts) / total
    assert (found - expected).abs().max() <= 3


def test_a_smaller_fraction_stays_nested() -> None:
    default, less = split_dataset(raw([90, 300])), split_dataset(raw([90, 300]), 0.3)

    def rows(split: Split) -> set[bytes]:
        return {image.numpy().tobytes() for image in split.pixels}

    assert rows(less.probes) < rows(default.probes)
    assert rows(less.thief) < rows(default.thief)
    assert rows(default.train) < rows(less.train)
    assert rows(less.test) == rows(default.test)


@pytest.mark.parametrize("set_aside", [1.0, 0.25])
@pytest.mark.parametrize("change", [0, 2], ids=["copies", "nearly alike"])
def test_copies_stay_in_one_part(change: int, set_aside: float) -> None:
    random = np.random.default_rng(0)
    originals = random.integers(8, 240, (200, 1, 16, 16))
    copies = originals + random.integers(-change, change + 1, originals.shape)
    pixels = np.concatenate([originals, copies]).astype(np.uint8)
    order = random.permutation(400)
    numbers = {pixels[index].tobytes(): index % 200 for index in order}
    data = split_dataset(raw([100, 300], pixels[order]), set_aside)
    parts = [{numbers[image.numpy().tobytes()] for image in getattr(data, part).pixels} for part in PARTS]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts)) == 200


def test_images_of_one_colour_are_split_with_a_note(caplog: pytest.LogCaptureFixture) -> None:
    data = split_dataset(
        raw(
            [60, 60],
            np.repeat(np.array([10, 200], np.uint8), 60)[:, None, None, None] * np.ones((1, 1, 8, 8), np.uint8),
        )
    )
    assert all(len(getattr(data, part)) for part in PARTS)
    assert "so many images are alike" in caplog.text


def test_a_class_of_few_images_is_named() -> None:
    with pytest.raises(DataError, match=r"fewer than 4 training images .*'1' \(3\); give more images"):
        raw([50, 3])


def test_the_first_images_of_a_part_are_of_all_classes() -> None:
    data = split_dataset(raw([200, 200]))
    for part in PARTS:
        assert len(set(getattr(data, part).labels[:15].tolist())) == (2 if len(getattr(data, part)) > 1 else 1)
