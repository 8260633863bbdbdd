"""Custom data in the forms that people have them: what is read, and what is reported as skipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bad_data import X, Y, arrays, images
from wootz.data import load
from wootz.data.arrays import as_labels, as_levels
from wootz.data.image_folder import load_folder
from wootz.data.npz import load_npz


class TestArrays:
    @pytest.mark.parametrize(
        "images",
        [X, X.astype(np.int64), X.astype(np.int16), X / 255, (X / 255).astype(np.float32), X / 255 * (1 + 1e-7)],
        ids=["uint8", "int64", "int16", "float64", "float32", "rounded"],
    )
    def test_levels_of_all_types_are_equal(self, images: np.ndarray) -> None:
        assert np.array_equal(as_levels("d", images)[0], X)

    @pytest.mark.parametrize("kind", [bool, np.uint8, np.int64, float])
    def test_zeros_and_ones_are_black_and_white(self, kind: type) -> None:
        train, test = as_levels("d", (X > 127).astype(kind), np.zeros((2, 9, 9), kind))
        assert np.array_equal(train, (X > 127) * np.uint8(255))
        assert not test.any()

    @pytest.mark.parametrize(
        "labels",
        [
            Y,
            Y.astype(np.int32),
            Y.astype(np.uint8),
            Y[:, None],
            Y.astype(float),
            np.eye(3)[Y],
            np.eye(3, dtype=bool)[Y],
        ],
        ids=["int64", "int32", "uint8", "column", "float", "one-hot", "one-hot of booleans"],
    )
    def test_labels_of_all_forms_are_equal(self, labels: np.ndarray) -> None:
        assert as_labels("d", labels).dtype == np.int64
        assert np.array_equal(as_labels("d", labels), Y)


class TestNpz:
    def test_names_layouts_and_test_images(self, tmp_path: Path) -> None:
        held = {"classes": np.array([b"a", b"b", b"c"]), "x_test": X[:9], "y_test": Y[:9] * 0}
        raw = load_npz(arrays(**held)(tmp_path))
        assert raw.classes == ("a", "b", "c")
        assert (len(raw.training), len(raw.test)) == (120, 9)
        for layout in (X[:, None], X[..., None], np.asfortranarray(X)):
            assert torch.equal(load_npz(arrays(x_train=layout)(tmp_path)).training.pixels[:, 0], self.alone(tmp_path))

    @staticmethod
    def alone(place: Path) -> torch.Tensor:
        return load_npz(arrays()(place)).training.pixels[:, 0]

    def test_what_is_skipped_or_converted_is_reported(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        load_npz(arrays(x_val=X)(tmp_path))
        assert "skipped the arrays 'x_val'" in caplog.text
        load_npz(arrays(x_train=X / 255)(tmp_path))
        assert "rounded to 256 levels" in caplog.text
        load_npz(arrays(x_train=X > 127)(tmp_path))
        assert "1 is read as white" in caplog.text
        assert len(caplog.records) == 3


class TestFolder:
    def only(self, place: Path, image: Image.Image, name: str = "z.png", **options: object) -> np.ndarray:
        """Return the pixels of the one image that is not black, among class folders of black ones."""
        for label in "ab":
            (place / label).mkdir(exist_ok=True)
            for number in range(6):
                Image.new("L", (4, 4)).save(place / label / f"{number}.png")
        image.save(place / "b" / name, **options)
        raw = load_folder(place)
        pixels = torch.cat([raw.training.pixels, raw.test.pixels])
        return pixels[pixels.flatten(1).bool().any(1)].squeeze(0).numpy()

    def test_sixteen_bits_keep_their_order(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        deep = np.arange(16, dtype=np.uint16).reshape(4, 4) * 4369
        assert np.array_equal(self.only(tmp_path, Image.fromarray(deep))[0], np.arange(16).reshape(4, 4) * 17)
        assert "1 of 16 bits rounded to 8" in caplog.text

    def test_colour_is_kept_where_the_first_image_is_gray(self, tmp_path: Path) -> None:
        pixels = self.only(tmp_path, Image.new("RGB", (4, 4), (200, 100, 0)))
        assert pixels[:, 0, 0].tolist() == [200, 100, 0]

    def test_hidden_pixels_stay_hidden(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        image = Image.new("RGBA", (4, 4), (200, 100, 0, 255))
        image.putpixel((0, 0), (9, 9, 9, 0))
        assert self.only(tmp_path, image)[:, 0].tolist() == [[255, 200, 200, 200], [255, 100, 100, 100], [255, 0, 0, 0]]
        assert "1 with transparency laid over white" in caplog.text

    def test_rotation_by_exif(self, tmp_path: Path) -> None:
        image, exif = Image.new("L", (4, 4)), Image.Exif()
        image.paste(255, (0, 0, 4, 1))
        exif[0x0112] = 6  # the first row is shown on the right
        assert self.only(tmp_path, image, exif=exif)[0, 0].tolist() == [0, 0, 0, 255]

    def test_tif_and_nested_images(self, tmp_path: Path) -> None:
        (tmp_path / "b/inner").mkdir(parents=True)
        assert (self.only(tmp_path, Image.new("L", (4, 4), 7), "inner/z.TIF") == 7).all()

    def test_litter_is_skipped_and_reported(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = images(tmp_path, "a", "b", ".ipynb_checkpoints", "__MACOSX", "a/.hidden")
        (path / "a/._0.png").write_bytes(b"AppleDouble")
        (path / "a/notes.txt").write_text("notes")
        (path / "readme.md").write_text("notes")
        raw = load_folder(path)
        assert raw.classes == ("a", "b")
        assert len(raw.training) + len(raw.test) == 40
        assert "skipped 6 that are no images of a class: '.ipynb_checkpoints', '__MACOSX'" in caplog.text
        assert len(caplog.records) == 1

    @pytest.mark.parametrize(("other", "tested"), [("test", 10), ("val", 10), ("nothing", 0)])
    def test_parts(self, tmp_path: Path, other: str, tested: int) -> None:
        path = images(tmp_path, "train/a", "train/b")
        if tested:
            images(tmp_path, f"{other}/a", f"{other}/b", count=5)
        raw = load_folder(path)
        assert raw.classes == ("a", "b")
        assert len(raw.test) == tested or not tested
        assert len(raw.training) + len(raw.test) == 40 + tested

    def test_a_good_folder_needs_no_words(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        load(str(images(tmp_path, "a", "b", count=40)))
        assert not caplog.records
