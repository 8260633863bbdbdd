from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import struct
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wootz.data import Dataset, RawDataset, Split, builtin, epoch_batches, load, split_dataset
from wootz.data.formats import join_cifar, parse_cifar, parse_idx, read_raw
from wootz.data.sources import SOURCES, File
from wootz.errors import ConfigError, DataError

WHOLE = struct.pack(">HBB3I", 0, 8, 3, 2, 3, 4) + bytes(range(24))


class TestIdx:
    def test_a_whole_file(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(gzip.compress(WHOLE))
        array = parse_idx(read_raw(tmp_path / "x"), tmp_path / "x")
        assert array.shape == (2, 3, 4)
        assert array.ravel().tolist() == list(range(24))

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (WHOLE[:-1], "truncated: its header announces 24 bytes"),
            (WHOLE + b"\0", "too long"),
            (WHOLE[:10], "header of rank 3 does not fit"),
            (b"\x89PNG\r\n", "is not an IDX file"),
            (b"", "is not an IDX file"),
            (WHOLE[:2] + b"\x0d" + WHOLE[3:], "type 0x0d"),
        ],
    )
    def test_a_broken_file_names_itself_and_the_reason(self, data: bytes, reason: str) -> None:
        with pytest.raises(DataError, match=f"some/file: .*{reason}"):
            parse_idx(data, Path("some/file"))

    @given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
    @settings(max_examples=300)
    def test_a_mutated_file_is_read_or_refused_by_name(self, place: int, value: int) -> None:
        data = bytearray(WHOLE)
        data[place] = value
        try:
            assert parse_idx(bytes(data), Path("f")).size == 24
        except DataError as error:
            assert str(error).startswith("f: ")

    def test_a_cut_gzip_file(self, tmp_path: Path) -> None:
        (tmp_path / "x.gz").write_bytes(gzip.compress(WHOLE)[:-9])
        with pytest.raises(DataError, match=r"x\.gz: cannot be read completely"):
            read_raw(tmp_path / "x.gz")


def batch(labels: list[int], seed: int = 0) -> bytes:
    """Return a CIFAR-10 batch of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 3072), np.uint8)
    return np.concatenate([np.asarray(labels, np.uint8)[:, None], pixels], axis=1).tobytes()


class TestCifar:
    def test_labels_and_planes(self) -> None:
        red_first = bytes([7]) + bytes([200] * 1024 + [100] * 1024 + list(range(32)) * 32)
        share = join_cifar([parse_cifar(red_first, Path("one")), parse_cifar(batch([1, 9]), Path("two"))])
        assert share.labels.tolist() == [7, 1, 9]
        assert share.pixels.shape == (3, 3, 32, 32)
        assert share.pixels.dtype == torch.uint8
        assert (share.pixels[0, 0] == 200).all()
        assert (share.pixels[0, 1] == 100).all()
        assert share.pixels[0, 2, 5].tolist() == list(range(32))  # rows of the plane are rows of the image

    @pytest.mark.parametrize("data", [b"", b"\x01", batch([1, 2])[:-1], batch([1]) + b"\0"])
    def test_no_whole_number_of_records(self, data: bytes) -> None:
        with pytest.raises(DataError, match=r"^some/batch: its .* not a whole number of CIFAR-10 records"):
            parse_cifar(data, Path("some/batch"))

    def test_a_foreign_batch_is_refused_by_its_digest(self, tmp_path: Path) -> None:
        (tmp_path / "cifar10/cifar-10-batches-bin").mkdir(parents=True)
        for file in SOURCES["cifar10"].files:
            (tmp_path / "cifar10" / file.name).write_bytes(batch([1]))
        with pytest.raises(DataError, match=r"data_batch_1\.bin: is a CIFAR-10 batch, but not cifar10's"):
            load("cifar10", tmp_path)

    def test_the_archive_is_fetched_checked_and_unpacked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """By the digests of a small archive of the same build, over HTTP."""
        known, contents, archive = SOURCES["cifar10"], {}, tmp_path / "mirror/cifar-10-binary.tar.gz"
        archive.parent.mkdir()
        with tarfile.open(archive, "w:gz") as tar:
            for seed, file in enumerate(known.files):
                contents[file.name] = batch([label % 10 for label in range(120)], seed)
                about = tarfile.TarInfo(file.name)
                about.size = len(contents[file.name])
                tar.addfile(about, io.BytesIO(contents[file.name]))

        def digested(files: tuple[File, ...]) -> tuple[File, ...]:
            return tuple(File(file.name, hashlib.sha256(contents[file.name]).hexdigest()) for file in files)

        handler = partial(SimpleHTTPRequestHandler, directory=str(archive.parent))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            Thread(target=server.serve_forever, daemon=True).start()
            small = dataclasses.replace(
                known,
                training=digested(known.training),
                test=digested(known.test),
                url=f"http://127.0.0.1:{server.server_port}/",
                served={archive.name: hashlib.sha256(archive.read_bytes()).hexdigest()},
            )
            monkeypatch.setattr(builtin, "SOURCES", {"cifar10": small})
            monkeypatch.setattr(builtin, "cache_folder", lambda name: tmp_path / "cache" / name)
            assert builtin.fetch("cifar10") == tmp_path / "cache/cifar10"
            foreign = dataclasses.replace(small, served={archive.name: "0" * 64})
            monkeypatch.setattr(builtin, "SOURCES", {"cifar10": foreign})
            monkeypatch.setattr(builtin, "cache_folder", lambda name: tmp_path / "other" / name)
            with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz cannot be fetched from http"):
                builtin.fetch("cifar10")
            server.shutdown()
        monkeypatch.setattr(builtin, "SOURCES", {"cifar10": small})
        monkeypatch.setattr(builtin, "cache_folder", lambda name: tmp_path / "cache" / name)
        data = load("cifar10")
        assert data.shape == (3, 32, 32)
        assert data.classes[data.test.labels[3]] == "cat"
        assert len(data.test) == 120
        assert data.test.pixels[0].flatten().numpy().tobytes() == contents[known.test[0].name][1:3073]
        assert len(data.train) == 290
        assert set(data.train.labels.tolist()) == set(range(10))


class TestSources:
    def test_missing_data_name_every_place_and_the_command(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WOOTZ_DATA", str(tmp_path / "env"))
        monkeypatch.setattr(builtin, "cache_folder", lambda name: tmp_path / "cache" / name)
        monkeypatch.setattr(builtin, "SYSTEM", tmp_path / "system")
        with pytest.raises(DataError) as error:
            load("mnist", tmp_path / "given")
        text = str(error.value)
        order = [text.index(str(tmp_path / place / "mnist")) for place in ("given", "env", "cache", "system")]
        assert order == sorted(order)
        assert text.endswith("wootz data fetch mnist")

    def test_a_foreign_file_is_refused_by_its_digest(self, tmp_path: Path) -> None:
        (tmp_path / "mnist").mkdir()
        for file in SOURCES["mnist"].files:
            (tmp_path / "mnist" / file.name).write_bytes(WHOLE)
        with pytest.raises(DataError, match=r"train-images-idx3-ubyte: is an IDX file, but not mnist's"):
            load("mnist", tmp_path)

    def test_a_folder_of_the_same_name_does_not_hide_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "mnist-5k").mkdir()
        monkeypatch.chdir(tmp_path)
        assert load("mnist-5k").name == "mnist-5k"
        with pytest.raises(DataError, match="one folder of images per class"):
            load("./mnist-5k")

    def test_unknown_name(self) -> None:
        with pytest.raises(ConfigError, match=r"did you mean 'mnist'"):
            load("mnits")


@pytest.mark.skipif("not __import__('os').environ.get('WOOTZ_DATA')", reason="WOOTZ_DATA names no folder of data sets")
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_all_seventy_thousand(name: str) -> None:
    data = load(name)
    shares = (data.train, data.validation, data.probes, data.thief)
    assert [len(share) for share in shares] == [29_000, 1000, 20_000, 10_000]
    assert len(data.test) == 10_000
    assert data.shape == (1, 28, 28)
    assert sum(int(share.pixels.sum()) for share in shares) > 0


class TestSplit:
    @pytest.fixture
    def numbered(self) -> RawDataset:
        """Return 600 images, each of a class of its own."""
        pixels = torch.arange(600).view(-1, 1, 1, 1).remainder(256).to(torch.uint8)
        everything = Split(pixels, torch.arange(600))
        return RawDataset("d", tuple(str(k) for k in range(600)), everything, everything.subset(slice(9)))

    @pytest.mark.parametrize("set_aside", [1.0, 0.3])
    def test_parts_are_disjoint_and_complete(self, numbered: RawDataset, set_aside: float) -> None:
        data = split_dataset(numbered, set_aside)
        seen = torch.cat([share.labels for share in (data.train, data.validation, data.probes, data.thief)])
        assert seen.sort().values.tolist() == list(range(600))

    def test_a_smaller_fraction_leaves_more_to_train_on_and_parts_stay_nested(self, numbered: RawDataset) -> None:
        default, less = split_dataset(numbered), split_dataset(numbered, 0.25)
        assert [len(less.train), len(less.validation), len(less.probes), len(less.thief)] == [515, 10, 50, 25]
        assert less.set_aside == 0.25
        assert torch.equal(less.validation.labels, default.validation.labels)
        for part, whole in (
            (less.probes, default.probes),
            (less.thief, default.thief),
            (default.train, less.train),
        ):
            assert set(part.labels.tolist()) < set(whole.labels.tolist())

    def test_the_split_does_not_depend_on_a_seed(self) -> None:
        one, two = load("mnist-5k"), load("mnist-5k")
        assert torch.equal(one.probes.pixels, two.probes.pixels)

    def test_embedded_digits(self, digits: Dataset) -> None:
        total = sum(len(s) for s in (digits.train, digits.validation, digits.probes, digits.thief, digits.test))
        assert total == 5000
        assert digits.test.images().max() == 1
        assert 0.05 < digits.test.images().mean() < 0.3

    def test_misfits(self) -> None:
        share = Split(torch.zeros(100, 1, 4, 4, dtype=torch.uint8), torch.full((100,), 3))
        with pytest.raises(DataError, match="labels from 3 to 3; must be from 0 to 1"):
            split_dataset(RawDataset("d", ("a", "b"), share, share))
        with pytest.raises(DataError, match="too few to split"):
            split_dataset(RawDataset("d", ("a", "b"), share.subset(slice(2)), share))
        with pytest.raises(DataError, match="too few to split"):
            split_dataset(RawDataset("d", ("a", "b"), share, share), 0.001)


class TestOwnData:
    def test_npz(self, tmp_path: Path) -> None:
        x = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
        np.savez(tmp_path / "own.npz", x_train=x, y_train=np.arange(300) % 5)
        data = load(str(tmp_path / "own.npz"))
        assert data.shape == (3, 8, 8)
        assert len(data.classes) == 5
        assert len(data.test) == 50

    def test_class_folders(self, tmp_path: Path) -> None:
        for name, level in (("cat", 10), ("dog", 200)):
            (tmp_path / name).mkdir()
            for k in range(60):
                Image.new("L", (6, 5), level + k % 3).save(tmp_path / name / f"{k}.png")
        data = load(str(tmp_path))
        assert data.classes == ("cat", "dog")
        assert data.shape == (1, 5, 6)
        assert (data.train.pixels.flatten(1).float().mean(1) > 100).long().equal(data.train.labels)
        (tmp_path / "cat" / "0.png").write_bytes(b"nothing")
        with pytest.raises(DataError, match=r"0\.png: is not a complete image"):
            load(str(tmp_path))

    def test_a_folder_without_classes(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="one folder of images per class"):
            load(str(tmp_path))


class TestBatches:
    @given(st.integers(1, 500), st.integers(2, 64), st.integers(0, 5), st.integers(1, 3))
    def test_processes_share_an_epoch(self, count: int, size: int, epoch: int, world: int) -> None:
        world = min(world, size, count)
        parts = [epoch_batches(count, size, seed=1, epoch=epoch, rank=r, world=world) for r in range(world)]
        assert len({len(part) for part in parts}) == 1
        seen = torch.cat([batch for part in parts for batch in part]).tolist()
        assert len(seen) == len(set(seen))
        assert len({len(batch) for part in parts for batch in part}) == 1

    def test_the_order_is_a_function_of_seed_and_epoch(self) -> None:
        one, two, other = (epoch_batches(100, 10, seed=1, epoch=epoch) for epoch in (3, 3, 4))
        assert torch.equal(torch.cat(one), torch.cat(two))
        assert not torch.equal(torch.cat(one), torch.cat(other))
