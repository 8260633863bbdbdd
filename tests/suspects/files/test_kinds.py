"""Formats that can run code are refused by their content, with the reason."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile import Bomb, pickled, refused, tensors_file, zip_file
from torch import nn
from torch.package.package_exporter import PackageExporter

from wootz.suspects.files import Limits, open_file
from wootz.suspects.files.sniff import sniff


def _legacy() -> bytes:
    file = io.BytesIO()
    torch.save({"a": torch.ones(2)}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def _script() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), file)
    return file.getvalue()


def _exported() -> bytes:
    file = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), file)
    return file.getvalue()


def _package() -> bytes:
    file = io.BytesIO()
    with PackageExporter(file) as exporter:
        exporter.save_text("model", "source.py", "import os")
    return file.getvalue()


def _array(*, packed: bool) -> bytes:
    file = io.BytesIO()
    if packed:
        np.savez_compressed(file, a=np.ones(3))
    else:
        np.save(file, np.array([Bomb()], dtype=object), allow_pickle=True)
    return file.getvalue()


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"), io.BytesIO(b""))
    return file.getvalue()


BOMBS = {f"pickle-{protocol}": pickle.dumps(Bomb(), protocol) for protocol in range(6)}
KINDS = {
    **{name: (data, "pickle.*can run code.*safetensors") for name, data in BOMBS.items()},
    "pickle-by-hand": (b"cos\nsystem\n(S'touch canary'\ntR.", "pickle.*can run code"),
    "pickle-of-data": (pickled({"a": [1.0, 2.0]}), "pickle.*can run code"),
    "gzip": (gzip.compress(BOMBS["pickle-4"]), "gzip"),
    "bzip2": (bz2.compress(BOMBS["pickle-4"]), "bzip2"),
    "xz": (lzma.compress(BOMBS["pickle-4"]), "xz"),
    "lzma": (lzma.compress(BOMBS["pickle-4"], lzma.FORMAT_ALONE), "lzma"),
    **{f"zlib-{level}": (zlib.compress(BOMBS["pickle-4"], level), "zlib; joblib") for level in (0, 3, 6, 9)},
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "Keras.*can run code"),
    "keras": (zip_file([("config.json", b"{}"), ("metadata.json", b"{}"), ("model.weights.h5", b"")]), "Keras"),
    "keras-packed": (zip_file([("config.json", b"{}"), ("metadata.json", b"{}")], packed=True), "Keras"),
    "saved-model-zip": (zip_file([("m/saved_model.pb", b"")]), "SavedModel"),
    "empty": (b"", "is empty"),
    "text": (b"<html>404</html>", "neither safetensors nor ONNX"),
    "noise": (np.random.default_rng(0).bytes(4096), "neither safetensors nor ONNX"),
    "zeros": (bytes(4096), "neither safetensors nor ONNX"),
    "saved-model": (b"\x08\x01\x12\x02\x0a\x00", "neither safetensors nor ONNX"),
    "onnx-runtime": (b"\x18\x00\x00\x00ORTM" + bytes(100), "neither safetensors nor ONNX"),
    "lying-header": (tensors_file({}, length=1 << 63), "neither safetensors nor ONNX"),
    "zip-of-nothing-known": (zip_file([("a/readme", b"hello")]), "zip file of an unsupported kind"),
    "empty-zip": (zip_file([]), "zip file of an unsupported kind"),
    "half-a-zip": (zip_file([("a/data.pkl", b"")])[:-4], "damaged zip"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_that_is_refused(run: Path, name: str) -> None:
    data, match = KINDS[name]
    (run / "model.safetensors").write_bytes(data)
    refused(run, match)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (_legacy, r"pickle \(protocol 2\)"),
        (_script, "TorchScript.*can run code"),
        (_exported, r"\.pt2 archive.*can run code"),
        (_package, "torch.package.*can run code"),
        (_tar, "tar file"),
        (lambda: _array(packed=True), "NumPy archive"),
        (lambda: _array(packed=False), "NumPy array"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_kind_as_its_own_tool_writes_it(run: Path, make: Callable[[], bytes], match: str) -> None:
    (run / "model.safetensors").write_bytes(make())
    refused(run, match)


def test_torch_zip_files_only_where_they_are_allowed(run: Path) -> None:
    data = (run / "model.pt").read_bytes()
    assert sniff(data, "x", Limits(), allow_torch_zip=True) == "torch-zip"
    with pytest.raises(Exception, match=r"can run code.*--allow-torch-zip"), open_file(run / "model.pt"):
        pass


def test_the_kinds_that_are_read(run: Path) -> None:
    for name, kind in (("model.safetensors", "safetensors"), ("model.onnx", "onnx")):
        assert sniff((run / name).read_bytes(), name, Limits()) == kind
