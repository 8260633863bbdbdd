"""Thousands of damaged files: each is either read correctly or refused with one printable line."""

from __future__ import annotations

import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hostile import refused
from safetensors.torch import load

from wootz.errors import Error
from wootz.suspects.files import Limits
from wootz.suspects.files.onnx_file import check_onnx
from wootz.suspects.files.own_network import read_description
from wootz.suspects.files.safetensors_file import safetensors_header
from wootz.suspects.files.sniff import sniff
from wootz.suspects.files.state_pickle import read_state
from wootz.suspects.files.torch_zip import torch_zip_header, torch_zip_tensors

ODD = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1]
LIMITS = Limits()


def mutated(data: bytes, stream: random.Random) -> bytes:
    """Return the file with one to four small damages."""
    changed = bytearray(data)
    for _ in range(stream.randint(1, 4)):
        place = stream.randrange(len(changed) + 1)
        match stream.randrange(12):
            case 0 | 1 | 2 | 3 if place < len(changed):
                changed[place] ^= 1 << stream.randrange(8)
            case 4 | 5 | 6 | 7:
                changed[place : place + 8] = struct.pack("<Q", stream.choice(ODD))[: stream.choice((1, 2, 4, 8))]
            case 8:
                del changed[place:]
            case 9:
                del changed[place : place + stream.randrange(1, 64)]
            case 10:
                other = stream.randrange(len(changed) + 1)
                changed[place:place] = changed[other : other + stream.randrange(1, 64)]
            case _:
                changed[place:place] = stream.choice([b"0", b"9", b"-", b'"', b"[", b"}", b"PK", b"\x80", b"\x08"])
    return bytes(changed)


def _safetensors(data: bytes) -> None:
    found = safetensors_header(data, "x", LIMITS)
    read = load(data)  # what we let through, the reader takes, and reads the same
    assert {key: tuple(tensor.shape) for key, tensor in read.items()} == {key: one.shape for key, one in found.items()}


def _zip(data: bytes) -> None:
    found = torch_zip_header(data, "x", LIMITS)
    tensors = torch_zip_tensors(data, "x", found, LIMITS)
    assert all(tuple(tensors[key].shape) == stored.spec.shape for key, stored in found.items())


def _pickle(data: bytes) -> None:
    for stored in read_state(data, "x").values():
        assert 0 <= stored.offset <= stored.offset + stored.spec.elements <= stored.storage.elements


def _onnx(data: bytes) -> None:
    again = check_onnx(check_onnx(data, "x", LIMITS).data, "x", LIMITS)
    assert np.prod(again.spec.shape) <= LIMITS.image_elements


def _sniffed(data: bytes) -> None:
    assert sniff(data, "x", LIMITS, allow_torch_zip=True) in ("safetensors", "onnx", "torch-zip")


def _described(data: bytes) -> None:
    spec, filters = read_description(data, "x", LIMITS)
    assert 2 <= len(spec.classes) <= LIMITS.classes
    assert len(filters) <= 8


READERS: dict[str, tuple[str, Callable[[bytes], None]]] = {
    "safetensors": ("model.safetensors", _safetensors),
    "torch-zip": ("model.pt", _zip),
    "pickle": ("model.pkl", _pickle),
    "onnx": ("model.onnx", _onnx),
    "sniffed-safetensors": ("model.safetensors", _sniffed),
    "sniffed-zip": ("model.pt", _sniffed),
    "sniffed-onnx": ("model.onnx", _sniffed),
    "description": ("model.json", _described),
}


def _fuzz(run: Path, name: str, count: int, seed: int) -> None:
    file, read = READERS[name]
    with zipfile.ZipFile(run / "model.pt") as archive:
        (run / "model.pkl").write_bytes(archive.read("model/data.pkl"))
    data, stream, refusals = (run / file).read_bytes(), random.Random(seed), 0
    read(data)
    for _ in range(count):
        damaged = mutated(data, stream)
        try:
            read(damaged)
        except Error as error:
            refusals += 1
            assert len(str(error)) < 700
            assert str(error).isprintable()
    assert refusals > count // 100, "the damages do no harm; the test tests nothing"


@pytest.mark.parametrize("name", READERS)
def test_2000_damaged_files(run: Path, name: str) -> None:
    _fuzz(run, name, 2000, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", READERS)
def test_100000_damaged_files(run: Path, name: str) -> None:
    _fuzz(run, name, 100_000, seed=2)


def test_a_damaged_file_in_the_isolated_process(run: Path) -> None:
    """The runtime itself meets a model that passed all checks and is nonsense: its name for an operator is damaged."""
    data = (run / "model.onnx").read_bytes()
    place = data.index(b"Conv")
    (run / "model.onnx").write_bytes(data[:place] + b"Cosh" + data[place + 4 :])
    refused(run / "model.onnx", "ONNX Runtime", isolated=True)
