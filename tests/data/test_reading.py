"""Sizes, unreadable files, links, arrays under other names, images without labels."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset as TorchDataset

from bad_data import X, Y, images
from commands import assert_usage_error, run_command
from wootz.data import label_dataset, load, load_unlabelled, resize
from wootz.errors import ConfigError, DataError
from wootz.workflows.inputs import as_dataset, as_images
from wootz.workflows.protection import Protection
from wootz.workflows.run import data_metadata, load_moved

QUICK = ["--eps", "0.1", "-n", "9", "--marks", "none", "--set", "recipe.epochs=1", "--set", "recipe.steps=1"]


@pytest.fixture
def wootz(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    return lambda *words: run_command(capsys, monkeypatch, *words)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Return class folders with images of 12 x 9 and 20 x 30."""
    images(tmp_path, "a", size=(9, 12))
    return images(tmp_path, "b", size=(30, 20))


class TestSize:
    def test_the_middle_is_kept(self) -> None:
        wide = torch.zeros(2, 1, 8, 24, dtype=torch.uint8)
        wide[:, :, :, 8:16] = 200
        assert (resize(wide, 8) == 200).all()
        assert resize(wide, 16).shape == (2, 1, 16, 16)

    def test_reduction_is_antialiased(self) -> None:
        stripes = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
        stripes[..., ::2] = 255
        assert ((resize(stripes, 16).float() - 127.5).abs() < 12).all()

    def test_mixed_sizes_need_it(self, mixed: Path) -> None:
        with pytest.raises(DataError, match=r"--size N .*resizes"):
            load(str(mixed))
        data = load(str(mixed), size=10)
        assert data.shape == (1, 10, 10)
        assert data.size == 10

    @pytest.mark.parametrize("size", [0, 7, 5000])
    def test_impossible_sizes(self, mixed: Path, size: int) -> None:
        with pytest.raises(ConfigError, match="size = "):
            load(str(mixed), size=size)

    @pytest.mark.parametrize("name", ["mnist-5k", "d.npz"])
    def test_other_sources(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        if name.endswith(".npz"):
            np.savez(path, x_train=X, y_train=Y)
        data = load(str(path) if path.exists() else name, size=16)
        assert data.shape == (1, 16, 16)
        plain = load(str(path) if path.exists() else name)
        assert torch.equal(data.probes.labels, plain.probes.labels) or name.endswith(".npz")

    def test_only_a_size_that_is_set_changes_keys(self) -> None:
        plain = Protection()
        assert not {"size", "skip_unreadable"} & set(plain.used_settings())
        digests = {plain.digest, Protection(size=32).digest, Protection(size=64).digest}
        assert len({*digests, Protection(skip_unreadable=True).digest}) == 4

    def test_a_run_remembers_it(self, wootz, mixed: Path, tmp_path: Path) -> None:
        (mixed / "a/0.png").write_bytes(b"nothing")
        words = ["protect", "--data", mixed, "--out", tmp_path / "r", *QUICK]
        assert_usage_error(wootz(*words, "--size", "12"), "1 images cannot be read", "a/0.png", "--skip-unreadable")
        assert wootz(*words, "--size", "12", "--skip-unreadable").code == 0
        about = json.loads((tmp_path / "r/model.json").read_text())
        assert (about["size"], about["unreadable"]) == (12, 1)
        assert about["training"]["size"] == 12
        assert wootz("evaluate", tmp_path / "r", "-n", "9").code == 0


class TestUnreadable:
    def test_all_are_named_at_once(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = images(tmp_path, "a", "b")
        for number in range(7):
            (path / f"b/{number}.png").write_bytes(b"nothing")
        with pytest.raises(DataError, match=r"7 images cannot be read .*b/0.png.*b/4\.png.*and 2 more") as error:
            load(str(path))
        assert "\n" not in str(error.value)
        data = load(str(path), skip_unreadable=True)
        assert data.unreadable == data_metadata(data)["unreadable"] == 7
        assert "skipped 7 images" in caplog.text
        assert sum(map(len, (data.train, data.validation, data.probes, data.thief, data.test))) == 33
        again = load_moved(data.name, None, 1.0, "r", skip_unreadable=True)
        assert again.digest == data.digest

    def test_nothing_is_left(self, tmp_path: Path) -> None:
        path = images(tmp_path, "a", "b", count=0)
        for name in ("a/1.png", "b/1.png"):
            (path / name).write_bytes(b"nothing")
        with pytest.raises(DataError, match="none of its images can be read"):
            load(str(path), skip_unreadable=True)

    def test_good_data_record_nothing(self, tmp_path: Path) -> None:
        assert set(data_metadata(load(str(images(tmp_path, "a", "b"))))) == {"data", "set_aside", "data_digest"}


MODES = {
    "palette": Image.new("RGB", (9, 9), (200, 100, 0)).convert("P", palette=Image.Palette.ADAPTIVE),
    "CMYK": Image.new("CMYK", (9, 9), (0, 127, 255, 55)),
    "palette with transparency": Image.new("P", (9, 9)),
    "gray with alpha": Image.new("LA", (9, 9), (7, 0)),
    "black and white": Image.new("1", (9, 9), 1),
}
SHOWN = {
    "palette": (200, 100, 0),
    "CMYK": (200, 100, 0),
    "palette with transparency": (255, 255, 255),
    "gray with alpha": (255,),
    "black and white": (255,),
}


@pytest.mark.parametrize("mode", MODES)
def test_modes(tmp_path: Path, mode: str) -> None:
    options = {"transparency": 0} if mode == "palette with transparency" else {}
    MODES[mode].save(tmp_path / ("x.tif" if mode == "CMYK" else "x.png"), **options)
    pixels = load_unlabelled(str(tmp_path)).pixels
    assert pixels.shape[1] == len(SHOWN[mode])
    assert (pixels[0].amax((1, 2)).int() - torch.tensor(SHOWN[mode])).abs().max() <= 2


def test_links_and_hidden_files(tmp_path: Path) -> None:
    path = images(tmp_path / "real", "a", "b")
    (tmp_path / "d").mkdir()
    for name in "ab":
        (tmp_path / "d" / name).symlink_to(path / name)
    (path / "a/.DS_Store").write_bytes(b"Bud1")
    (path / "a/inner").symlink_to(images(tmp_path / "more", "x", count=5) / "x")
    (path / "a/loop").symlink_to(path / "a")
    data = load(str(tmp_path / "d"))
    assert sum(map(len, (data.train, data.validation, data.probes, data.thief, data.test))) == 45


class TestNames:
    @pytest.mark.parametrize("names", ["x_{} y_{}", "X_{} y_{}", "{}_images {}_labels"])
    @pytest.mark.parametrize("tested", ["test", "val"])
    def test_npz(self, tmp_path: Path, names: str, tested: str) -> None:
        train, test = names.replace("{}", "train").split(), names.replace("{}", tested).split()
        held = {train[0]: X, train[1]: Y[:, None], test[0]: X[:30], test[1]: Y[:30]}
        np.savez(tmp_path / "d.npz", **held)
        data = load(str(tmp_path / "d.npz"))
        assert len(data.test) == 30
        assert sum(map(len, (data.train, data.validation, data.probes, data.thief))) == 120

    def test_validation_is_skipped_where_there_are_test_images(self, tmp_path: Path, caplog) -> None:
        parts = {
            f"{part}_{kind}": array
            for part in ("train", "val", "test")
            for kind, array in (
                ("images", X if part == "train" else X[:9]),
                ("labels", Y if part == "train" else Y[:9]),
            )
        }
        np.savez(tmp_path / "d.npz", **parts)
        assert len(load(str(tmp_path / "d.npz")).test) == 9
        assert "skipped the arrays 'val_images', 'val_labels'" in caplog.text


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


class TestIdxFolder:
    @pytest.mark.parametrize(
        ("prefix", "test", "dot"), [("", "t10k", "-"), ("emnist-letters-", "test", "."), ("", "", "-")]
    )
    def test_any_number_of_classes(self, tmp_path: Path, prefix: str, test: str, dot: str) -> None:
        for part, count in {"train": 120, test: 30}.items():
            if part:
                name = f"{prefix}{part}-{{}}{dot}idx{{}}-ubyte"
                (tmp_path / name.format("images", 3)).write_bytes(idx(X[:count]))
                (tmp_path / (name.format("labels", 1) + ".gz")).write_bytes(gzip.compress(idx(Y[:count])))
        data = load(str(tmp_path))
        assert data.classes == ("0", "1", "2")
        assert len(data.test) == (30 if test else 20)
        assert load(str(tmp_path), size=16).shape == (1, 16, 16)
        assert len(load_unlabelled(str(tmp_path)).pixels) == (150 if test else 120)

    @pytest.mark.parametrize(
        ("files", "reason"),
        [
            ({"train-images-idx3-ubyte": X}, "no labels of train images"),
            ({"t10k-images-idx3-ubyte": X, "t10k-labels-idx1-ubyte": Y}, "no images of train images"),
            ({"train-images-idx3-ubyte": X, "train-labels-idx1-ubyte": Y[:9]}, "120 images but 9 labels"),
            ({"train-images-idx3-ubyte": Y, "train-labels-idx1-ubyte": Y}, r"must be \[N, H, W\]"),
        ],
    )
    def test_misfits(self, tmp_path: Path, files: dict[str, np.ndarray], reason: str) -> None:
        for name, array in files.items():
            (tmp_path / name).write_bytes(idx(array))
        with pytest.raises(DataError, match=reason):
            load(str(tmp_path))


def png(side: int = 9) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(side).integers(0, 256, (side, side), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def tar(path: Path, files: dict[str, bytes], *more: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as file:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
        for member in more:
            file.addfile(member)
    return path


class TestTar:
    @staticmethod
    def good(label: str = "cls") -> dict[str, bytes]:
        text = {"cls": "{}\n", "json": '{{"label": {}}}'}[label]
        return {
            f"{number:03}.{kind}": data
            for number in range(40)
            for kind, data in (("png", png(9 + number)), (label, text.format(number % 2).encode()))
        }

    @pytest.mark.parametrize("label", ["cls", "json"])
    def test_images_and_labels(self, tmp_path: Path, label: str, caplog: pytest.LogCaptureFixture) -> None:
        link = tarfile.TarInfo("../x.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        path = tar(tmp_path / "d.tar", self.good(label), link)
        data = load(str(path), size=9)
        assert data.classes == ("0", "1")
        assert sum(map(len, (data.train, data.validation, data.probes, data.thief, data.test))) == 40
        assert "skipped 1 that are no images or labels: '../x.png'" in caplog.text
        assert load_unlabelled(str(path), size=9).pixels.shape == (40, 1, 9, 9)
        assert [file.name for file in tmp_path.iterdir()] == ["d.tar"]

    @pytest.mark.parametrize(
        ("files", "reason"),
        [
            ({"000.cls": b"cat"}, "'000.cls' holds no whole number"),
            ({"000.cls": b"1e400"}, "'000.cls' holds no whole number"),
            ({"x.png": png()}, "1 images have no label"),
            ({"000.png": b"nothing"}, "000.png: is not a complete image"),
            ({"000.cls": bytes(2 << 20)}, "'000.cls' has 2,097,152 bytes"),
        ],
    )
    def test_misfits(self, tmp_path: Path, files: dict[str, bytes], reason: str) -> None:
        with pytest.raises(DataError, match=reason):
            load(str(tar(tmp_path / "d.tar", self.good() | files)), size=9)

    @pytest.mark.parametrize("change", ["cut", "gzip", "zeros", "nothing", "missing"])
    def test_damaged_files(self, tmp_path: Path, change: str) -> None:
        path = tar(tmp_path / "d.tar", self.good())
        data = path.read_bytes()
        changed = {"cut": data[:5000], "gzip": gzip.compress(data), "zeros": bytes(10240), "nothing": b""}
        path.unlink() if change == "missing" else path.write_bytes(changed[change])
        with pytest.raises(DataError, match=r"d\.tar: "):
            load(str(path), size=9)


class TestUnlabelled:
    def test_sources(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "d.npz", images=X)
        assert torch.equal(load_unlabelled(str(tmp_path / "d.npz")).pixels[:, 0], torch.from_numpy(X))
        path = images(tmp_path, "a", "b", count=3)
        Image.new("L", (9, 9), 5).save(path / "c.png")
        assert load_unlabelled(str(path)).pixels.shape == (7, 1, 9, 9)
        (path / "d.png").write_bytes(b"nothing")
        found = load_unlabelled(str(path), skip_unreadable=True)
        assert (len(found.pixels), found.unreadable) == (7, 1)
        assert label_dataset("d", found.pixels, torch.arange(7) % 2, ("a", "b"), unreadable=1).unreadable == 1
        (path / "d.png").unlink()
        assert as_images(str(path), size=16).shape == (7, 1, 16, 16)
        assert torch.equal(as_images(torch.from_numpy(X)[:, None]), torch.from_numpy(X)[:, None])

    def test_answers_as_labels(self) -> None:
        pixels, labels = torch.from_numpy(X)[:, None], torch.from_numpy(Y) * 2
        data = label_dataset("d", pixels, labels, tuple("abcdef"))
        assert len(data.classes) == 6
        assert all(set(part.labels.tolist()) == {0, 2, 4} for part in (data.train, data.probes, data.thief, data.test))
        assert data.digest == label_dataset("d", pixels, labels, tuple("abcdef")).digest
        lonely = labels.clone()
        lonely[5] = 1
        assert 1 in label_dataset("d", pixels, lonely, tuple("abcdef")).train.labels.tolist()

    def test_none(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="holds no images"):
            load_unlabelled(str(tmp_path))
        np.savez(tmp_path / "d.npz", y_train=Y)
        with pytest.raises(DataError, match="no array of images"):
            load_unlabelled(str(tmp_path / "d.npz"))


class Rows(TorchDataset):
    """Images of Pillow of two sizes, in one of the usual forms."""

    def __init__(self, form: str) -> None:
        self.form = form

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> object:
        side = 16 + index % 2
        image = Image.fromarray(np.random.default_rng(index).integers(0, 256, (side, 20), dtype=np.uint8))
        return (image, index % 2) if self.form == "pair" else {self.form: image, "label": index % 2}


@pytest.mark.parametrize("form", ["pair", "image", "img"])
def test_torch_data_sets(form: str) -> None:
    with pytest.raises(DataError, match="size=N"):
        as_dataset(Rows(form))
    data = as_dataset(Rows(form), size=12)
    assert data.shape == (1, 12, 12)
    assert data.size == 12
    assert as_images(Rows(form), size=12).shape == (60, 1, 12, 12)
